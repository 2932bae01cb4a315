"""Figures as SVG text, the smoother, and numbers as text."""

import numpy as np
import pytest

from amortnlme.report.figures import PanelSize, house_style, local_trend, panel_grid, to_svg
from amortnlme.report.numbers import fixed, interval, percent, significant


def _figure(label):
    figure, axes = panel_grid(1, 1, PanelSize(2.0, 1.5))
    axes[0][0].plot([0.0, 1.123456], [0.0, 1.0])
    axes[0][0].set_title(label)
    return figure


def test_svg_keeps_texts_and_prefixes_every_id():
    text = to_svg(_figure("k = 0.08754"), "key", 'a "quoted" & <angled> text')
    assert "k = 0.08754" in text
    assert 'aria-label="a &quot;quoted&quot; &amp; &lt;angled&gt; text"' in text
    assert 'id="' in text
    assert all(part.startswith("key-") for part in text.split(' id="')[1:])
    assert all(part.startswith("key-") for part in text.split("url(#")[1:])


def test_svg_is_the_same_text_twice():
    assert to_svg(_figure("a"), "k", "d") == to_svg(_figure("a"), "k", "d")


def test_house_style_leaves_the_settings_of_the_caller_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with house_style():
        assert matplotlib.rcParams["svg.fonttype"] == "none"
    assert dict(matplotlib.rcParams) == before


def test_local_trend_reproduces_a_straight_line():
    x = np.random.default_rng(1).uniform(0.0, 10.0, 60)
    grid, trend = local_trend(x, 3.0 - 0.5 * x)
    np.testing.assert_allclose(trend, 3.0 - 0.5 * grid, atol=1e-10)


def test_local_trend_gives_means_when_there_are_few_distinct_times():
    grid, trend = local_trend(np.repeat([0.0, 1.0, 4.0], 5), np.arange(15.0))
    assert grid.tolist() == [0.0, 1.0, 4.0]
    assert trend.tolist() == [2.0, 7.0, 12.0]


@pytest.mark.parametrize("x", [np.array([1.0, 1.0, 1.0]), np.empty(0), np.full(4, np.nan)])
def test_local_trend_is_empty_when_there_is_nothing_to_smooth(x):
    assert len(local_trend(x, np.zeros(len(x)))[0]) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (np.nan, "–"), (np.inf, "∞"), (0.0, "0"), (31.91, "31.9"), (0.086149, "0.0861"),
        (1.6, "1.60"), (1234.0, "1234"), (3.2e-7, "3.20e-07"), (-0.5, "-0.500"),
    ],
)  # fmt: skip
def test_significant_writes_three_digits(value, text):
    assert significant(value) == text


def test_fixed_never_writes_a_negative_zero():
    assert fixed(-0.0004, 2) == "0.00"
    assert fixed(-0.006, 2) == "-0.01"


def test_missing_numbers_stay_missing_in_percent_and_interval():
    assert percent(None) == "–"
    assert interval(None, 1.0) == "–"
    assert interval(1.0, 2.0) == "1.00 to 2.00"
