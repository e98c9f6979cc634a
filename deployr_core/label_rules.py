"""Label rules, declared: one definition for task files, for the manifest, and for the labels observed in service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum

import msgspec

from deployr_core.outputs import BINARY, Outputs, Target

_LOINC_CODE = re.compile(r"\d{1,7}-\d\Z", re.ASCII)
_LABEL_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
LONGEST_HOURS = 24 * 366
LEVELS = ("low", "normal", "high")
"""What a result is by its reference range, in the order of the classes."""


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Misspelt keys are refused."""


class Answer(StrEnum):
    """What is asked of a result: whether it is abnormal, on which side of its range it is, or its number."""

    ABNORMAL = "abnormal"
    LEVEL = "level"
    VALUE = "value"


class LabComponent(Declared, frozen=True, kw_only=True, tag_field="kind", tag="lab-component"):
    """What the result of ``components`` is, by the reference range that came with it, whose ends are normal.

    Several components are alternatives, the first one preferred. ``window_hours``: how long after the index time the
    result may be released, the end excluded. A result that names the order answers it; without such a link the first
    specimen taken from the index time on does (see `deployr_core.labels.LabComponentRule`).

    ``answer``: ``abnormal`` is 1.0 outside the range; ``level`` is low, normal or high; ``value`` is the number in
    ``unit``, converted as `deployr_core.units` has it.
    """

    components: tuple[str, ...]
    window_hours: int
    answer: Answer = Answer.ABNORMAL
    unit: str | None = None

    def __post_init__(self) -> None:
        expect_loinc(self.components, "components", may_be_empty=False)
        _expect_hours(self.window_hours, "window_hours")
        if (self.unit is not None and bool(self.unit.strip())) != (self.answer is Answer.VALUE):
            raise ValueError("expected a unit, such as g/dL, with the answer value, and with no other")


