"""A reference period as a file: what later packets are held against, whoever reads it and however long from now.

It holds counts in cells and no row. A cell of values that fewer than ten patients are in is merged with the one beside
it; whether anybody has a variable at all cannot be merged, so there the file says "one to nine patients" and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Floats
from deployr_core.groups import FEWEST_PATIENTS
from deployr_core.monitoring.drift import DriftReference, Drifts, drifts_of_cells
from deployr_core.monitoring.drift_cells import Cells, counted
from deployr_core.monitoring.drift_kind_reference import (
    NO_CELL,
    KindReference,
    aligned_rows,
    fitted_kind,
    rounded,
    shared_variables,
    with_few,
)
from deployr_core.monitoring.served_rows import DriftKind, KindRows, ServedRows

LAYOUT = 1


class ReferenceInvalid(ValueError):
    """The file is not a reference period, or not one that this version reads."""


class ReferenceOfAnotherBundle(ValueError):
    """The reference period is of another bundle than the packets."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferencePeriod:
    """What one bundle answered in ``[since, until)``, aware UTC, counted.

    ``daily``: requests of each day. ``recurrence``: how many times as much the number of requests varies as it would if
    each came alone: the mean, over requests, of how many their patient has.
    """

    model_id: str
    version: str
    bundle_sha256: str
    since: datetime
    until: datetime
    requests: int
    patients: int
    daily: Floats
    recurrence: float
    kinds: Mapping[DriftKind, KindReference]

    @classmethod
    def of(cls, rows: ServedRows, *, model_id: str, version: str, bundle_sha256: str) -> ReferencePeriod:
        """Fit a reference period.

        Raises:
            ValueError: no requests, or those of fewer than ten patients.
        """
        _, held = np.unique(rows.patients, return_counts=True)
        if held.size < FEWEST_PATIENTS:
            raise ValueError(
                f"expected a reference period with requests about at least {FEWEST_PATIENTS} patients, got {held.size};"
                " choose a longer one"
            )
        kinds: dict[DriftKind, KindReference] = {}
        for kind in DriftKind:
            if kind is not DriftKind.VOLUME and (found := fitted_kind(rows.of_kind(kind), kind)) is not None:
                kinds[kind] = found
        return cls(
            model_id=model_id,
            version=version,
            bundle_sha256=bundle_sha256,
            since=rows.since,
            until=rows.until,
            requests=rows.rows,
            patients=int(held.size),
            daily=rows.daily(),
            recurrence=float(rounded(np.array([recurrence(rows.patients)]))[0]),
            kinds=kinds,
        )

    def expect_bundle(self, bundle_sha256: str) -> None:
        """Refuse packets of another bundle.

        Raises:
            ReferenceOfAnotherBundle: they are.
        """
        if bundle_sha256 != self.bundle_sha256:
            raise ReferenceOfAnotherBundle(
                f"expected packets of the bundle that the reference period is of, {self.bundle_sha256[:12]}, got those"
                f" of {bundle_sha256[:12]}; make one of this bundle with deployr monitor reference"
            )

    def drift(self, kind: DriftKind, now: KindRows) -> Drifts | None:
        """Hold rows against the period; None where the period or the rows have nothing of the kind.

        Raises:
            ValueError: other features than the reference's.
        """
        held = self.kinds.get(kind)
        if held is None or now.rows.rows == 0:
            return None
        if kind is DriftKind.FEATURES and now.names != held.counts.names:
            raise ValueError("expected the features of the reference period's bundle")
        held = shared_variables(held, now.names)
        if not held.counts.names:
            return None
        cells = counted(aligned_rows(held, now), held.counts.edges, now.patients)
        return drifts_of_cells(replace(held.counts, cells=with_few(held, cells)), cells)

    def to_json(self) -> bytes:
        """Write it: the same period gives the same bytes."""
        kinds = {kind.value: _kind_file(held) for kind, held in sorted(self.kinds.items())}
        return msgspec.json.encode(
            _File(
                layout=LAYOUT,
                model_id=self.model_id,
                version=self.version,
                bundle_sha256=self.bundle_sha256,
                since=self.since,
                until=self.until,
                requests=self.requests,
                patients=self.patients,
                daily=tuple(int(each) for each in self.daily),
                recurrence=self.recurrence,
                kinds=kinds,
            )
        )

    @classmethod
    def from_json(cls, content: bytes) -> ReferencePeriod:
        """Read it.

        Raises:
            ReferenceInvalid: it is none, or of another layout.
        """
        try:
            found = msgspec.json.decode(content, type=_File)
            kinds = {DriftKind(name): _kind(file) for name, file in found.kinds.items()}
        except (msgspec.MsgspecError, ValueError) as error:
            raise ReferenceInvalid(
                f"expected a reference period ({type(error).__name__}); make it anew with deployr monitor reference"
            ) from None
        if found.layout != LAYOUT:
            raise ReferenceInvalid(
                f"expected a reference period of layout {LAYOUT}, got {found.layout}; make it anew with deployr monitor"
                " reference"
            )
        return cls(
            model_id=found.model_id,
            version=found.version,
            bundle_sha256=found.bundle_sha256,
            since=found.since,
            until=found.until,
            requests=found.requests,
            patients=found.patients,
            daily=np.array(found.daily, dtype=np.float64),
            recurrence=found.recurrence,
            kinds=kinds,
        )

    @property
    def days(self) -> timedelta:
        """How long it is."""
        return self.until - self.since


