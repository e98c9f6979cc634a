"""A challenger held against the champion on the same rows: the record, and what it says in words.

How it is measured is in `deployr_core.monitoring.paired`; here is what is kept as ``comparison.json``, shown to whoever
approves, and named by its digest in the journal.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from deployr_core.bundle import Estimate, sha256_hex
from deployr_core.groups import FEW_PATIENTS

SCHEMA_VERSION = 1

Shown = Estimate | str
"""A figure with its 95 % interval, or why there is none, written to be shown."""


class ComparisonInvalid(ValueError):
    """The record is not what a comparison must be; the message names the place."""


class Rows(StrEnum):
    """Which rows both models scored.

    ``held-out``: of an extract, none of a patient that either was trained on. ``live``: of requests in service, the
    challenger silent beside the champion; both before anybody knew the outcome.
    """

    HELD_OUT = "held-out"
    LIVE = "live"


class Better(StrEnum):
    """Which way a figure is good."""

    HIGHER = "higher"
    LOWER = "lower"


class Verdict(StrEnum):
    """What a difference says: ``alike`` is not proven by an interval that holds 0, hence `NOT_TOLD_APART`."""

    BETTER = "better"
    WORSE = "worse"
    NOT_TOLD_APART = "cannot be told apart"
    NOT_MEASURED = "not measurable"


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Model(_Record, frozen=True, kw_only=True):
    """One of the two: ``name`` is its run's id, or what it is called where it is served."""

    name: str
    version: str
    bundle_sha256: str


class Compared(_Record, frozen=True, kw_only=True):
    """One figure of both, and the challenger's less the champion's, from the same resamples of patients.

    ``name``: what it is called in words. ``better``: which way it is good.
    """

    name: str
    better: Better
    champion: Shown
    challenger: Shown
    difference: Shown

    @property
    def verdict(self) -> Verdict:
        """Say what the difference's interval says of the challenger."""
        match self.difference:
            case Estimate(low=low, high=high) if low > 0.0 or high < 0.0:
                is_better = (low > 0.0) == (self.better is Better.HIGHER)
                return Verdict.BETTER if is_better else Verdict.WORSE
            case Estimate():
                return Verdict.NOT_TOLD_APART
            case _:
                return Verdict.NOT_MEASURED


class Group(_Record, frozen=True, kw_only=True):
    """How the two tell outcomes apart for some people. Counts are None where they would tell of a small group."""

    name: str
    rows: int | None
    patients: int | None
    auroc: Compared


class Grouping(_Record, frozen=True, kw_only=True):
    """Everybody by one property. ``gap``: the highest group's AUROC less the lowest's, of each model."""

    name: str
    groups: tuple[Group, ...]
    gap: Compared


class Comparison(_Record, frozen=True, kw_only=True):
    """Champion and challenger on the same rows.

    ``excluded_patients``: left out because one of the two was trained on them. ``unpaired_rows``: left out because only
    one of the two has a score for them. ``figures``: by name, AUROC first. ``delong``: the difference in AUROC by
    DeLong's method where no patient has two rows; None where one has. ``threshold``: in force for the champion, and
    taken for both; None where there is none. ``notes``: what else somebody has to know who goes by this, in sentences.
    """

    schema_version: int = SCHEMA_VERSION
    rows_are: Rows
    champion: Model
    challenger: Model
    outcome: str
    rows: int
    patients: int
    positives: int
    excluded_patients: int = 0
    unpaired_rows: int = 0
    threshold: float | None
    resamples: int
    figures: tuple[Compared, ...]
    delong: Shown | None
    groupings: tuple[Grouping, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, got {self.schema_version}")

    def to_json(self) -> bytes:
        """Give the record's canonical bytes, with a line for each field, for people to read."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n"

    @property
    def sha256(self) -> str:
        """Give the digest of the record's bytes: what a decision names as its evidence."""
        return sha256_hex(self.to_json())

    def figure(self, name: str) -> Compared:
        """Give the figure of that name.

        Raises:
            KeyError: it was not measured here.
        """
        found = next((each for each in self.figures if each.name == name), None)
        if found is None:
            raise KeyError(name)
        return found


def parse_comparison(source: bytes) -> Comparison:
    """Read ``comparison.json``.

    Raises:
        ComparisonInvalid: not JSON, or not what a comparison must hold.
    """
    try:
        return msgspec.json.decode(source, type=Comparison)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ComparisonInvalid(f"comparison.json: {error}") from None


def in_words(comparison: Comparison) -> tuple[str, ...]:
    """Say what the comparison says, in sentences that need no statistics: the first is the one to read."""
    first, *others = comparison.figures
    told = [_whole(first, comparison.patients)]
    for verdict in (Verdict.BETTER, Verdict.WORSE):
        names = [each.name for each in others if each.verdict is verdict]
        if names:
            told.append(f"The challenger is {verdict.value} in {_listed(names)}.")
    untold = [each.name for each in others if each.verdict is Verdict.NOT_TOLD_APART]
    if untold:
        told.append(f"In {_listed(untold)} the two cannot be told apart.")
    worse = [
        f"{group.name} ({grouping.name})"
        for grouping in comparison.groupings
        for group in grouping.groups
        if group.auroc.verdict is Verdict.WORSE
    ]
    if worse:
        told.append(f"It tells outcomes apart worse for {_listed(worse)}.")
    told += comparison.notes
    if comparison.patients < FEW_PATIENTS:
        told.append(
            f"With {_patients(comparison.patients)} every interval here is too narrow: take it as a first impression."
        )
    return tuple(told)


def _whole(figure: Compared, patients: int) -> str:
    """Give a sentence on one figure, with how far apart the two may be."""
    difference = figure.difference
    if not isinstance(difference, Estimate):
        return f"By {figure.name} the two cannot be compared: {difference}."
    if figure.verdict is Verdict.NOT_TOLD_APART:
        worst, best = abs(difference.low), abs(difference.high)
        down, up = ("lower", "higher")
        return (
            f"By {figure.name} the challenger and the champion cannot be told apart with {_patients(patients)}: the"
            f" challenger's may be up to {worst:.3f} {down} or {best:.3f} {up}."
        )
    nearest, farthest = sorted((abs(difference.low), abs(difference.high)))
    return (
        f"By {figure.name} the challenger is {figure.verdict.value} by {abs(difference.value):.3f} ({nearest:.3f} to"
        f" {farthest:.3f}), with {_patients(patients)}."
    )


def _patients(count: int) -> str:
    return "1 patient" if count == 1 else f"{count:,} patients"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