class LabPanel(Declared, frozen=True, kw_only=True, tag_field="kind", tag="lab-panel"):
    """For each named component, 1.0 if its result is outside its reference range; no label before every one has one.

    ``components``: by name, the LOINC codes of each, as in `LabComponent`; the labels are in the names' order.
    """

    components: Mapping[str, tuple[str, ...]]
    window_hours: int

    def __post_init__(self) -> None:
        if len(self.components) < 2 or not all(_LABEL_NAME.match(name) for name in self.components):
            raise ValueError("expected components of at least two names in lower case, such as hematocrit")
        for codes in self.components.values():
            expect_loinc(codes, "components", may_be_empty=False)
        every = [code for codes in self.components.values() for code in codes]
        expect_loinc(tuple(every), "components", may_be_empty=False)
        _expect_hours(self.window_hours, "window_hours")

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names, in the order of the labels: a JSON object has none of its own."""
        return tuple(sorted(self.components))

    def of(self, name: str) -> LabComponent:
        """Give the rule of one component alone."""
        return LabComponent(components=self.components[name], window_hours=self.window_hours)


class InHospitalMortality(Declared, frozen=True, kw_only=True, tag_field="kind", tag="in-hospital-mortality"):
    """1.0 if the patient died before the visit ended; a visit that has not ended has no label."""


class LongStay(Declared, frozen=True, kw_only=True, tag_field="kind", tag="long-stay"):
    """1.0 if the visit lasted at least ``days`` times 24 hours; death ends a visit as discharge does."""

    days: int

    def __post_init__(self) -> None:
        _expect_hours(self.days * 24, "days")


class LengthOfStay(Declared, frozen=True, kw_only=True, tag_field="kind", tag="length-of-stay"):
    """How long the visit lasted in all, in days of 24 hours; one that has not ended has no label."""


class Readmission(Declared, frozen=True, kw_only=True, tag_field="kind", tag="readmission"):
    """1.0 if another visit of the included classes begins within ``days`` times 24 hours of the discharge.

    Both ends are excluded: a visit that begins at the very instant of the discharge is a transfer. Dying outside
    without coming back is no readmission. Where the data end before the time is up there is no label.
    """

    days: int

    def __post_init__(self) -> None:
        _expect_hours(self.days * 24, "days")


class IcuTransfer(Declared, frozen=True, kw_only=True, tag_field="kind", tag="icu-transfer"):
    """1.0 if an intensive-care stay begins within ``hours`` of the index time, before the visit ends.

    ``icu_classes``: the class codes under which the source lists intensive-care stays among the visits. A patient who
    is in intensive care at the index time is no row: that is known then.
    """

    hours: int
    icu_classes: tuple[str, ...] = ("ICU",)

    def __post_init__(self) -> None:
        _expect_hours(self.hours, "hours")
        if not self.icu_classes:
            raise ValueError("expected at least one of icu_classes")


LabRule = LabComponent | LabPanel
"""Rules that later results of the patient decide."""

LabelRule = LabComponent | LabPanel | InHospitalMortality | LongStay | LengthOfStay | Readmission | IcuTransfer


def outputs_of(rule: LabelRule, *, headline: str | None = None) -> Outputs:
    """Give what a model of such labels gives.

    Args:
        rule: how the label is read.
        headline: which class or label is the score; None where there is one output only.

    Raises:
        ValueError: no headline among several outputs, or one that is not among them.
    """
    match rule:
        case LabComponent(answer=Answer.LEVEL):
            return _several(Target.MULTICLASS, LEVELS, headline)
        case LabPanel():
            return _several(Target.MULTILABEL, rule.names, headline)
        case LabComponent(answer=Answer.VALUE, unit=unit):
            single = Outputs(target=Target.REGRESSION, names=("value",), headline="value", unit=unit)
        case LengthOfStay():
            single = Outputs(target=Target.REGRESSION, names=("stay",), headline="stay", unit="d")
        case _:
            single = BINARY
    if headline not in {None, single.headline}:
        raise ValueError("expected no headline, because there is one output only")
    return single


def horizon(rule: LabelRule) -> timedelta | None:
    """Give how long after the index time the label is decided at the latest; None where there is no such time."""
    match rule:
        case LabComponent(window_hours=hours) | LabPanel(window_hours=hours) | IcuTransfer(hours=hours):
            return timedelta(hours=hours)
        case LongStay(days=days) | Readmission(days=days):
            return timedelta(days=days)
        case InHospitalMortality() | LengthOfStay():
            return None


def rule_name(rule: LabelRule) -> str:
    """Give what labels by this rule are filed under: its ``kind``."""
    return str(rule.__struct_config__.tag)


def deciding_components(rule: LabelRule) -> tuple[str, ...]:
    """Give the LOINC codes of the results that decide the label; empty where no result does."""
    match rule:
        case LabComponent(components=components):
            return components
        case LabPanel(components=named):
            return tuple(code for name in rule.names for code in named[name])
        case _:
            return ()


def expect_loinc(codes: tuple[str, ...], key: str, *, may_be_empty: bool) -> None:
    """Refuse anything but LOINC codes, each once.

    Raises:
        ValueError: something else is there; the message names ``key``.
    """
    if (
        not (codes or may_be_empty)
        or len(set(codes)) != len(codes)
        or not all(_LOINC_CODE.match(code) for code in codes)
    ):
        raise ValueError(f"expected {key} to be LOINC codes such as 4544-3, at least one, each once")


def _several(target: Target, names: tuple[str, ...], headline: str | None) -> Outputs:
    if headline is None:
        raise ValueError(f"expected a headline, the output that is the score: one of {', '.join(names)}")
    return Outputs(target=target, names=names, headline=headline)


def _expect_hours(hours: int, key: str) -> None:
    if not 1 <= hours <= LONGEST_HOURS:
        raise ValueError(f"expected {key} of at least an hour and at most {LONGEST_HOURS} hours")
