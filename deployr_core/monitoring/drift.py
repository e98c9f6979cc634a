"""How far what comes in, or goes out, differs from a reference period, and whether that is more than chance.

Each variable is held against the reference in cells (`deployr_core.monitoring.drift_cells`): the size of the change,
what chance alone would make of it with so many rows of so many patients, a q-value over all variables, and what the
change does to the score. A small ward has large changes by chance, and they are shown beside what chance makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats
from deployr_core.monitoring.corrected import benjamini_hochberg
from deployr_core.monitoring.drift_cells import Cells, SparseRows, cell_of_entry, counted, edges_of

FALSE_DISCOVERIES = 0.05
_FEWEST_EXPECTED = 5.0
_LEAST_EXPECTED = 2.0
_FEW_PATIENTS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """One variable, now and in the reference period.

    ``psi``: population stability index. ``psi_by_chance``: what it would be on average if nothing had changed; what is
    not clearly above that is no drift. ``js``: Jensen-Shannon divergence in bits, from 0 to 1. ``wasserstein``: how far
    values moved on average, in the variable's unit, to the width of a cell; NaN where values have no order.
    ``share_before`` and ``share_now``: of the rows that have it at all. ``score_shift``: what the mean score would do
    if this were all that changed, and scores went with it as in the reference; NaN where the reference has no scores.
    ``q``: the share of false findings among all variables with so small a q.
    """

    name: str
    psi: float
    psi_by_chance: float
    js: float
    wasserstein: float
    share_before: float
    share_now: float
    score_shift: float
    p: float
    q: float

    @property
    def is_found(self) -> bool:
        """Whether it is among findings of which 1 in 20 is expected to be false."""
        return self.q <= FALSE_DISCOVERIES


@dataclass(frozen=True, kw_only=True, eq=False)
class DriftReference:
    """A period that later ones are held against, fitted once; it holds counts, and nobody's rows.

    ``positions``: the mean value of each cell; of what is absent 0 where absent is a value of 0, else NaN.
    ``scores``: the mean score of each cell, NaN where there are no scores. Both have the shape of ``cells``.
    """

    names: tuple[str, ...]
    edges: Floats
    cells: Cells
    positions: Floats
    scores: Floats

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        rows: SparseRows,
        patients: NDArray[np.int64],
        *,
        scores: Floats | None = None,
        bins: int = 5,
        edges: Floats | None = None,
        absent_is_zero: bool = True,
    ) -> DriftReference:
        """Fit a reference period.

        Args:
            names: of the variables, in the order of their indices.
            rows: at least one.
            patients: which patient each row belongs to, shape (n_rows,).
            scores: of the same rows, or whatever else the drift is to be told in, such as alerts as 0 and 1.
            bins: of about equally many values, for each variable.
            edges: given in place of quantiles, shape (n_variables, n_edges).
            absent_is_zero: as in stored vectors; else what is absent has no value, and only what is there can move.

        Raises:
            ValueError: shapes that do not fit, no rows, or scores that are not finite.
        """
        if len(names) != rows.size:
            raise ValueError(f"expected the names of {rows.size} variables, got {len(names)}")
        edges = edges_of(rows, bins=bins) if edges is None else np.asarray(edges, dtype=np.float64)
        cells = counted(rows, edges, patients)
        shape = cells.counts.shape
        place = rows.indices * shape[1] + cell_of_entry(rows, edges)

        def means(of_entry: Floats, otherwise: Floats) -> Floats:
            summed = np.bincount(place, weights=of_entry, minlength=cells.counts.size).reshape(shape)
            return np.divide(summed, cells.counts, out=otherwise, where=cells.counts > 0)

        # An empty cell stands at its lower edge, the lowest at its upper one.
        lower = np.concatenate([edges[:, :1], edges[:, :1], edges], axis=1) if edges.size else np.zeros(shape)
        positions = means(rows.values, np.where(np.isfinite(lower), lower, 0.0)[:, : shape[1]])
        positions[:, 0] = 0.0 if absent_is_zero else np.nan
        score_means: Floats = np.full(shape, np.nan)
        if scores is not None:
            scores = np.asarray(scores, dtype=np.float64)
            if scores.shape != (rows.rows,) or not np.isfinite(scores).all():
                raise ValueError("expected a finite score for each row of the reference")
            score_means = means(np.repeat(scores, np.diff(rows.starts)), np.full(shape, scores.mean()))
            left = scores.sum() - (score_means * cells.counts)[:, 1:].sum(axis=1)
            np.divide(left, cells.counts[:, 0], out=score_means[:, 0], where=cells.counts[:, 0] > 0)
            score_means[:, 0] = np.where(cells.counts[:, 0] > 0, score_means[:, 0], scores.mean())
        return cls(names=tuple(names), edges=edges, cells=cells, positions=positions, scores=score_means)


@dataclass(frozen=True, kw_only=True, eq=False)
class Drifts:
    """Every variable's drift, as columns of shape (n_variables,); see `Drift`."""

    names: tuple[str, ...]
    psi: Floats
    psi_by_chance: Floats
    js: Floats
    wasserstein: Floats
    share_before: Floats
    share_now: Floats
    score_shift: Floats
    p: Floats
    q: Floats

    def ranked(self, most: int | None = None) -> tuple[Drift, ...]:
        """Give those that are found first, and of them those that move the score most; at most so many."""
        size = np.where(np.isnan(self.score_shift), self.psi - self.psi_by_chance, np.abs(self.score_shift))
        order = np.lexsort((-size, ~(self.q <= FALSE_DISCOVERIES)))[:most]
        columns = [getattr(self, name)[order].tolist() for name in _COLUMNS]
        return tuple(
            Drift(name=self.names[place], **dict(zip(_COLUMNS, numbers, strict=True)))
            for place, *numbers in zip(order.tolist(), *columns, strict=True)
        )

    @property
    def found(self) -> int:
        """Count the variables that drifted, of which 1 in 20 is expected to be a false finding."""
        return int((self.q <= FALSE_DISCOVERIES).sum())


