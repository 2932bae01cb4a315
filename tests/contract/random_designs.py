"""Random event tables: everything a design may hold, on a grid that makes records coincide."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from amortnlme.data.design import Design, Dose, EventKind, expand_dose

FIELDS = ("time", "kind", "compartment", "amount", "duration", "ii", "ss", "output")
WEIGHTS = (70.0, 50.0, 95.0)
# Quarter hours, so that doses, observations, infusion ends and lagged arrivals often fall together.
GRID = 0.25
LAST = 12.0
AMOUNTS = (10.0, 100.0, 37.5, 0.0)
DURATIONS = (0.0, 0.5, 3.0, 7.25)
INTERVALS = (6.0, 1.0, 2.5, 12.0)


class Case:
    """One design with its covariate and the parameters of one individual; prints as a table."""

    def __init__(self, design, weight, phi):
        self.design = design
        self.weight = weight
        self.phi = phi

    def __repr__(self):
        lines = [f"phi = {self.phi.tolist()}", "  " + "".join(f"{name:>12}" for name in (*FIELDS, "weight"))]
        for i in range(self.design.n_records):
            cells = [f"{getattr(self.design, name)[i]:g}" for name in FIELDS]
            cells[1] = EventKind(int(self.design.kind[i])).name
            lines.append("  " + "".join(f"{cell:>12}" for cell in (*cells, f"{self.weight[i]:g}")))
        return "\n".join(lines)

    @property
    def covariates(self):
        return {"weight": self.weight}


@dataclass(frozen=True)
class Menu:
    """What the random tables of one model may hold.

    `choices` gives, for each column of phi, the values it may take. With `apart` observations and resets
    never coincide with anything else, so that predictions are differentiable in every parameter.
    """

    choices: tuple[tuple[float, ...], ...]
    n_compartments: int
    n_outputs: int
    ss: tuple[int, ...] = (0, 1)
    apart: bool = False


def spread(center, scale):
    """Values around a center, the center first: hypothesis shrinks to it."""
    steps = sorted(range(-8, 9), key=abs)
    return tuple(float(center + scale * i / 8) for i in steps)


@st.composite
def cases(draw, menu):
    """Draw a case."""
    records, clock = [], 0.0
    for occasion in range(draw(st.integers(1, 2))):
        first = 0.0 if draw(st.booleans()) else clock
        entries = draw(_occasion(menu))
        records += _at_reset(first, occasion, menu)
        records += [{**entry, "time": first + entry["time"]} for entry in entries]
        clock = records[-1]["time"]
    columns = {name: np.array([record.get(name, 0) for record in records]) for name in FIELDS}
    weight = np.array([record.get("weight", np.nan) for record in records])
    known = np.maximum.accumulate(np.where(np.isfinite(weight), np.arange(len(weight)), -1))
    phi = np.array([draw(st.sampled_from(values)) for values in menu.choices])
    return Case(Design(**columns), np.where(known >= 0, weight[known], WEIGHTS[0]), phi)


def _at_reset(time, occasion, menu):
    if not occasion:
        return []
    # Just before what follows at the same time.
    return [{"time": time + (0.003 if menu.apart else 0.0), "kind": EventKind.RESET}]


@st.composite
def _occasion(draw, menu):
    """Draw the records between two resets, sorted by time; ties in a random order."""
    quarters = st.integers(0, int(LAST / GRID)).map(lambda i: GRID * i)
    shift = 0.0137 if menu.apart else 0.0
    entries = []
    for dose in draw(st.lists(_doses(menu, quarters), max_size=4)):
        for one in expand_dose(dose):
            kind = EventKind.INFUSION if one.duration else EventKind.BOLUS
            entries.append({"kind": kind, **{name: getattr(one, name) for name in ("time", *FIELDS[2:7])}})
    for time in draw(st.lists(quarters, max_size=2)):
        entries.append({"time": time, "kind": EventKind.OTHER})
    for time in draw(st.lists(quarters, min_size=1, max_size=4)):
        output = draw(st.integers(1, menu.n_outputs))
        entries.append({"time": time + shift, "kind": EventKind.OBSERVATION, "output": output})
    if menu.apart:
        entries = [{**entry, "time": entry["time"] + 0.01} for entry in entries]
    for entry in entries:
        weight = draw(st.sampled_from((None, None, *WEIGHTS)))
        if weight is not None:
            entry["weight"] = weight
    return sorted(draw(st.permutations(entries)), key=lambda entry: entry["time"])


@st.composite
def _doses(draw, menu, quarters):
    return Dose(
        time=draw(quarters),
        amount=draw(st.sampled_from(AMOUNTS)),
        compartment=draw(st.integers(0, menu.n_compartments)),
        duration=draw(st.sampled_from(DURATIONS)),
        ii=draw(st.sampled_from(INTERVALS)),
        ss=draw(st.sampled_from(menu.ss)),
        addl=draw(st.integers(0, 3)),
    )
