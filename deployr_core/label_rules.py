"""Label rules, declared: one definition for task files, for the manifest, and for the labels observed in service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from deployr_core.codes import Code
from deployr_core.facts import DiagnosisList
from deployr_core.outputs import BINARY, Outputs, Target

_LOINC_CODE = re.compile(r"\d{1,7}-\d\Z", re.ASCII)
_LABEL_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_CODE = re.compile(r"[^\s*]+\*?\Z")
_RESOURCE_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}\Z")
_PARAMETER = re.compile(r"[a-z][A-Za-z0-9:._-]{0,63}\Z")
_OURS = frozenset({"patient", "subject"})
LONGEST_HOURS = 24 * 366
ADHERENCE = "adherence"
"""What labels of what clinicians did about an advisory are filed under; no model predicts them."""
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
    is in intensive care at the index time is no row: that is known then. ``or_death``: death within the hours counts
    as well, which makes the rule one of deterioration.
    """

    hours: int
    icu_classes: tuple[str, ...] = ("ICU",)
    or_death: bool = False

    def __post_init__(self) -> None:
        _expect_hours(self.hours, "hours")
        if not self.icu_classes:
            raise ValueError("expected at least one of icu_classes")


class Mortality(Declared, frozen=True, kw_only=True, tag_field="kind", tag="mortality"):
    """1.0 if the patient dies within ``days`` times 24 hours of the index time, in hospital or outside.

    A death of which only the day is known counts if the whole day lies in the time; a day that the end of the time cuts
    gives no label.
    """

    days: int

    def __post_init__(self) -> None:
        _expect_hours(self.days * 24, "days")


class DiagnosisInWindow(Declared, frozen=True, kw_only=True, tag_field="kind", tag="diagnosis"):
    """1.0 if one of ``codes`` is recorded as a diagnosis within ``days`` times 24 hours of the index time.

    ``codes``: by the URI of its system, the codes; one that ends in ``*`` stands for all that begin so, such as
    ``I50.*``. ``recorded_in``: the lists that count. What was recorded before the index time counts for nothing, and
    who dies within the time without the diagnosis has no label.
    """

    codes: Mapping[str, tuple[str, ...]]
    days: int
    recorded_in: tuple[DiagnosisList, ...] = tuple(DiagnosisList)

    def __post_init__(self) -> None:
        _expect_hours(self.days * 24, "days")
        every = [(system, code) for system, codes in self.codes.items() for code in codes]
        if (
            not every
            or not all(self.codes.values())
            or len(set(every)) != len(every)
            or not all(system.strip() and _CODE.match(code) for system, code in every)
        ):
            raise ValueError(
                "expected codes by the URI of their system, each once, such as I50.9; a * only at the end, as in I50.*"
            )
        if not self.recorded_in:
            raise ValueError("expected at least one of recorded_in")

    def names(self, code: Code) -> bool:
        """True if the code is one of those."""
        return any(
            code.value.startswith(wanted[:-1]) if wanted.endswith("*") else code.value == wanted
            for wanted in self.codes.get(code.system, ())
        )


class FhirPathSearch(Declared, frozen=True, kw_only=True):
    """What a FHIRPath rule looks at: the patient's resources of a type that have these search ``parameters``."""

    resource_type: str
    parameters: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        if not _RESOURCE_TYPE.match(self.resource_type) or self.resource_type in {"Patient", "Bundle"}:
            raise ValueError("expected a resource_type that names its patient, such as Observation")
        if not all(_PARAMETER.match(name) and name not in _OURS for name in self.parameters):
            raise ValueError("expected search parameters by name, but for patient, subject and those that begin with _")

    @property
    def key(self) -> str:
        """What tells it from other searches."""
        return "&".join([self.resource_type, *(f"{name}={value}" for name, value in sorted(self.parameters.items()))])


class FhirPathAnswer(StrEnum):
    """What the expression gives: true or false, or a number."""

    BOOLEAN = "boolean"
    NUMBER = "number"


class FhirPathRule(Declared, frozen=True, kw_only=True, tag_field="kind", tag="fhirpath"):
    """What a FHIRPath expression says of the patient's resources, ``hours`` after the index time.

    It is evaluated over one Bundle of what the ``searches`` find, whenever that was, with the instants ``%as_of`` (the
    index time) and ``%until`` (the end of the hours); it must bound what it looks at by both, or the label would change
    with the day that it is asked for. It is asked once the hours have passed, whatever it says. ``unit``: of a number.
    No warehouse can evaluate it: such a label is read in service alone.

    Raises:
        ValueError: the expression cannot be read, uses what is not there, or does not use both instants.
    """

    expression: str
    searches: tuple[FhirPathSearch, ...]
    hours: int
    answer: FhirPathAnswer = FhirPathAnswer.BOOLEAN
    unit: str | None = None

    def __post_init__(self) -> None:
        _expect_hours(self.hours, "hours")
        if (self.unit is not None and bool(self.unit.strip())) != (self.answer is FhirPathAnswer.NUMBER):
            raise ValueError("expected a unit, such as d, with the answer number, and with no other")
        # The engine takes a fifth of a second to load, and hardly any model has such a rule.
        from deployr_core.fhirpath import compiled

        if not {"as_of", "until"} <= compiled(self.expression).variables:
            raise ValueError("expected an expression that bounds what it looks at by %as_of and %until")
        if not self.searches or len({search.key for search in self.searches}) != len(self.searches):
            raise ValueError("expected at least one of searches, each once")


LabRule = LabComponent | LabPanel
"""Rules that later results of the patient decide."""

VisitRule = InHospitalMortality | LongStay | LengthOfStay | Readmission | IcuTransfer | Mortality
"""Rules that the patient's later visits and death decide."""

LabelRule = (
    LabComponent
    | LabPanel
    | InHospitalMortality
    | LongStay
    | LengthOfStay
    | Readmission
    | IcuTransfer
    | Mortality
    | DiagnosisInWindow
    | FhirPathRule
)


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
        case FhirPathRule(answer=FhirPathAnswer.NUMBER, unit=unit):
            single = Outputs(target=Target.REGRESSION, names=("value",), headline="value", unit=unit)
        case _:
            single = BINARY
    if headline not in {None, single.headline}:
        raise ValueError("expected no headline, because there is one output only")
    return single


def horizon(rule: LabelRule) -> timedelta | None:
    """Give how long after the index time the label is decided at the latest; None where there is no such time."""
    match rule:
        case LabComponent(window_hours=hours) | LabPanel(window_hours=hours):
            return timedelta(hours=hours)
        case IcuTransfer(hours=hours) | FhirPathRule(hours=hours):
            return timedelta(hours=hours)
        case LongStay(days=days) | Readmission(days=days) | Mortality(days=days) | DiagnosisInWindow(days=days):
            return timedelta(days=days)
        case InHospitalMortality() | LengthOfStay():
            return None


def ripe_at(rule: LabelRule, as_of: datetime) -> datetime:
    """Give the instant from which on nothing more can count; 366 days on, where the rule waits for a visit to end."""
    return as_of + (horizon(rule) or timedelta(hours=LONGEST_HOURS))


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
