"""Rows of many variables counted into cells: absent, and bins of the values that are there. What drift is told from.

A variable's cells are numbered from 0, which is absent; a value is in cell 1 more than the edges it reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats
from deployr_core.metrics import checked_patients

_Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseRows:
    """Rows without what is absent, as stored vectors are: those of row ``i`` are from ``starts[i]`` to before the next.

    ``starts``: shape (n_rows + 1,). ``indices``: the variable, from 0, at most once a row, and ``values``: finite; both
    shape (n_entries,).

    Raises:
        ValueError: shapes that do not fit, a variable that there is not, or a value that is not finite.
    """

    size: int
    starts: _Counts
    indices: _Counts
    values: Floats

    def __post_init__(self) -> None:
        if self.starts.ndim != 1 or self.starts.size == 0 or self.indices.shape != self.values.shape:
            raise ValueError("expected starts of shape (n_rows + 1,), and a value for each index")
        if self.starts[0] != 0 or self.starts[-1] != self.indices.size or (np.diff(self.starts) < 0).any():
            raise ValueError("expected starts that go from 0 to the number of entries")
        if self.indices.size and (self.indices.min() < 0 or self.indices.max() >= self.size):
            raise ValueError(f"expected indices from 0 to below {self.size}")
        if not np.isfinite(self.values).all():
            raise ValueError("expected finite values; what is absent is left out")

    @classmethod
    def of_vectors(cls, vectors: Sequence[tuple[Sequence[int], Sequence[float]]], *, size: int) -> SparseRows:
        """Take indices and values of each row, as `deployr_core.packet.StoredVector` has them."""
        return cls(
            size=size,
            starts=np.cumsum([0, *(len(indices) for indices, _ in vectors)], dtype=np.int64),
            indices=np.array([index for indices, _ in vectors for index in indices], dtype=np.int64),
            values=np.array([value for _, values in vectors for value in values], dtype=np.float64),
        )

    @classmethod
    def of_columns(cls, columns: Floats) -> SparseRows:
        """Take full rows, shape (n_rows, n_variables), in which NaN is absent."""
        columns = np.asarray(columns, dtype=np.float64)
        there = ~np.isnan(columns)
        return cls(
            size=columns.shape[1],
            starts=np.r_[0, np.cumsum(there.sum(axis=1))].astype(np.int64),
            indices=np.nonzero(there)[1].astype(np.int64),
            values=columns[there],
        )

    @property
    def rows(self) -> int:
        """Count the rows."""
        return self.starts.size - 1

    def taken(self, places: _Counts) -> SparseRows:
        """Give the rows at these places, in this order."""
        lengths = np.diff(self.starts)[places]
        starts = np.r_[0, np.cumsum(lengths)].astype(np.int64)
        entries = np.arange(starts[-1]) + np.repeat(self.starts[:-1][places] - starts[:-1], lengths)
        return SparseRows(size=self.size, starts=starts, indices=self.indices[entries], values=self.values[entries])


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """How many rows are in each cell of each variable; all arrays have shape (n_variables, n_cells).

    ``held``: of how many patients. ``spread``: the variance of a cell's share with patients as clusters, over what it
    would be if rows were independent: the design effect, never under 1.
    """

    rows: int
    patients: int
    counts: Floats
    held: Floats
    spread: Floats

    @property
    def shares(self) -> Floats:
        """Give the share of rows in each cell."""
        shares: Floats = self.counts / self.rows
        return shares


def edges_of(rows: SparseRows, *, bins: int) -> Floats:
    """Give quantiles of each variable's values as edges of so many bins, shape (n_variables, bins - 1).

    Equal edges leave cells empty, as where a feature is 1 or absent. A variable without values has edges at infinity,
    so that whatever comes later is in one cell.

    Raises:
        ValueError: under 1 bin.
    """
    if bins < 1:
        raise ValueError(f"expected at least 1 bin, got {bins}")
    # Numbers of 16 bits are sorted by their digits, in a fraction of the time.
    variables = rows.indices.astype(np.uint16) if rows.size <= 2**16 else rows.indices
    order = np.argsort(rows.values, kind="stable")
    order = order[np.argsort(variables[order], kind="stable")]
    ranked = np.r_[rows.values[order], np.inf]
    held = np.bincount(rows.indices, minlength=rows.size)
    first = np.r_[0, np.cumsum(held)[:-1]]
    # The inverted distribution: an edge is a value that there is.
    wanted = np.ceil(held[:, np.newaxis] * np.arange(1, bins) / bins).astype(np.int64) - 1
    places = np.where(held[:, np.newaxis] > 0, first[:, np.newaxis] + np.maximum(wanted, 0), ranked.size - 1)
    edges: Floats = ranked[places]
    return edges


def cell_of_entry(rows: SparseRows, edges: Floats) -> _Counts:
    """Give the cell of each value, from 1, shape (n_entries,)."""
    cells = np.ones(rows.indices.size, dtype=np.int64)
    for column in edges.T:
        cells += rows.values >= column[rows.indices]
    return cells


def counted(rows: SparseRows, edges: Floats, patients: NDArray[np.int64]) -> Cells:
    """Count rows into cells.

    Args:
        rows: at least one.
        edges: ascending, shape (n_variables, n_edges), see `edges_of`.
        patients: which patient each row belongs to, any integers, shape (n_rows,).

    Raises:
        ValueError: shapes that do not fit, or no rows.

    Source: design effect: L. Kish (1965), Survey Sampling; J. N. K. Rao, A. J. Scott (1992), Biometrics 48:577-585,
    doi:10.2307/2532311, for shares of clustered rows.
    """
    if edges.ndim != 2 or edges.shape[0] != rows.size or rows.rows == 0:
        raise ValueError("expected at least one row, and the edges of each variable")
    ids, patient_of_row = np.unique(checked_patients(patients, np.empty(rows.rows)), return_inverse=True)
    held_rows = np.bincount(patient_of_row).astype(np.float64)
    width = edges.shape[1] + 2
    cell = cell_of_entry(rows, edges)
    patient = np.repeat(patient_of_row, np.diff(rows.starts))
    keys = (patient * rows.size + rows.indices) * width + cell
    # Half as wide is sorted in half the time.
    keys = np.sort(keys.astype(np.int32) if ids.size * rows.size * width < 2**31 else keys)
    inside = _Sums.of(keys, held_rows, count=rows.size * width)
    # Without the cell, the same keys are in order still, and tell who has the variable at all.
    there = _Sums.of(keys // width, held_rows, count=rows.size)
    counts, held, squares, crossed = (
        each.reshape(rows.size, width) for each in (inside.counts, inside.held, inside.squares, inside.crossed)
    )
    counts[:, 0] = rows.rows - there.counts
    shares = counts / rows.rows
    spread = squares - 2 * shares * crossed + shares**2 * (held_rows**2).sum()
    # A patient's rows without it are off its mean by as much as those with it, the other way.
    present = there.counts / rows.rows
    spread[:, 0] = there.squares - 2 * present * there.crossed + present**2 * (held_rows**2).sum()
    held[:, 0] = ids.size - there.held
    independent = shares * (1.0 - shares) * rows.rows
    effect = np.ones(spread.shape)
    np.divide(spread * ids.size / max(1, ids.size - 1), independent, out=effect, where=independent > 1e-9)
    return Cells(rows=rows.rows, patients=ids.size, counts=counts, held=held, spread=np.maximum(effect, 1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sums:
    """Sums over patients by cell: rows in it, patients with any, squares of rows, and rows times all of their rows."""

    counts: Floats
    held: Floats
    squares: Floats
    crossed: Floats

    @classmethod
    def of(cls, keys: _Counts, held_rows: Floats, *, count: int) -> _Sums:
        """Sum runs of equal keys; a key is the patient times ``count``, and the cell."""
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: keys.size])
        times = np.diff(np.r_[starts, keys.size]).astype(np.float64)
        patient, cell = np.divmod(keys[starts], count)

        def summed(each: Floats | None) -> Floats:
            return np.bincount(cell, weights=each, minlength=count).astype(np.float64)

        return cls(
            counts=summed(times),
            held=summed(None),
            squares=summed(times**2),
            crossed=summed(times * held_rows[patient]),
        )