def recurrence(patients: NDArray[np.int64]) -> float:
    """Give how much more the number of rows varies than if each patient had one, patients coming by chance: 1 or more.

    Source: the variance of a compound Poisson sum; W. Feller (1968), An Introduction to Probability Theory, XII.2.
    """
    _, held = np.unique(patients, return_counts=True)
    return float((held.astype(np.float64) ** 2).sum() / held.sum()) if held.size else 1.0


class _VariableFile(msgspec.Struct, frozen=True, array_like=True):
    """One variable. Cells: absent first, then those between the edges; ``few`` as in `KindReference`."""

    name: str
    edges: tuple[float, ...]
    levels: tuple[str, ...]
    few: int
    counts: tuple[int, ...]
    spread: tuple[float, ...]
    positions: tuple[float | None, ...]
    scores: tuple[float | None, ...]


class _KindFile(msgspec.Struct, frozen=True, kw_only=True):
    rows: int
    patients: int
    variables: tuple[_VariableFile, ...]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    layout: int
    model_id: str
    version: str
    bundle_sha256: str
    since: datetime
    until: datetime
    requests: int
    patients: int
    daily: tuple[int, ...]
    recurrence: float
    kinds: dict[str, _KindFile]


def _kind_file(held: KindReference) -> _KindFile:
    of, variables = held.counts, []
    for place, name in enumerate(of.names):
        edges = of.edges[place][np.isfinite(of.edges[place])]
        width = edges.size + 2
        variables.append(
            _VariableFile(
                name=name,
                edges=tuple(edges.tolist()),
                levels=held.levels[place] if held.levels else (),
                few=int(held.few[place]),
                counts=tuple(int(each) for each in of.cells.counts[place, :width]),
                spread=tuple(of.cells.spread[place, :width].tolist()),
                positions=_or_none(of.positions[place, :width]),
                scores=_or_none(of.scores[place, :width]),
            )
        )
    return _KindFile(rows=of.cells.rows, patients=of.cells.patients, variables=tuple(variables))


def _or_none(numbers: Floats) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(each) else each for each in numbers.tolist())


def _kind(file: _KindFile) -> KindReference:
    widest = max((len(each.edges) for each in file.variables), default=0)
    shape = (len(file.variables), widest + 2)
    edges = np.full((shape[0], widest), np.inf)
    counts, spread = np.zeros(shape), np.ones(shape)
    positions, scores = np.full(shape, np.nan), np.full(shape, np.nan)
    for place, each in enumerate(file.variables):
        width = len(each.edges) + 2
        if {len(each.counts), len(each.spread), len(each.positions), len(each.scores)} != {width}:
            raise ValueError("expected as many cells as the edges make")
        if sum(each.counts) != file.rows or not NO_CELL <= each.few < width:
            raise ValueError("expected each row in one cell")
        edges[place, : width - 2] = each.edges
        counts[place, :width], spread[place, :width] = each.counts, each.spread
        positions[place, :width] = [np.nan if value is None else value for value in each.positions]
        told = [np.nan if value is None else value for value in each.scores]
        # Cells that this variable does not have stay empty; what they hold must be a number where the others are.
        scores[place] = told[0]
        scores[place, :width] = told
    return KindReference(
        counts=DriftReference(
            names=tuple(each.name for each in file.variables),
            edges=edges,
            cells=Cells(rows=file.rows, patients=file.patients, counts=counts, held=np.zeros(shape), spread=spread),
            positions=positions,
            scores=scores,
        ),
        levels=tuple(each.levels for each in file.variables) if any(each.levels for each in file.variables) else (),
        few=np.array([each.few for each in file.variables], dtype=np.int64),
    )
