"""One kind of things in a reference period: how cells are merged until they tell of nobody, and rows held to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats
from deployr_core.groups import FEWEST_PATIENTS
from deployr_core.monitoring.drift import DriftReference
from deployr_core.monitoring.drift_cells import Cells, SparseRows, counted, edges_of
from deployr_core.monitoring.served_rows import DriftKind, KindRows

OTHER = "other"
"""In place of names that are rare, and of those that were not there in the reference period."""
NO_CELL = -1
_BINS: Mapping[DriftKind, int] = {DriftKind.SCORES: 10, DriftKind.LABELS: 10}
_DIGITS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class KindReference:
    """One kind's variables. ``levels``: by variable, the names of its cells from 1 on; empty of numbers.

    ``few``: by variable, the cell that is not empty and that fewer than ten patients are in, -1 for none. Its rows are
    counted with the largest cell.
    """

    counts: DriftReference
    levels: tuple[tuple[str, ...], ...]
    few: NDArray[np.int64]


def fitted_kind(rows: KindRows, kind: DriftKind) -> KindReference | None:
    """Count a kind's rows into cells; None where there are none, or no variables."""
    if not rows.names or rows.rows.rows == 0:
        return None
    levels: tuple[tuple[str, ...], ...] = ()
    table = rows.rows
    if rows.levels:
        levels = tuple(_kept_levels(table, rows, place) for place in range(len(rows.names)))
        table = _coded(rows, levels)
        edges = _level_edges(levels)
    else:
        edges = _merged_edges(table, rows.patients, bins=_BINS.get(kind, 5))
    fitted = DriftReference.of(
        rows.names, table, rows.patients, scores=rows.scores, edges=edges, absent_is_zero=_absent_is_zero(kind)
    )
    counts, few = _hidden(fitted, _lacking(table, rows.patients))
    return KindReference(counts=counts, levels=levels, few=few)


def _absent_is_zero(kind: DriftKind) -> bool:
    return kind in {DriftKind.FEATURES, DriftKind.COVERAGE}


def _merged_edges(rows: SparseRows, patients: NDArray[np.int64], *, bins: int) -> Floats:
    """Give edges such that no bin that is not empty holds fewer than ten patients, unless it is a variable's only one.

    Edges that are not used are at infinity, behind the others.
    """
    edges = rounded(edges_of(rows, bins=bins))
    edges[:, 1:][edges[:, 1:] == edges[:, :-1]] = np.inf
    edges = np.sort(edges, axis=1)
    for _ in range(bins):
        held = counted(rows, edges, patients).held[:, 1:]
        used = np.isfinite(edges).sum(axis=1)
        small = (held > 0) & (held < FEWEST_PATIENTS) & (used > 0)[:, np.newaxis]
        for variable in np.flatnonzero(small.any(axis=1)).tolist():
            bin_ = int(np.argmax(small[variable]))
            below, above = bin_ - 1, bin_
            is_last = above >= used[variable]
            joins_below = is_last or (bin_ > 0 and held[variable, bin_ - 1] <= held[variable, bin_ + 1])
            edges[variable, below if joins_below else above] = np.inf
        if not small.any():
            break
        edges = np.sort(edges, axis=1)
    return edges


def _kept_levels(table: SparseRows, rows: KindRows, place: int) -> tuple[str, ...]:
    """Give the names that at least ten patients have; the others are `OTHER`."""
    of_row = np.repeat(np.arange(table.rows), np.diff(table.starts))
    own = table.indices == place
    pairs = np.unique(np.column_stack([table.values[own].astype(np.int64), rows.patients[of_row[own]]]), axis=0)
    held = np.bincount(pairs[:, 0], minlength=len(rows.levels[place]))
    kept = [name for name, count in zip(rows.levels[place], held, strict=True) if count >= FEWEST_PATIENTS]
    return (*(name for name in kept if name != OTHER), OTHER)


def _coded(rows: KindRows, levels: tuple[tuple[str, ...], ...]) -> SparseRows:
    """Give names as the places of their cells."""
    codes = rows.rows.values.copy()
    for place, known in enumerate(levels):
        own = rows.rows.indices == place
        code_of = np.array([known.index(name) if name in known else len(known) - 1 for name in rows.levels[place]])
        codes[own] = code_of[codes[own].astype(np.int64)] if code_of.size else 0.0
    return replace(rows.rows, values=codes.astype(np.float64))


def _level_edges(levels: tuple[tuple[str, ...], ...]) -> Floats:
    widest = max(len(each) for each in levels)
    edges = np.full((len(levels), widest - 1), np.inf)
    for place, known in enumerate(levels):
        edges[place, : len(known) - 1] = np.arange(1, len(known)) - 0.5
    return edges


