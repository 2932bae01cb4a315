"""Ticks are written as plain texts; what they say must be the numbers."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from amortnlme.report.ticks import write_ticks


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e-11), (1e6, 1e6 + 1.0), (0.0, 1.0), (2e7, 5e7)])
def test_tick_texts_are_the_values_when_matplotlib_would_set_an_offset_apart(low, high):
    panel = Figure().subplots()
    panel.plot([0.0, 1.0], [low, high])
    places = [p for p in panel.yaxis.get_majorticklocs() if low <= p <= high]
    write_ticks(panel)
    texts = [t.get_text().replace("\N{MINUS SIGN}", "-") for t in panel.texts]
    numbers = np.array([float(t) for t in texts if t])
    spacing = places[1] - places[0]
    for place in places:
        assert np.abs(numbers - place).min() < 0.51 * spacing