_COLUMNS = (
    "psi",
    "psi_by_chance",
    "js",
    "wasserstein",
    "share_before",
    "share_now",
    "score_shift",
    "p",
    "q",
)


def drifts(reference: DriftReference, rows: SparseRows, patients: NDArray[np.int64]) -> Drifts:
    """Hold rows against a reference period.

    Chance is told from both periods' rows with patients as clusters; a patient who is in both makes it look larger than
    it is, which is the safe side. Variables that few rows have are tested by the binomial distribution.

    Args:
        reference: fitted on rows of the same variables.
        rows: of the period in question, at least one.
        patients: which patient each row belongs to, shape (n_rows,).

    Raises:
        ValueError: no rows, or other variables.

    Source: PSI and its distribution by chance: B. Yurdakul, J. Naranjo (2020), Journal of Risk Model Validation 14(4);
    Jensen-Shannon: J. Lin (1991), IEEE Trans. Inf. Theory 37:145-151; clustered rows: Rao and Scott (1984), Ann.
    Statist. 12:46-60, first-order correction.
    """
    return drifts_of_cells(reference, counted(rows, reference.edges, patients))


def drifts_of_cells(reference: DriftReference, now: Cells) -> Drifts:
    """Hold cells that were counted by the reference's edges against it; see `drifts`."""
    before = reference.cells
    p, q = before.shares, now.shares
    occupied = before.counts + now.counts > 0
    psi = _psi(before, now, occupied)
    # Where a cell holds few patients now, its own design effect is guesswork.
    spread = np.where(now.held < _FEW_PATIENTS, np.maximum(now.spread, before.spread), now.spread)
    pooled = (before.counts + now.counts) / (before.rows + now.rows)
    chance = (1.0 - pooled) * (before.spread / before.rows + spread / now.rows)
    shift = ((q - p) * reference.scores).sum(axis=1)
    p_values = _p_values(before, now, pooled)
    return Drifts(
        names=reference.names,
        psi=psi,
        psi_by_chance=np.where(occupied, chance, 0.0).sum(axis=1),
        js=_jensen_shannon(p, q),
        wasserstein=_moved(reference.positions, p, q),
        share_before=1.0 - p[:, 0],
        share_now=1.0 - q[:, 0],
        score_shift=shift,
        p=p_values,
        q=benjamini_hochberg(p_values),
    )


def _psi(before: Cells, now: Cells, occupied: NDArray[np.bool_]) -> Floats:
    """Give the index over occupied cells, half a row added to each, so that an empty one does not make it infinite."""
    used = occupied.sum(axis=1, keepdims=True)
    p = np.where(occupied, (before.counts + 0.5) / (before.rows + 0.5 * used), 1.0)
    q = np.where(occupied, (now.counts + 0.5) / (now.rows + 0.5 * used), 1.0)
    index: Floats = ((q - p) * np.log(q / p)).sum(axis=1)
    return index


