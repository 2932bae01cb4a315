"""Truths about gene expression as a jump process: exact stationary moments and laws."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, poisson

from amortnlme.core.rng import stream
from amortnlme.data.design import Design
from amortnlme.model.error_model import LogNormal
from amortnlme.model.individual import Output
from amortnlme.model.registry import load_model

N = 4000
FALSE_ALARM = 1e-4


@pytest.fixture(scope="module")
def counts():
    """mRNA and protein counts of N typical cells after 60 h, 18 lifetimes of the protein."""
    model = load_model("transcription_translation_jump")
    mrna = Output("mrna", "1", lambda t, y, p: y.mrna, LogNormal("s"))
    both = replace(model, outputs=(*model.outputs, mrna))
    phi = np.tile(model.parameters.typical_phi, (N, 1))
    phi[:, -1] = -40.0  # no residual error
    simulated = both.simulate(phi, Design.from_doses([], [60.0, 60.0], [2, 1]), None, stream(1))
    assert (simulated.status == 0).all()
    return simulated.y[:, 0], simulated.y[:, 1] - 10.0


def test_mrna_is_poisson_in_its_stationary_state(counts):
    """Chi-square test of the counts 0..9 and more against Poisson(km / dm = 4)."""
    law = poisson(4.0)
    cells = np.minimum(counts[0], 10)
    observed = np.bincount(cells.astype(int), minlength=11)
    expected = N * np.append(law.pmf(np.arange(10)), law.sf(9))
    assert ((observed - expected) ** 2 / expected).sum() < chi2(10).isf(FALSE_ALARM)


def test_protein_has_the_moments_of_a_bursting_gene(counts):
    """Mean km kp / (dm dp), variance / mean 1 + kp / (dm + dp) (Thattai & van Oudenaarden 2001).

    4 SE; the SE of the variance uses the kurtosis of the sample.
    """
    protein = counts[1]
    np.testing.assert_allclose(protein, np.round(protein), atol=1e-9)
    mean, fano = 6.0 * 10.0 / (1.5 * 0.3), 1 + 10.0 / (1.5 + 0.3)
    assert abs(protein.mean() - mean) < 4 * np.sqrt(fano * mean / N)
    kurtosis = (((protein - protein.mean()) / protein.std()) ** 4).mean()
    assert abs(protein.var() / (fano * mean) - 1) < 4 * np.sqrt((kurtosis - 1) / N)


def test_cells_start_empty_and_fill_up():
    model = load_model("transcription_translation_jump")
    phi = np.tile(model.parameters.typical_phi, (200, 1))
    phi[:, -1] = -40.0
    y = model.simulate(phi, Design.from_doses([], [0.0, 2.0, 20.0]), None, stream(2)).y
    np.testing.assert_allclose(y[:, 0], 10.0, rtol=1e-12)
    assert 10.0 < y[:, 1].mean() < y[:, 2].mean()
