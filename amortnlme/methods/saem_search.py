"""The SAEM iteration (Delyon, Lavielle & Moulines 1999; Kuhn & Lavielle 2005)."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from amortnlme.methods.ebe import better_modes, find_ebe
from amortnlme.methods.laplace_likelihood import ExpandableTarget
from amortnlme.methods.other_modes import other_modes
from amortnlme.methods.saem_kernels import (
    Chains,
    ConditionalLaw,
    Proposal,
    difference_kernel,
    mode_kernel,
    prior_kernel,
    walk_kernel,
)
from amortnlme.methods.saem_memory import LocalExpansions
from amortnlme.methods.saem_statistics import (
    Layout,
    Scores,
    Statistics,
    average,
    bounded_step,
    complete_scores,
    floored,
    maximize_random,
    not_below,
    observe,
    stretch,
)
from amortnlme.population.bound_population import BoundPopulation

#: Variances fall by at most this factor per iteration while the search anneals.
ANNEALING = 0.95
#: No variance, in any direction, falls below this share of its last value in one iteration.
LOWEST_SHARE = 0.1
#: No SD, in any direction, falls below this share of its first value: too small to be seen by the data, and
#: large enough for the arithmetic. Below it individuals could not be told from their typical values.
SMALLEST_SHARE = 1e-3
#: Furthest move of a pooled parameter in one iteration, on the phi scale.
LONGEST_STEP = 0.5
#: Starting SDs are stretched, so that the chains can travel, unless it is known where to.
STRETCH = 2.0
#: Iterations between two searches for the modes, while exploring.
PLACE_EVERY = 50
#: Expansions the mode proposal is made of: the first at two modes, the others along the chains.
MEMORY, AT_MODES = 10, 2
#: Where fewer than LOW_RATE of the mode proposals are accepted, so many steps along differences follow, of
#: states that are kept in an archive of so many per subject.
LOW_RATE, N_DIFFERENCES, ARCHIVE = 0.15, 10, 128
#: Searches per subject for a second mode.
N_SEARCHES = 2
#: Longest step from a point to the center of its proposal, in population SDs.
REACH = 3.0
#: Chains times subjects, at least: with fewer the iterates fluctuate so much that small variances get lost.
MIN_CHAINS = 200
#: Gains of the averaging phase fall as (k - k1) ** -DECAY; iterates are averaged on top (Polyak & Juditsky).
DECAY = 0.5
#: The exploration has settled when two successive windows agree to this share of their SD.
WINDOW, AGREEMENT = 50, 0.6


@dataclass(frozen=True, slots=True, eq=False)
class SaemPath:
    """What a run of SAEM leaves.

    Attributes
    ----------
    x : ndarray, shape (n_x,)
        Average of the iterates over the second half of the averaging phase.
    iterates : ndarray, shape (n_iterations, n_x)
    n_exploration : int
    settled : bool
        Whether the exploration became stationary within its limit.
    mc_se : ndarray, shape (n_x,)
        Monte-Carlo SE of x, from batches of the averaged iterates.
    place : ndarray, shape (n_subjects, d)
        Where each subject's chains ended, the best of them, on the phi scale.
    """

    x: np.ndarray
    iterates: np.ndarray
    n_exploration: int
    settled: bool
    mc_se: np.ndarray
    place: np.ndarray


@dataclass(slots=True)
class _State:
    """Everything that changes from iteration to iteration."""

    fixed: np.ndarray  # typical values and coefficients, (d + n_covariate_effects,)
    omega: np.ndarray  # (r, r)
    chains: Chains
    memory: LocalExpansions
    statistics: Statistics | None
    least_omega: np.ndarray  # (r, r)
    archive: np.ndarray  # states the chains passed, on the phi scale, (n, ARCHIVE, r)
    n_archived: int
    log_scale: np.ndarray  # of steps along differences, (n,)
    mode_rate: float  # recent acceptance of the mode proposals


class _Saem:
    """One run; the numbers of iterations are those of `run_saem`."""

    def __init__(
        self, target: ExpandableTarget, population: BoundPopulation, rng: np.random.Generator, n_chains: int
    ) -> None:
        self.target = target
        self.population = population
        self.rng = rng
        self.layout = Layout.of(population)
        self.n_chains = n_chains
        space = population.parameters
        is_error = np.array([space.parameters[i].role == "error" for i in range(space.d)])
        self.pooled_is_error = is_error[population.owner[self.layout.pooled_columns]]
        places = population.layout
        # Row and column of each place of L, and of one place of each entry, among the random effects.
        self.places = (places.row_effect, places.chol_column)
        self.first = (places.row_effect[places.first_place], places.chol_column[places.first_place])

    def begin(self, start: np.ndarray, place: np.ndarray | None = None) -> _State:
        population = self.population
        fixed = start[: population.chol_slice.start].copy()
        stretch_by = STRETCH if place is None else 1.0
        omega = np.diag((stretch_by * np.abs(start[population.chol_diagonal])) ** 2 + 1e-6)
        shape = (population.n_subjects, self.n_chains, population.r)
        point = None if place is None else place[:, population.random_index]
        memory = LocalExpansions.repeated(*self._places(fixed, omega, point)[0], MEMORY)
        proposal = self._proposal(memory, fixed, omega)
        # One draw per chain, and those that fill the archive.
        shape = (shape[0], self.n_chains + ARCHIVE, shape[2])
        white = self.rng.standard_normal(shape)
        eta = proposal.mode[:, :1] + white @ np.swapaxes(proposal.root[:, 0], 1, 2)
        law = self._law(fixed, omega)
        archive = law.phi(eta[:, self.n_chains :])[:, :, population.random_index]
        eta = eta[:, : self.n_chains]
        chains = Chains(eta, law.log_likelihood(eta), np.full(shape[0], np.log(2.4 / np.sqrt(shape[2]))))
        scale = np.full(shape[0], np.log(2.4 / np.sqrt(2.0 * shape[2])))
        least = SMALLEST_SHARE**2 * omega
        return _State(fixed, omega, chains, memory, None, least, archive, 0, scale, 1.0)

    def iterate(self, state: _State, number: int, gain: float, *, annealing: bool, exploring: bool) -> None:
        population, layout = self.population, self.layout
        law = self._law(state.fixed, state.omega)
        if exploring and number % PLACE_EVERY == 0:
            for slot, place in enumerate(self._places(state.fixed, state.omega, state.memory.point[:, 0])):
                state.memory.store(slot, *place)
        proposal = self._proposal(state.memory, state.fixed, state.omega)
        chains = Chains(state.chains.eta, law.log_likelihood(state.chains.eta), state.chains.log_step)
        if exploring or number % 5 == 0:
            chains = prior_kernel(law, chains, self.rng)
        chains = self._move(law, chains, proposal, state)
        phi = law.phi(chains.eta)
        u = np.linalg.solve(law.omega_root, chains.eta.reshape(-1, population.r).T).T.reshape(
            chains.eta.shape
        )
        scores = complete_scores(self.target, phi, u, layout)
        new = observe(phi, layout, scores)
        state.statistics = new if state.statistics is None else average(state.statistics, new, gain)
        state.chains = chains
        self._remember(state.memory, number, phi, scores)
        self._archive(state, phi)
        self._maximize(state, scores, phi, gain, annealing=annealing)

    def _move(
        self, law: ConditionalLaw, chains: Chains, proposal: Proposal, state: _State
    ) -> Chains:
        """Kernels that need to know where the individuals are."""
        before = chains.eta
        chains = mode_kernel(law, chains, proposal, self.rng)
        rate = float((chains.eta != before).any(axis=2).mean())
        state.mode_rate += 0.1 * (rate - state.mode_rate)
        chains = walk_kernel(law, chains, proposal, self.rng)
        if state.mode_rate > LOW_RATE:
            return mode_kernel(law, chains, proposal, self.rng)
        for _ in range(N_DIFFERENCES):
            chains, state.log_scale = difference_kernel(
                law, chains, state.archive, state.log_scale, self.rng
            )
        return chains

    def _archive(self, state: _State, phi: np.ndarray) -> None:
        """Overwrite the oldest states."""
        slots = (state.n_archived + np.arange(phi.shape[1])) % ARCHIVE
        state.archive[:, slots] = phi[:, :, self.population.random_index]
        state.n_archived += phi.shape[1]

    def _maximize(
        self, state: _State, scores: Scores, phi: np.ndarray, gain: float, *, annealing: bool
    ) -> None:
        population, layout, statistics = self.population, self.layout, state.statistics
        assert statistics is not None
        fixed, index = state.fixed.copy(), population.random_index
        fixed[layout.random_columns], omega = maximize_random(statistics, layout, state.omega)
        omega = floored(omega, state.omega, ANNEALING if annealing else LOWEST_SHARE)
        omega = not_below(omega, state.least_omega)
        step = bounded_step(scores.pooled, statistics.information, gain, LONGEST_STEP)
        if annealing:
            step = np.where(self.pooled_is_error, np.maximum(step, 0.5 * np.log(ANNEALING)), step)
        fixed[layout.pooled_columns] += step
        # The factor moves with u held fixed, and takes individuals and averages along.
        mu = layout.random_mean(fixed[layout.random_columns])
        before = self._entries(omega)
        size = np.sqrt(np.diagonal(omega))[self.first[0]]
        move = bounded_step(scores.factor, statistics.factor_information, gain, 0.3 * size)
        root = self._root(before + move)
        transform = np.linalg.solve(np.linalg.cholesky(omega).T, root.T).T
        state.statistics = stretch(statistics, mu, transform)
        eta = (phi[:, :, index] - mu[:, None]) @ transform.T
        state.chains = Chains(eta, state.chains.log_likelihood, state.chains.log_step)
        omega = floored(root @ root.T, omega, LOWEST_SHARE)
        state.fixed, state.omega = fixed, not_below(omega, state.least_omega)

    def best_place(self, state: _State) -> np.ndarray:
        """Each subject's chain with the largest joint density, on the phi scale."""
        law = self._law(state.fixed, state.omega)
        joint = law.log_likelihood(state.chains.eta) + law.log_prior(state.chains.eta)
        return law.phi(state.chains.eta)[np.arange(len(joint)), joint.argmax(axis=1)]

    def pack(self, state: _State) -> np.ndarray:
        return self._pack(state.fixed, state.omega)

    def _pack(self, fixed: np.ndarray, omega: np.ndarray) -> np.ndarray:
        return np.concatenate([fixed, self._entries(omega)])

    def _entries(self, omega: np.ndarray) -> np.ndarray:
        """Free entries of the lower triangular factor of omega."""
        return np.linalg.cholesky(omega)[self.first]

    def _root(self, entries: np.ndarray) -> np.ndarray:
        root = np.zeros((self.population.r, self.population.r))
        root[self.places] = entries[self.population.layout.chol_entry]
        return root

    def _law(self, fixed: np.ndarray, omega: np.ndarray) -> ConditionalLaw:
        population = self.population
        mu = population.unpack(self._pack(fixed, omega))[0]
        root = np.linalg.cholesky(omega)
        return ConditionalLaw(self.target, mu, population.random_index, root, np.linalg.inv(root))

    def _remember(self, memory: LocalExpansions, number: int, phi: np.ndarray, scores: Scores) -> None:
        """Keep the expansion at one chain's place."""
        index, chain = self.population.random_index, number % self.n_chains
        memory.store(
            AT_MODES + number % (MEMORY - AT_MODES),
            phi[:, chain, index],
            scores.gradient[:, chain, index],
            scores.information[:, chain, index[:, None], index],
        )

    def _proposal(self, memory: LocalExpansions, fixed: np.ndarray, omega: np.ndarray) -> Proposal:
        mu = self.population.unpack(self._pack(fixed, omega))[0]
        return memory.proposal(mu[:, self.population.random_index], omega, REACH)

    def _places(
        self, fixed: np.ndarray, omega: np.ndarray, point: np.ndarray | None
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Best and second mode of every subject, with gradient and information there.

        The best one is the better of those reached from the typical subject and from the last mode.
        """
        mu, factor = self.population.unpack(self._pack(fixed, omega))
        index = self.population.random_index
        found = find_ebe(self.target, mu, factor, max_iterations=15, tolerance=1e-2)
        if point is not None:
            start = np.linalg.solve(np.linalg.cholesky(omega), (point - mu[:, index]).T).T
            again = find_ebe(self.target, mu, factor, start=start, max_iterations=15, tolerance=1e-2)
            found = better_modes(found, again)
        second, _ = other_modes(self.target, mu, factor, found, N_SEARCHES, self.rng)
        places = []
        for modes in (found, second):
            _, gradient, information = self.target.gauss_newton(modes.phi)
            places.append((modes.phi[:, index], gradient[:, index], information[:, index[:, None], index]))
        return places


def run_saem(
    target: ExpandableTarget,
    population: BoundPopulation,
    start: np.ndarray,
    rng: np.random.Generator,
    n_exploration: int,
    max_exploration: int,
    n_averaging: int,
    n_chains: int | None,
    place: np.ndarray | None = None,
) -> SaemPath:
    """Run SAEM from one starting point.

    Parameters
    ----------
    target : ExpandableTarget
    population : BoundPopulation
    start : ndarray, shape (n_x,)
    rng : numpy.random.Generator
    n_exploration, max_exploration : int
        Iterations with full gain: at least, and at most while they drift.
    n_averaging : int
        Iterations with falling gain.
    n_chains : int or None
        Chains per subject; None: so that there are at least 200 in all.
    place : ndarray or None, shape (n_subjects, d)
        Where the individuals are believed to be, on the phi scale.

    Returns
    -------
    SaemPath
    """
    run = _Saem(target, population, rng, n_chains or max(1, -(-MIN_CHAINS // population.n_subjects)))
    state = run.begin(start, place)
    iterates: list[np.ndarray] = []
    settled = False
    # Only somebody who watches a terminal is shown the progress.
    bar = tqdm(total=n_exploration + n_averaging, desc="saem", unit="it", disable=not sys.stderr.isatty())
    while len(iterates) < max_exploration and not (settled and len(iterates) >= n_exploration):
        annealing = len(iterates) < n_exploration // 2
        run.iterate(state, len(iterates), 1.0, annealing=annealing, exploring=True)
        iterates.append(run.pack(state))
        bar.update()
        settled = len(iterates) >= n_exploration // 2 + 2 * WINDOW and _agree(np.array(iterates))
    n_done = len(iterates)
    bar.total = n_done + n_averaging
    for k in range(1, n_averaging + 1):
        run.iterate(state, n_done + k, float(k) ** -DECAY, annealing=False, exploring=False)
        iterates.append(run.pack(state))
        bar.update()
    bar.close()
    path = np.array(iterates)
    kept = path[n_done + n_averaging // 2 :]
    x, place = population.fold_signs(kept.mean(axis=0)), run.best_place(state)
    return SaemPath(x, path, n_done, settled, _batch_se(kept), place)


def _agree(iterates: np.ndarray) -> bool:
    late, early = iterates[-WINDOW:], iterates[-2 * WINDOW : -WINDOW]
    sd = np.sqrt(0.5 * (late.var(axis=0) + early.var(axis=0))) + 1e-12
    return bool((np.abs(late.mean(axis=0) - early.mean(axis=0)) < AGREEMENT * sd).all())


def _batch_se(kept: np.ndarray, n_batches: int = 8) -> np.ndarray:
    means = np.array([part.mean(axis=0) for part in np.array_split(kept, n_batches)])
    return means.std(axis=0, ddof=1) / np.sqrt(n_batches)
