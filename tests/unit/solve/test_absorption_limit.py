"""The oral one-compartment model against the Bateman function in 120 digits, through ka = ke."""

import mpmath
import numpy as np
import pytest
from unit.solve.test_linear import make_solver, oral, schedule_of

from amortnlme.data.design import Design, Dose

TIMES = np.array([1e-3, 0.01, 0.1, 0.5, 1.0, 3.0, 8.0, 24.0, 100.0])
KE = 1.5


def bateman(ka, ke, t):
    if ka == ke:
        return ka * t * mpmath.exp(-ke * t)
    return ka / (ka - ke) * (mpmath.exp(-ke * t) - mpmath.exp(-ka * t))


@pytest.mark.parametrize("exponent", [None, *range(1, 15)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_oral_absorption_matches_the_bateman_function_at_every_time(exponent, sign):
    """Pointwise relative error, in the first minute and far in the tail, of values and sensitivities."""
    ka = KE * (1.0 + (0.0 if exponent is None else sign * 10.0**-exponent))
    schedule = schedule_of([Design.from_doses([Dose(0.0, 1.0)], TIMES)], 0)
    found = make_solver(oral, 2, 2).solve(
        np.array([[ka, KE]]), schedule, np.zeros(1, int), sensitivities=True
    )
    with mpmath.workdps(120):
        a, e, h = mpmath.mpf(ka), mpmath.mpf(KE), mpmath.mpf(10) ** -30
        for j, t in enumerate(map(mpmath.mpf, TIMES)):
            exact = (
                bateman(a, e, t),
                (bateman(a + h, e, t) - bateman(a - h, e, t)) / (2 * h),
                (bateman(a, e + h, t) - bateman(a, e - h, t)) / (2 * h),
            )
            values = (found.x[0, j, 1], found.dx_dpsi[0, j, 0, 1], found.dx_dpsi[0, j, 1, 1])
            for value, reference in zip(values, exact, strict=True):
                assert value == pytest.approx(float(reference), rel=1e-10, abs=0)
