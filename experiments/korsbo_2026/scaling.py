"""Study 3: many endpoints. Linear-Gaussian endpoints y = eta + e whose marginal likelihoods are exact.

`scaling.py [--endpoints 4 8 12 20] [--train 200] [--replicates 5]`. The families work on banks of nodes as
they would on any model (posterior draws under the EM Gaussian of the round before); what they find is scored
by the exact likelihood of the observations, so that no Monte-Carlo error of a test set blurs it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from amortnlme.core.files import write_json_atomic
from amortnlme.core.rng import stream
from amortnlme.methods.gaussian_join import GaussianRule, fit_gaussian
from amortnlme.methods.join_families import Workshop
from amortnlme.methods.likelihood_bank import LikelihoodBank
from amortnlme.population.laws import GaussianLaw

HERE = Path(__file__).parent
FAMILIES = ("one-pass", "gaussian", "shrunken", "sparse", "split")
# Share of the variance of a standardized effect that data leave: first and second effect of an endpoint.
PRIMARY, ODD, EVEN = (0.04, 0.20), (0.04, 0.12), (0.05, 0.14)
N_NODES, N_TEST = 128, 500


def design(n_endpoints: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlations (d, d) and error variances (d,) in units of the effects; endpoint 0 is the primary."""
    d = 2 * n_endpoints
    R, left = np.eye(d), np.empty(d)
    left[:2] = PRIMARY
    panels, k = [], 1
    while k < n_endpoints:
        size = min(2 if n_endpoints == 3 else 4, n_endpoints - k)
        panels.append(range(k, k + size))
        k += size
    for e in range(1, n_endpoints):
        left[2 * e : 2 * e + 2] = ODD if e % 2 else EVEN
    for p, panel in enumerate(panels):
        for a in panel:
            for b in panel:
                if a != b:
                    R[2 * a, 2 * b] = R[2 * a + 1, 2 * b + 1] = 0.8
            if p < 2:
                for q in (0, 1) if n_endpoints <= 4 else (p,):
                    R[q, 2 * a + q] = R[2 * a + q, q] = 0.27
    return R, left / (1 - left)


def loss(omega: np.ndarray, R: np.ndarray, error: np.ndarray, first: int = 0) -> float:
    """N_TEST times the divergence of the fitted law of the observations from the true one."""
    a = (R + np.diag(error))[first:, first:]
    b = (omega + np.diag(error))[first:, first:]
    ratio = np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1]
    return float(0.5 * N_TEST * (np.trace(np.linalg.solve(b, a)) - len(a) + ratio))


def bank(y: np.ndarray, error: np.ndarray, around: np.ndarray, rng: np.random.Generator) -> LikelihoodBank:
    """Exact posterior draws under N(0, around)."""
    n, d = y.shape
    total = around + np.diag(error)
    gain = np.linalg.solve(total, around).T
    mean, covariance = y @ gain.T, around - gain @ around
    root = np.linalg.cholesky(0.5 * (covariance + covariance.T) + 1e-12 * np.eye(d))
    eta = mean[:, None] + rng.standard_normal((n, N_NODES, d)) @ root.T
    law = GaussianLaw(names(d), np.zeros(d), around)
    evidence = GaussianLaw(names(d), np.zeros(d), total).log_density(y)
    weight = evidence[:, None] - law.log_density(eta)
    ids = tuple(str(i) for i in range(n))
    return LikelihoodBank(ids, names(d), eta, weight, (), np.zeros((n, N_NODES, 0)), 4)


def names(d: int) -> tuple[str, ...]:
    """Names of the effects."""
    return tuple(f"e{k // 2}.{'ab'[k % 2]}" for k in range(d))


def replicate(n_endpoints: int, n: int, number: int) -> dict[str, object]:
    """One data set."""
    R, error = design(n_endpoints)
    d, rng = len(R), stream(303, n_endpoints, n, number)
    y = rng.standard_normal((n, d)) @ np.linalg.cholesky(R + np.diag(error)).T
    independent = GaussianLaw(names(d), np.zeros(d), np.eye(d))
    clock = time.process_time()
    # Shrunken proposals for the first rounds: the plain EM Gaussian overfits, but covers what it must.
    around, rule = independent, GaussianRule(weight=20.0)
    for _ in range(3):
        around, _ = fit_gaussian(bank(y, error, around.covariance, rng), independent, rule, around)
    nodes = bank(y, error, around.covariance, rng)
    seconds = {"banks": time.process_time() - clock}
    shop = Workshop(nodes, None, independent, names(d)[:2], number)
    full, biomarkers = loss(np.eye(d), R, error), loss(np.eye(d), R, error, 2)
    rows = {}
    for family in FAMILIES:
        clock = time.process_time()
        law = shop.fit(family)[0]
        seconds[family] = time.process_time() - clock
        omega = law.moments()[1]
        total, part = full - loss(omega, R, error), biomarkers - loss(omega, R, error, 2)
        rows[family] = {
            "total": 100 * total / full,
            "biomarkers": 100 * part / biomarkers,
            "primary": 100 * (total - part) / (full - biomarkers),
        }
    return {
        "endpoints": n_endpoints, "effects": d, "n_train": n, "replicate": number, "oracle": full,
        "oracle_primary": full - biomarkers, "families": rows, "cpu": seconds,
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[4, 8, 12, 20])
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--replicates", type=int, default=5)
    options = parser.parse_args()
    (HERE / "results").mkdir(exist_ok=True)
    for n_endpoints in options.endpoints:
        for number in range(options.replicates):
            path = HERE / "results" / f"scaling_{n_endpoints}_{options.train}_{number}.json"
            if path.exists():
                continue
            record = replicate(n_endpoints, options.train, number)
            write_json_atomic(path, record)
            families = record["families"]
            assert isinstance(families, dict)
            shares = ", ".join(f"{f} {r['total']:.1f}/{r['primary']:.0f}" for f, r in families.items())
            print(f"{path.name}: {shares}; {record['cpu']}", flush=True)


if __name__ == "__main__":
    main()
