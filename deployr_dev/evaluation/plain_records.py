"""What an evaluation of several classes, several labels or numbers holds, as records that go to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from deployr_dev.evaluation.records import Evaluation, Figure, NotMeasured, RocPoints, TooSmall

SCHEMA_VERSION = 1


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class PlainGroup(_Record, frozen=True, kw_only=True):
    """Some of the rows, such as those of one sex, with the one figure that sums them up."""

    name: str
    rows: int
    patients: int
    figure: Figure | TooSmall


class PlainGrouping(_Record, frozen=True, kw_only=True):
    """All rows in groups, by one property: ``sex``, ``age``."""

    name: str
    groups: tuple[PlainGroup, ...]


class ClassDetail(_Record, frozen=True, kw_only=True, tag_field="kind", tag="classes"):
    """``confusion``: rows by observed class, then by the likeliest one; ``roc``: of each class against the rest."""

    confusion: tuple[tuple[int, ...], ...]
    roc: Mapping[str, RocPoints | NotMeasured]


class LabelDetail(_Record, frozen=True, kw_only=True, tag_field="kind", tag="labels"):
    """Each label as a binary one."""

    by_label: Mapping[str, Evaluation]


class NumberBin(_Record, frozen=True, kw_only=True):
    """Rows of neighbouring numbers, both ends included.

    ``predicted`` and ``observed`` are means; ``error`` is the mean absolute error.
    """

    lowest: float
    highest: float
    rows: int
    predicted: Figure
    observed: Figure
    error: Figure


class NumberDetail(_Record, frozen=True, kw_only=True, tag_field="kind", tag="numbers"):
    """Rows in bins of about equally many: by what was predicted, and by what was observed, that is by magnitude."""

    by_predicted: tuple[NumberBin, ...]
    by_observed: tuple[NumberBin, ...]


class PlainEvaluation(_Record, frozen=True, kw_only=True):
    """How answers did against outcomes. Every interval resamples patients, ``resamples`` times.

    ``label_means``: as in the manifest. ``figures``: the manifest's, and of classes ``accuracy`` and ``log_loss``.
    ``groupings``: by the figure ``grouped_by``.
    """

    schema_version: int = SCHEMA_VERSION
    rows: int
    patients: int
    resamples: int
    label_means: Mapping[str, float]
    figures: Mapping[str, Figure]
    grouped_by: str
    groupings: tuple[PlainGrouping, ...]
    detail: ClassDetail | LabelDetail | NumberDetail

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")
