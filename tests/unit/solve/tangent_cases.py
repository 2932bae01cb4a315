"""Models and designs of the sensitivity tests, each also as a course of the complex-step oracle."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from unit.solve.complex_step import Course, Event, advance, real

from amortnlme.solve.engine import Rows
from amortnlme.solve.entry import Entry, EntryFunctions
from amortnlme.solve.functions import exp, log
from amortnlme.solve.ode_tangent import OdeTangent
from amortnlme.solve.schedule import Records, covariate_segments, make_schedule
from amortnlme.solve.trace import Names, trace, trace_output

DECAY = 20.0  # [h] of the time-dependent part of elimination


def absorption(t, y, p):
    """Saturable elimination that falls with time, in a volume that grows with weight."""
    c = y.central / (p.v * p.wt / 70.0)
    elimination = p.vmax * c / (p.km + c) * (1.0 + p.amp * exp(-t / DECAY))
    exchange = p.q * c - p.q * y.peripheral / p.vp
    return (-p.ka * y.depot, p.ka * y.depot - elimination - exchange, exchange)


ABSORPTION = Names(
    ("depot", "central", "peripheral"), ("ka", "vmax", "km", "v", "q", "vp", "tlag", "bio", "amp"), ("wt",)
)
ABSORPTION_ENTRY = EntryFunctions(
    lag={"depot": lambda p: p.tlag * p.wt / 70.0, "central": lambda p: 0.4 * p.tlag},
    bioavailability={"depot": lambda p: p.bio, "central": lambda p: 1.0 - 0.3 * p.bio},
)
ABSORPTION_OUTPUTS = (
    lambda t, y, p: y.central / (p.v * p.wt / 70.0),
    lambda t, y, p: y.peripheral * p.bio + t * p.amp,
)
ABSORPTION_PSI = np.array([0.9, 8.0, 2.5, 10.0, 1.5, 20.0, 0.35, 0.8, 0.4])


def translation(t, y, p):
    """A reaction of second order that feeds a reporter."""
    bind = p.k1 * y.m * y.r
    release = p.k2 * (p.r0 - y.r)
    decay = p.d1 * y.m * y.e
    return (
        -decay - bind + release,
        -decay + p.d2 * (p.e0 - y.e),
        release - bind,
        p.k * (p.r0 - y.r) - p.g * y.z,
    )


TRANSLATION = Names(("m", "e", "r", "z"), ("d1", "k1", "d2", "r0", "e0", "g", "k", "t0", "k2", "offset"))
TRANSLATION_ENTRY = EntryFunctions(initial=lambda p: (1.0, p.e0, p.r0, 0.0), start=lambda p: p.t0)
TRANSLATION_OUTPUTS = (lambda t, y, p: log(y.z + p.offset),)
TRANSLATION_PSI = np.array([1.0, 2.7, 0.4, 0.05, 1.0, 0.01, 50.0, 0.7, 1.1, 5.0])


def chain(t, y, p):
    return (-p.ka * y.depot, p.ka * y.depot - p.k * y.central)


CHAIN = Names(("depot", "central"), ("ka", "k"))


def build(rhs, names, functions, outputs):
    """Sensitivities of a model."""
    system = trace(rhs, names)
    entry = Entry.from_functions(functions, names, system.symbols)
    traced = [trace_output(f, names, system.symbols, str(o)) for o, f in enumerate(outputs)]
    return OdeTangent.build(system, entry, traced), system, entry, tuple(traced)


def rows_of(records, psi):
    """Rows of one design; records are (time, kind, state, amount, duration, ii, ss, output, covariates)."""
    k = len(records)
    columns = list(zip(*records, strict=True))
    time, kind, state, amount, duration, ii, ss, output = (np.array([c]) for c in columns[:8])
    observed = kind[0] == 0
    covariates = np.array([columns[8]], dtype=float).reshape(1, k, -1)
    segment, distinct = covariate_segments(covariates, np.array([k]))
    slot = np.where(observed, np.cumsum(observed) - 1, -1)[None]
    plain = Records(time, kind, state, amount, duration, ii, ss, slot, segment, np.array([k]))
    m = int(observed.sum())
    return Rows(
        np.atleast_2d(psi),
        make_schedule(plain, m, distinct),
        np.zeros(len(np.atleast_2d(psi)), dtype=np.int64),
        time[:, observed],
        output[:, observed],
        covariates[:, observed],
    )


def observation(time, output=0, wt=()):
    return (time, 0, 0, 0.0, 0.0, 0.0, 0, output, wt)


def bolus(time, state, amount, ii=0.0, ss=0, wt=()):
    return (time, 1, state, amount, 0.0, ii, ss, 0, wt)


def infusion(time, state, amount, duration, ii=0.0, ss=0, wt=()):
    return (time, 2, state, amount, duration, ii, ss, 0, wt)


def reset(time, wt=()):
    return (time, 3, 0, 0.0, 0.0, 0.0, 0, 0, wt)


def switch(time, wt):
    return (time, 4, 0, 0.0, 0.0, 0.0, 0, 0, wt)


# The oracle's side


def complex_rhs(rhs, names):
    """The right-hand side on complex arrays: `exp` and `log` of the model functions know floats only."""
    functions = {"exp": np.exp, "log": np.log}
    code = type(rhs)(rhs.__code__, {**rhs.__globals__, **functions})

    def evaluate(t, y, p, x):
        return np.array(code(t, space(names.states, y), parameters(names, p, x))) + 0j

    return evaluate


def space(keys, values):
    return SimpleNamespace(**dict(zip(keys, values, strict=True)))


def parameters(names, p, x):
    return space((*names.parameters, *names.covariates), (*p, *x))


def seen(time, function, names):
    """An observation."""
    code = type(function)(function.__code__, {**function.__globals__, "exp": np.exp, "log": np.log})

    def observe(t, y, p, x):
        return code(t, space(names.states, y), parameters(names, p, x))

    return Event(lambda p: time, observe=observe)


def _shifted(amounts, rates):
    def jump(y, rate, p):
        y, rate = y.copy(), rate.copy()
        for state, amount in amounts:
            y[state] += amount(p)
        for state, amount in rates:
            rate[state] += amount(p)
        return y, rate

    return jump


def given(time, state, amount, wt, names, functions):
    """A bolus that arrives after its lag."""
    lag, fraction = entry_of(state, wt, names, functions)
    return Event(lambda p: time + lag(p), _shifted([(state, lambda p: amount * fraction(p))], []))


def infused(time, state, amount, duration, wt, names, functions):
    """An infusion's start and end."""
    lag, fraction = entry_of(state, wt, names, functions)
    rate = amount / duration
    return (
        Event(lambda p: time + lag(p), _shifted([], [(state, lambda p: rate * fraction(p))])),
        Event(lambda p: time + duration + lag(p), _shifted([], [(state, lambda p: -rate * fraction(p))])),
    )