def _jensen_shannon(p: Floats, q: Floats) -> Floats:
    middle = (p + q) / 2

    def bits(of: Floats) -> Floats:
        ratio = np.divide(of, middle, out=np.ones(of.shape), where=of > 0)
        summed: Floats = (of * np.log2(ratio)).sum(axis=1)
        return summed

    return np.maximum((bits(p) + bits(q)) / 2, 0.0)


def _moved(positions: Floats, p: Floats, q: Floats) -> Floats:
    """Give the Wasserstein distance of shares that stand at positions; those at NaN are left out of both."""
    placed = ~np.isnan(positions)
    moved: Floats = np.full(len(p), np.nan)
    below, above = (np.where(placed, each, 0.0) for each in (p, q))
    usable = (below.sum(axis=1) > 0) & (above.sum(axis=1) > 0)
    where = np.where(placed, positions, 0.0)[usable]
    gap = below[usable] / below[usable].sum(axis=1, keepdims=True)
    gap = gap - above[usable] / above[usable].sum(axis=1, keepdims=True)
    order = np.argsort(where, axis=1)
    ahead = np.cumsum(np.take_along_axis(gap, order, axis=1), axis=1)[:, :-1]
    moved[usable] = (np.abs(ahead) * np.diff(np.take_along_axis(where, order, axis=1), axis=1)).sum(axis=1)
    return moved


def _p_values(before: Cells, now: Cells, pooled: Floats) -> Floats:
    """Give the chance of so large a change if there is none; NaN for a variable with one cell only.

    The larger of both periods' design effects counts for both: that of some weeks of a small ward is a guess, and where
    nobody has a variable by luck it would say that rows are independent. How sure the variances are goes by patients.

    Source: F in place of chi-square for clustered rows: D. R. Thomas, J. N. K. Rao (1987), J. Am. Stat. Assoc.
    82:630-636; degrees of freedom of two variances: F. E. Satterthwaite (1946), Biometrics Bull. 2:110-114.
    """
    from scipy.special import betainc, fdtrc

    spread = np.maximum(before.spread, now.spread)
    expected = pooled * now.rows / spread
    used = expected >= _LEAST_EXPECTED
    freedom = used.sum(axis=1) - 1
    change = np.where(used, (now.shares - before.shares) ** 2 / np.where(used, pooled, 1.0), 0.0).sum(axis=1)
    of_each = [
        np.where(used, (1.0 - pooled) * effect / cells.rows, 0.0).sum(axis=1)
        for cells, effect in ((before, before.spread), (now, spread))
    ]
    by_chance = np.maximum(of_each[0] + of_each[1], 1e-300)
    doubt = sum(
        (part / by_chance) ** 2 / max(1, cells.patients - 1) for part, cells in zip(of_each, (before, now), strict=True)
    )
    p_values: Floats = np.full(freedom.shape, np.nan)
    # Nearly all rows are in one cell: which period do the few outside of it belong to?
    main = np.argmax(pooled, axis=1)[:, np.newaxis]

    def of_main(columns: Floats) -> Floats:
        return np.take_along_axis(columns, main, axis=1)[:, 0]

    outside = (1.0 - of_main(pooled)) * now.rows / of_main(spread)
    common = (freedom > 0) & (outside >= _FEWEST_EXPECTED)
    # The used cells' mean variance is what one degree of freedom is worth.
    p_values[common] = fdtrc(freedom[common], 1.0 / doubt[common], (change / by_chance)[common])
    rare = ~common & (outside > 0)
    effects = [of_main(before.spread)[rare], of_main(spread)[rare]]
    counts = [(cells.rows - of_main(cells.counts))[rare] for cells in (before, now)]
    then, here = (count / effect for count, effect in zip(counts, effects, strict=True))
    size_then, size_here = before.rows / effects[0], now.rows / effects[1]
    share = size_here / (size_then + size_here)
    at_least = np.where(here > 0, betainc(np.maximum(here, 1e-9), then + 1.0, share), 1.0)
    at_most = np.where(then > 0, betainc(np.maximum(then, 1e-9), here + 1.0, 1.0 - share), 1.0)
    p_values[rare] = np.minimum(1.0, 2.0 * np.minimum(at_least, at_most))
    return p_values
