"""Who is trained on and who is held out: by time, by patient, or by both at once."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from deployr_dev.cohorts.rows import IndexRow

_YEAR = timedelta(days=365)


class SplitKind(StrEnum):
    """What separates training rows from held-out ones.

    ``time``: training rows lie before a cutoff, held-out ones from it on; a patient may be on both sides. ``patient``:
    a patient is on one side, whatever the time. ``time+patient``: both: the model has never seen the patient, nor the
    time.
    """

    TIME = "time"
    PATIENT = "patient"
    TIME_AND_PATIENT = "time+patient"


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Positions of the training and of the held-out rows, ascending; ``left_out`` counts those on neither side.

    ``cutoff``: training rows lie before it, and their labels must have been known before it; None if only patients
    separate the sides.
    """

    kind: SplitKind
    train: tuple[int, ...]
    test: tuple[int, ...]
    cutoff: datetime | None
    left_out: int


def split_rows(rows: Sequence[IndexRow], *, kind: SplitKind, seed: int, held_out_share: float = 0.3) -> Split:
    """Split rows; labels are not looked at, so tasks that share rows share the split.

    The cutoff is a year before the last row where the rows span two years or more; else the instant from which on the
    last ``held_out_share`` of the rows lie. By time and patient, a patient with rows on both sides of it is held out
    with the chance ``held_out_share`` (their earlier rows are then left out), else trained on (their later rows are):
    so held-out patients are newcomers and returning ones, as they come to a model in service.

    Args:
        rows: in any order, at least one.
        kind: what separates the sides.
        seed: of the choice of patients.
        held_out_share: above 0 and below 1.

    Raises:
        ValueError: ``held_out_share`` is not above 0 and below 1.
    """
    out = held_out({row.person_id for row in rows}, seed=seed, share=held_out_share)
    if kind is SplitKind.PATIENT:
        cutoff = None
        train = tuple(i for i, row in enumerate(rows) if row.person_id not in out)
        test = tuple(i for i, row in enumerate(rows) if row.person_id in out)
    else:
        cutoff = time_cutoff([row.index_time for row in rows], held_out_share=held_out_share)
        before = {row.person_id for row in rows if row.index_time < cutoff}
        after = {row.person_id for row in rows if row.index_time >= cutoff}
        both = before & after if kind is SplitKind.TIME_AND_PATIENT else set()
        train = tuple(
            i
            for i, row in enumerate(rows)
            if row.index_time < cutoff and not (row.person_id in both and row.person_id in out)
        )
        test = tuple(
            i
            for i, row in enumerate(rows)
            if row.index_time >= cutoff and not (row.person_id in both and row.person_id not in out)
        )
    return Split(kind=kind, train=train, test=test, cutoff=cutoff, left_out=len(rows) - len(train) - len(test))


def time_cutoff(index_times: Sequence[datetime], *, held_out_share: float) -> datetime:
    """Give the instant from which on rows are held out: the last year's, or the last share's where there is less."""
    ascending = sorted(index_times)
    if ascending[-1] - ascending[0] >= 2 * _YEAR:
        return ascending[-1] - _YEAR
    return ascending[min(len(ascending) - 1, round(len(ascending) * (1.0 - held_out_share)))]


def held_out(person_ids: Collection[int], *, seed: int, share: float) -> frozenset[int]:
    """Choose the patients to hold out, each by a keyed hash of the id alone.

    So a patient keeps their side when others come or go, and ``share`` is only met on average.

    Raises:
        ValueError: ``share`` is not above 0 and below 1.
    """
    if not 0.0 < share < 1.0:
        raise ValueError("expected a held_out_share above 0 and below 1")
    key = f"deployr-split-{seed}".encode()

    def position(person_id: int) -> float:
        digest = hmac.new(key, str(person_id).encode(), hashlib.sha256).digest()
        return int.from_bytes(digest[:6]) / 2**48

    return frozenset(person_id for person_id in person_ids if position(person_id) < share)