def entry_of(state, wt, names, functions):
    """Lag and bioavailability of a state as functions of the parameters."""
    name = names.states[state]
    lag = (functions.lag or {}).get(name, lambda p: 0.0)
    fraction = (functions.bioavailability or {}).get(name, lambda p: 1.0)
    return (lambda p: lag(parameters(names, p, wt))), (lambda p: fraction(parameters(names, p, wt)))


def settled(course, periods, time, state, amount, duration, ii, wt, names, functions):
    """A steady-state dose: the regimen repeated over one and the same period, then the last arrival.

    The ends of infusions that still run after it are events of their own.
    """
    lag, fraction = entry_of(state, wt, names, functions)

    def copies(phase):
        return sum(duration - k * ii > phase for k in range(100))

    def follow(y, p, arrival, span):
        rate = np.zeros_like(y)
        if duration == 0.0:
            y = y.copy()
            y[state] += amount * fraction(p)
            return advance(course, arrival, arrival + span, y, rate, p, wt), rate
        oldest = duration - (copies(0.0) - 1) * ii
        for begin, end in ((0.0, oldest), (oldest, span)):
            stop = end if real(end) < real(span) else span
            if real(stop) > real(begin):
                rate[state] = amount / duration * fraction(p) * copies(real(begin))
                y = advance(course, arrival + begin, arrival + stop, y, rate, p, wt)
        return y, rate

    def jump(y, rate, p):
        later = lag(p)
        phase = np.ceil(real(later) / ii) * ii - later
        arrival = time - phase
        y = course.initial(p)
        for _ in range(periods):
            y, _rate = follow(y, p, arrival - ii, ii)
        return follow(y, p, arrival, phase)

    return Event(lambda p: time, jump)


def course_of(rhs, names, functions, events, wt=(), max_step=0.1):
    """A course of the oracle."""
    n = len(names.states)

    def initial(p):
        values = functions.initial(parameters(names, p, wt)) if functions.initial else (0.0,) * n
        return np.array([value + 0j * p[0] for value in values])

    start = None
    if functions.start is not None:
        declared = functions.start

        def start(p):
            return declared(parameters(names, p, wt))

    return Course(complex_rhs(rhs, names), initial, events, start, wt, max_step)
