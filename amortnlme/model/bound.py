"""A model bound to a dataset: likelihoods and gradients for many subjects and parameter vectors at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import ModelError
from amortnlme.model.error_model import ErrorTerms
from amortnlme.model.program import ProgramInputs, prepare_inputs
from amortnlme.solve.density_sums import add_density, add_slopes
from amortnlme.solve.threads import for_each_chunk

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.model.individual import IndividualModel

# Rows solved together: large enough to hide Python, small enough for the caches and for bounded memory.
CHUNK_ROWS = 8192
# Rows of a likelihood go by the number of observations, as many temporary arrays are of that size.
CHUNK_POINTS, MIN_ROWS = 32768, 64
# What an evaluation is to give besides what comes before.
LIKELIHOOD, GRADIENT, INFORMATION = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class BoundModel:
    """A model with the designs and observations of a dataset.

    Attributes
    ----------
    model : IndividualModel
    dataset : Dataset
    inputs : ProgramInputs
    y : ndarray, shape (S, m)   [observation units]
        1 where nothing was observed (masked out of every sum).
    observed : ndarray of bool, shape (S, m)
    censoring : ndarray of int, shape (S, m), or None when nothing is censored
    limit : ndarray, shape (S, m)
    """

    model: IndividualModel
    dataset: Dataset
    inputs: ProgramInputs
    y: np.ndarray
    observed: np.ndarray
    censoring: np.ndarray | None
    limit: np.ndarray

    @property
    def n_subjects(self) -> int:
        """Number of subjects S."""
        return self.y.shape[0]

    @property
    def n_columns(self) -> int:
        """Number of observation columns m (the longest subject)."""
        return self.y.shape[1]

    def predict(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions.

        Parameters
        ----------
        phi : ndarray, shape (S, M, d)

        Returns
        -------
        f : ndarray, shape (S, M, m)   [observation units]
            NaN in columns a subject does not have.
        status : ndarray of int, shape (S, M)
        """
        S, M, rows = self._shape(phi)
        f = np.empty((S * M, self.n_columns))
        status = np.empty(S * M, dtype=np.int64)
        for part, flat, subject in self._chunks(rows, M):
            f[part], _, status[part] = self.model.program.run(flat, self.inputs, subject, sensitivities=False)
        return f.reshape(S, M, -1), status.reshape(S, M)

    def predict_with_sensitivity(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predictions and their derivatives.

        Parameters
        ----------
        phi : ndarray, shape (S, M, d)

        Returns
        -------
        f : ndarray, shape (S, M, m)   [observation units]
        df_dphi : ndarray, shape (S, M, m, d)
        status : ndarray of int, shape (S, M)
        """
        S, M, rows = self._shape(phi)
        f = np.empty((S * M, self.n_columns))
        slopes = np.empty((S * M, self.n_columns, self.model.d))
        status = np.empty(S * M, dtype=np.int64)
        for part, flat, subject in self._chunks(rows, M):
            f[part], slopes[part], status[part] = self.model.program.run(
                flat, self.inputs, subject, sensitivities=True
            )
        return f.reshape(S, M, -1), slopes.reshape(S, M, self.n_columns, -1), status.reshape(S, M)

    def log_likelihood(self, phi: np.ndarray) -> np.ndarray:
        """Log likelihood of every subject's data, constants included.

        Parameters
        ----------
        phi : ndarray, shape (S, M, d)

        Returns
        -------
        ndarray, shape (S, M)   [nats]
            -inf where the model cannot be solved.
        """
        S, M, rows = self._shape(phi)
        return self._evaluate(rows, M, LIKELIHOOD)[0].reshape(S, M)

    def log_likelihood_and_gradient(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log likelihood and its exact gradient.

        Parameters
        ----------
        phi : ndarray, shape (S, M, d)

        Returns
        -------
        ll : ndarray, shape (S, M)   [nats]
        gradient : ndarray, shape (S, M, d)
            0 where ll is -inf.
        """
        S, M, rows = self._shape(phi)
        ll, gradient, _ = self._evaluate(rows, M, GRADIENT)
        return ll.reshape(S, M), gradient.reshape(S, M, -1)

    def gauss_newton(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log likelihood, gradient and expected information of one parameter vector per subject.

        Parameters
        ----------
        phi : ndarray, shape (S, d)

        Returns
        -------
        ll : ndarray, shape (S,)   [nats]
        gradient : ndarray, shape (S, d)
        information : ndarray, shape (S, d, d)
            Positive semi-definite; residual-error parameters included. Censored observations contribute the
            curvature of their log probability instead of its expectation. Zero where ll is -inf.

        I = sum_i (df df' / s^2 + 2 ds ds' / s^2), df and ds total derivatives with respect to phi
        """
        phi = np.asarray(phi, dtype=np.float64)
        if phi.ndim != 2:
            raise ModelError(
                "E_MODEL_PHI_SHAPE", f"phi has shape {phi.shape}; gauss_newton needs (n_subjects, d)."
            )
        ll, gradient, information = self.expansions(phi[:, None, :])
        return ll[:, 0], gradient[:, 0], information[:, 0]

    def expansions(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `gauss_newton`, at M parameter vectors per subject.

        Parameters
        ----------
        phi : ndarray, shape (S, M, d)

        Returns
        -------
        ll : ndarray, shape (S, M)   [nats]
        gradient : ndarray, shape (S, M, d)
        information : ndarray, shape (S, M, d, d)
        """
        S, M, rows = self._shape(phi)
        d = self.model.d
        ll, gradient, information = self._evaluate(rows, M, INFORMATION)
        return ll.reshape(S, M), gradient.reshape(S, M, d), information.reshape(S, M, d, d)

    def _shape(self, phi: np.ndarray) -> tuple[int, int, np.ndarray]:
        phi = np.asarray(phi, dtype=np.float64)
        if phi.ndim != 3 or phi.shape[0] != self.n_subjects or phi.shape[2] != self.model.d:
            raise ModelError(
                "E_MODEL_PHI_SHAPE",
                f"phi has shape {phi.shape}; a bound model needs (S, M, d) = ({self.n_subjects}, any, "
                f"{self.model.d}).",
            )
        return phi.shape[0], phi.shape[1], np.ascontiguousarray(phi).reshape(-1, phi.shape[2])

    @staticmethod
    def _chunks(rows: np.ndarray, M: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        for first in range(0, rows.shape[0], CHUNK_ROWS):
            part = slice(first, min(first + CHUNK_ROWS, rows.shape[0]))
            yield part, rows[part], np.arange(part.start, part.stop) // M

    def _evaluate(self, rows: np.ndarray, M: int, what: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log likelihood and, as far as wanted, gradient and information of every row.

        Rows of NaN cost nothing.
        """
        usable = np.flatnonzero(np.isfinite(rows).all(axis=1))
        if len(usable) == len(rows):
            return self._evaluate_rows(rows, usable // M, what)
        N, d = rows.shape
        ll = np.full(N, -np.inf)
        gradient = np.zeros((N if what >= GRADIENT else 0, d))
        information = np.zeros((N if what >= INFORMATION else 0, d, d))
        found = self._evaluate_rows(rows[usable], usable // M, what)
        for whole, part, level in zip((ll, gradient, information), found, range(3), strict=True):
            if what >= level:
                whole[usable] = part
        return ll, gradient, information

    def _evaluate_rows(
        self, rows: np.ndarray, subjects: np.ndarray, what: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        N, d = rows.shape[0], self.model.d
        ll = np.empty(N)
        gradient = np.empty((N if what >= GRADIENT else 0, d))
        information = np.empty((N if what >= INFORMATION else 0, d, d))

        def task(first: int, last: int) -> None:
            part = slice(first, last)
            flat, subject = rows[part], subjects[part]
            if self.censoring is None:
                ll[part], gradient[part], information[part] = self._sum(flat, subject, what)
            elif what == LIKELIHOOD:
                f, _, status = self.model.program.run(flat, self.inputs, subject, sensitivities=False)
                ll[part] = self._sum_log_density(flat, f, subject, status)
            else:
                ll[part], gradient[part], information[part] = self._differentiate(
                    flat, subject, information=what == INFORMATION
                )

        # Whole chunks on one thread: what a chunk needs stays in that core's cache.
        for_each_chunk(N, task, min(CHUNK_ROWS, max(MIN_ROWS, CHUNK_POINTS // max(self.n_columns, 1))))
        return ll, gradient, information

    def _sum(
        self, flat: np.ndarray, subject: np.ndarray, what: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compiled sums over uncensored observations; `_differentiate` holds the same in NumPy."""
        program, (N, d) = self.model.program, flat.shape
        psi = self.model.parameters.to_psi(flat)
        structural = np.array(program.structural, dtype=np.int64)
        f, df, status = program.solve(
            np.ascontiguousarray(psi[:, structural]), self.inputs, subject, sensitivities=what >= GRADIENT
        )
        ll = np.zeros(N)
        gradient = np.zeros((N if what >= GRADIENT else 0, d))
        information = np.zeros((N if what >= INFORMATION else 0, d, d))
        for o, (model, columns) in enumerate(zip(program.error_models, program.sigma_columns, strict=True)):
            several = len(program.error_models) > 1
            active = self.observed & (self.inputs.output == o) if several else self.observed
            sigma = psi[:, columns]
            if df is None:
                with np.errstate(all="ignore"):
                    sd = model.sd(f, sigma)
                add_density(subject, active, self.y, f, sd, model.is_log_scale, ll)
                continue
            with np.errstate(all="ignore"):
                residual = model.sd_with_derivatives(f, sigma)
            add_slopes(
                subject, active, self.y, f, df, residual, model.is_log_scale,
                (structural, np.array(columns, dtype=np.int64)), ll, gradient,
                information if what >= INFORMATION else None,
            )  # fmt: skip
        if df is None:
            ll[status != 0] = -np.inf
            return ll, gradient, information
        return _to_phi(ll, gradient, information, status, self.model.parameters.dpsi_dphi(flat))

    def _terms(
        self, flat: np.ndarray, f: np.ndarray, subject: np.ndarray
    ) -> Iterator[tuple[tuple[int, ...], np.ndarray, ErrorTerms]]:
        """Yield, per output, its sigma columns, the mask of its observations, and the error terms."""
        program = self.model.program
        psi = self.model.parameters.to_psi(flat)
        y, observed = self.y[subject], self.observed[subject]
        censoring = limit = None
        if self.censoring is not None:
            censoring, limit = self.censoring[subject], self.limit[subject]
        for o, (error_model, columns) in enumerate(
            zip(program.error_models, program.sigma_columns, strict=True)
        ):
            mask = (
                observed if len(program.error_models) == 1 else observed & (self.inputs.output[subject] == o)
            )
            # Where this output was not observed any value will do, as long as its density is finite.
            safe = f if mask.all() else np.where(mask, f, 1.0)
            yield columns, mask, error_model.terms(y, safe, psi[:, columns], censoring, limit)

    def _sum_log_density(
        self, flat: np.ndarray, f: np.ndarray, subject: np.ndarray, status: np.ndarray
    ) -> np.ndarray:
        ll = np.zeros(flat.shape[0])
        for _, mask, terms in self._terms(flat, f, subject):
            ll += np.where(mask, terms.ll, 0.0).sum(axis=1)
        ll[status != 0] = -np.inf
        return ll

    def _differentiate(
        self, flat: np.ndarray, subject: np.ndarray, *, information: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        f, df, status = self.model.program.run(flat, self.inputs, subject, sensitivities=True)
        assert df is not None
        if not self._is_full:
            df = np.where(self.observed[subject][:, :, None], df, 0.0)
        slope = self.model.parameters.dpsi_dphi(flat)
        N, d = flat.shape
        ll, gradient = np.zeros(N), np.zeros((N, d))
        curvature = np.zeros((N, d, d) if information else (0, d, d))
        for columns, mask, terms in self._terms(flat, f, subject):
            ll += np.where(mask, terms.ll, 0.0).sum(axis=1)
            gradient += np.einsum("nm,nmd->nd", np.where(mask, terms.dll_df, 0.0), df)
            for k, column in enumerate(columns):
                gradient[:, column] += (
                    np.where(mask, terms.dll_dsigma[..., k], 0.0).sum(axis=1) * slope[:, column]
                )
            if information:
                curvature += _information(terms, mask, df, columns, slope)
        failed = (status != 0) | ~np.isfinite(ll) | ~np.isfinite(gradient).all(axis=1)
        ll[failed] = -np.inf
        gradient[failed] = 0.0
        if information:
            curvature[failed] = 0.0
        return ll, gradient, curvature

    @property
    def _is_full(self) -> bool:
        return bool(self.observed.all())


def _to_phi(
    ll: np.ndarray, gradient: np.ndarray, information: np.ndarray, status: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chain derivatives by psi to phi, and clear those of rows that failed."""
    with np.errstate(all="ignore"):  # a failed row may hold anything
        gradient = gradient * slope
        failed = (status != 0) | ~np.isfinite(ll) | ~np.isfinite(gradient).all(axis=1)
        if information.shape[0]:
            lower = np.tril(information)
            lower += np.swapaxes(np.tril(information, -1), 1, 2)
            information = lower * (slope[:, :, None] * slope[:, None, :])
            information[failed] = 0.0
    ll[failed] = -np.inf
    gradient[failed] = 0.0
    return ll, gradient, information


def _information(
    terms: ErrorTerms, mask: np.ndarray, df: np.ndarray, columns: tuple[int, ...], slope: np.ndarray
) -> np.ndarray:
    """Sum over observations of the information about phi, shape (N, d, d)."""
    dh = terms.dh_df[:, :, None] * df
    ds = terms.ds_df[:, :, None] * df
    for k, column in enumerate(columns):
        ds[:, :, column] += terms.ds_dsigma[:, :, k] * slope[:, None, column]
    weights = [np.where(mask, w, 0.0) for w in (terms.mean_weight, terms.cross_weight, terms.sd_weight)]
    total = np.einsum("nm,nmi,nmj->nij", weights[0], dh, dh) + np.einsum(
        "nm,nmi,nmj->nij", weights[2], ds, ds
    )
    if weights[1].any():
        mixed = np.einsum("nm,nmi,nmj->nij", weights[1], dh, ds)
        total += mixed + mixed.transpose(0, 2, 1)
    return total


def bind_model(model: IndividualModel, dataset: Dataset) -> BoundModel:
    """Prepare a model for repeated evaluation on a dataset.

    Parameters
    ----------
    model : IndividualModel
    dataset : Dataset

    Returns
    -------
    BoundModel

    Raises
    ------
    ModelError
        E_MODEL_COVARIATE_MISSING, E_MODEL_COMPARTMENT, E_MODEL_OUTPUT when the data ask for what the model
        lacks.
    """
    inputs = prepare_inputs(model.program, dataset.design_batch())
    y, observed, censoring, limit = dataset.y_padded()
    observed = np.array(observed, dtype=bool)
    return BoundModel(
        model=model,
        dataset=dataset,
        inputs=inputs,
        # 1 has a finite density under every error model; it is masked out of every sum.
        y=np.where(observed, y, 1.0),
        observed=observed,
        censoring=np.where(observed, censoring, 0) if np.any(np.asarray(censoring)[observed]) else None,
        limit=np.array(limit, dtype=np.float64),
    )