def _lacking(rows: SparseRows, patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the patients who have a row without the variable, shape (n_variables,)."""
    ids, own = np.unique(patients, return_inverse=True)
    pairs, times = np.unique(np.repeat(own, np.diff(rows.starts)) * rows.size + rows.indices, return_counts=True)
    patient, variable = np.divmod(pairs, rows.size)
    complete = times == np.bincount(own)[patient]
    return np.asarray(ids.size - np.bincount(variable[complete], minlength=rows.size), dtype=np.int64)


def _hidden(fitted: DriftReference, lacking: NDArray[np.int64]) -> tuple[DriftReference, NDArray[np.int64]]:
    """Count the rows of a cell that one to nine patients are in with the largest cell, and say which it was."""
    cells = fitted.cells
    held = np.column_stack([lacking, cells.held[:, 1:]])
    small = (held > 0) & (held < FEWEST_PATIENTS)
    few = np.where(small.any(axis=1), np.argmax(small, axis=1), NO_CELL)
    counts, spread = cells.counts.copy(), cells.spread.copy()
    positions, scores = fitted.positions.copy(), fitted.scores.copy()
    for variable, cell in enumerate(few.tolist()):
        if cell == NO_CELL:
            continue
        hidden = np.flatnonzero(small[variable])
        moved = counts[variable, hidden].sum()
        counts[variable, hidden] = 0.0
        main = int(np.argmax(counts[variable]))
        counts[variable, main] += moved
        spread[variable, hidden] = spread[variable, main]
        scores[variable, hidden] = scores[variable, main]
        positions[variable, hidden] = positions[variable, main] if cell else positions[variable, 0]
    kept = replace(cells, counts=counts, spread=rounded(spread), held=np.zeros(cells.held.shape))
    return replace(fitted, cells=kept, positions=rounded(positions), scores=rounded(scores)), few


def rounded(numbers: Floats) -> Floats:
    """Keep six digits: more would tell nothing, and make the file longer."""
    there = np.isfinite(numbers) & (numbers != 0.0)
    size = np.floor(np.log10(np.abs(numbers), out=np.zeros(numbers.shape), where=there))
    scale = 10.0 ** (_DIGITS - 1 - size)
    kept: Floats = np.where(there, np.round(np.where(there, numbers, 0.0) * scale) / scale, numbers)
    return kept


def shared_variables(held: KindReference, names: tuple[str, ...]) -> KindReference:
    """Give the variables that the rows have, too; what these know nothing of is no drift."""
    if names == held.counts.names:
        return held
    places = [place for place, name in enumerate(held.counts.names) if name in names]
    of, cells = held.counts, held.counts.cells
    return KindReference(
        counts=replace(
            of,
            names=tuple(of.names[place] for place in places),
            edges=of.edges[places],
            cells=replace(cells, counts=cells.counts[places], held=cells.held[places], spread=cells.spread[places]),
            positions=of.positions[places],
            scores=of.scores[places],
        ),
        levels=tuple(held.levels[place] for place in places) if held.levels else (),
        few=held.few[places],
    )


def aligned_rows(held: KindReference, now: KindRows) -> SparseRows:
    """Give the rows' values in the order of the reference's variables, all of which they have."""
    names = held.counts.names
    if now.names != names:
        columns = np.full((now.rows.rows, len(names)), np.nan)
        of_row = np.repeat(np.arange(now.rows.rows), np.diff(now.rows.starts))
        places = [now.names.index(name) for name in names]
        for place, own in enumerate(places):
            chosen = now.rows.indices == own
            columns[of_row[chosen], place] = now.rows.values[chosen]
        levels = tuple(now.levels[own] for own in places) if now.levels else ()
        now = replace(now, names=names, rows=SparseRows.of_columns(columns), levels=levels)
    return _coded(now, held.levels) if held.levels else now.rows


def with_few(held: KindReference, now: Cells) -> Cells:
    """Fill in the cells of one to nine patients with what of that is nearest to what is there now."""
    before = held.counts.cells
    variables = np.flatnonzero(held.few != NO_CELL)
    if not variables.size:
        return before
    counts, few = before.counts.copy(), held.few[variables]
    of_patient = before.rows / before.patients
    filled = np.clip(now.shares[variables, few] * before.rows, min(1.0, of_patient), (FEWEST_PATIENTS - 1) * of_patient)
    main = np.argmax(counts[variables], axis=1)
    filled = np.minimum(filled, counts[variables, main])
    counts[variables, few] += filled
    counts[variables, main] -= filled
    return replace(before, counts=counts)
