"""Predictions by the CUDA engine as JSON, run in a process of its own that picks the simulator."""

import json
import sys

import numpy as np
from unit.solve import untraced_models as examples

from amortnlme.core.errors import AmortNlmeError
from amortnlme.data.design import Design, Dose, EventKind
from amortnlme.model.dynamics import Ode
from amortnlme.model.gpu import on_gpu

RNG = np.random.default_rng(3)
# More rows than threads of a block, so that threads come back for another.
PHI = np.log([0.9, 0.2, 0.3]) + RNG.normal(0.0, 0.4, (70, 3))
TIMES = np.array([0.0, 1.0, 7.0, 24.0])
WEIGHT = {"weight": 90.0}
MOVED = {
    "lag": {"gut": lambda p: 2.0 * p.ka},
    "bioavailability": {"gut": lambda p: 0.7},
    "initial": lambda p: (0.0, 10.0 * p.ka),
    "start": lambda p: 5.0 * p.ka,
}


def plain_design():
    """Bolus, infusion and a reset that restarts the clock."""
    K = EventKind
    rows = [
        (0.0, K.BOLUS, 50.0, 0.0),
        (0.5, K.INFUSION, 100.0, 10.0),
        (2.0, K.OBSERVATION, 0.0, 0.0),
        (6.0, K.OBSERVATION, 0.0, 0.0),
        (0.0, K.RESET, 0.0, 0.0),
        (1.0, K.BOLUS, 20.0, 0.0),
        (3.0, K.OBSERVATION, 0.0, 0.0),
    ]
    time, kind, amount, duration = (np.array(column) for column in zip(*rows, strict=True))
    zero = np.zeros(len(rows))
    return Design(time, kind, zero, amount, duration, zero, zero, (kind == K.OBSERVATION).astype(int))


def moved_design():
    return Design.from_doses([Dose(0.0, 100.0, addl=1, ii=6.0), Dose(3.0, 60.0, duration=2.0)], TIMES)


def steady_design():
    return Design.from_doses([Dose(0.0, 100.0, ii=8.0, ss=1)], TIMES)


def weights_of(design):
    """A covariate that changes within the design."""
    return {"weight": np.linspace(60.0, 80.0, design.n_records).round(-1)}


def ode_model(**options):
    return examples.model_of(Ode(examples.linear, dose_state="gut", **options))


def powered_model():
    return examples.model_of(Ode(examples.powered, dose_state="gut"), ())


def _code(call):
    try:
        call()
    except AmortNlmeError as fault:
        return fault.code
    return "none"


def main():
    model = on_gpu(ode_model())
    design = plain_design()
    plain = model.predict(PHI, design, weights_of(design))
    moved = on_gpu(ode_model(**MOVED)).predict(PHI[:3], moved_design(), WEIGHT)
    narrow = on_gpu(ode_model(), single_precision=True).predict(PHI[:3], design, weights_of(design))
    few = on_gpu(ode_model(max_steps=2)).predict(PHI[:1], design, WEIGHT)
    found = {
        "plain": plain.f.tolist(),
        "status": plain.status.tolist(),
        "moved": moved.f.tolist(),
        "powered": on_gpu(powered_model()).predict(PHI[:3], moved_design()).f.tolist(),
        "narrow": narrow.f.tolist(),
        "narrow type": str(narrow.f.dtype),
        "few": [few.status.tolist(), np.isnan(few.f).tolist()],
        "capabilities": sorted(model.capabilities),
        "same fingerprint": model.fingerprint == ode_model().fingerprint,
        "steady": _code(lambda: model.predict(PHI[:1], steady_design(), WEIGHT)),
        "sensitivity": _code(lambda: model.predict_with_sensitivity(PHI[:1], design, WEIGHT)),
        "method": _code(lambda: on_gpu(ode_model(method="tsit5"))),
        "dynamics": _code(lambda: on_gpu(examples.compiled_model())),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
