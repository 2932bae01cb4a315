"""Slow reference for linear systems with initial states, start time, lags, bioavailability and inputs.

Every quantity may be complex, times of events too: a complex step gives derivatives through moving events.
What comes before what is decided by real parts. A steady state is a long regimen written out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from unit.solve.linear_oracle import step

from amortnlme.data.design import Design, EventKind

# Rates of at least 0.1 and intervals of at least 6: exp(-0.1 * 6 * 80) = 1e-21 is left of the beginning.
PERIODS = 80


@dataclass(frozen=True)
class System:
    """What is in force from a record on."""

    K: np.ndarray
    b: np.ndarray
    lag: np.ndarray
    fraction: np.ndarray


class Individual:
    """State, clock, running infusions and doses to come of one individual."""

    def __init__(self, system: System, initial: np.ndarray, start: complex | None, time: float) -> None:
        self.system, self.initial, self.start = system, initial, start
        self.reset(time)

    def reset(self, time: float) -> None:
        self.x, self.rate = self.initial.astype(complex), np.zeros(len(self.initial), dtype=complex)
        self.pending: list[tuple[complex, str, int, complex]] = []
        self.clock: complex = time
        self.moves = self.start is None or self.start.real <= time

    def go(self, time: complex) -> None:
        """Let the states move to a time."""
        if not self.moves and self.start is not None and time.real > self.start.real:
            self.moves, self.clock = True, self.start
        if self.moves and time != self.clock:
            self.x = step(self.system.K, self.x, self.rate + self.system.b, time - self.clock)
        self.clock = time

    def apply(self, kind: str, into: int, value: complex) -> None:
        target = self.x if kind == "bolus" else self.rate
        target[into] += -value if kind == "off" else value

    def advance(self, time: float) -> None:
        """Go to a time through everything that arrives until then."""
        while self.pending and (first := min(self.pending, key=lambda one: one[0].real))[0].real <= time:
            self.pending.remove(first)
            self.go(first[0])
            self.apply(*first[1:])
        self.go(time)

    def announce(self, time: complex, into: int, amount: complex, duration: float) -> None:
        """Announce a bolus, or an infusion with its end."""
        if duration == 0.0:
            self.pending.append((time, "bolus", into, amount))
            return
        self.pending.append((time, "on", into, amount / duration))
        self.pending.append((time + duration, "off", into, amount / duration))

    def repeat(
        self, time: float, into: int, amount: complex, duration: float, ii: float, lag: complex, ss: int
    ) -> None:
        """Enter a regimen that has been given for ever, and announce what comes of it."""
        n_late = int(np.ceil(lag.real / ii))
        arrival = time + lag - n_late * ii
        b = self.system.b if ss == 1 else self.system.b * 0
        plain = System(self.system.K, b, self.system.lag, self.system.fraction)
        past = Individual(plain, self.initial * 0, None, (arrival - PERIODS * ii).real)
        past.clock = arrival - PERIODS * ii
        for j in range(PERIODS, -1, -1):
            past.announce(arrival - j * ii, into, amount, duration)
        if lag.real == 0.0 and duration == 0.0:
            past.pending.pop()
        past.advance(time)
        if ss == 1:
            self.reset(time)
            self.x = self.x * 0
        self.x, self.rate = self.x + past.x, self.rate + past.rate
        self.pending += past.pending
        if lag.real == 0.0 and duration == 0.0:
            self.apply("bolus", into, amount)
        for j in range(1, n_late + 1):
            self.announce(arrival + j * ii, into, amount, duration)


def entry_states(system_at, initial, start, design: Design) -> np.ndarray:
    """States at the observations; `system_at(i)` is in force from record i on."""
    one = Individual(system_at(0), np.asarray(initial, dtype=complex), start, float(design.time[0]))
    found = []
    for i in range(design.n_records):
        time, kind = float(design.time[i]), int(design.kind[i])
        if kind == EventKind.RESET:
            one.reset(time)
        else:
            one.advance(time)
        one.system = system_at(i)
        if kind == EventKind.OBSERVATION:
            found.append(one.x.copy())
        elif kind in (EventKind.BOLUS, EventKind.INFUSION):
            into = max(int(design.compartment[i]) - 1, 0)
            duration = float(design.duration[i]) if kind == EventKind.INFUSION else 0.0
            amount = design.amount[i] * one.system.fraction[into]
            lag = complex(one.system.lag[into])
            if design.ss[i]:
                one.repeat(time, into, amount, duration, float(design.ii[i]), lag, int(design.ss[i]))
            elif lag.real > 0.0:
                one.announce(time + lag, into, amount, duration)
            else:
                one.apply(*(("bolus", into, amount) if duration == 0.0 else ("on", into, amount / duration)))
                if duration > 0.0:
                    one.pending.append((time + duration, "off", into, amount / duration))
    return np.array(found)
