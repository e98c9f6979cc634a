"""A model asked by hand: what a person would have to type, and the facts that come of it.

Only a model that sees no more than a person can type has a form: age, sex, and the latest value of each of a few tests.
Any other one would be scored on a record that looks emptier than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deployr_core.bundle import Bundle
from deployr_core.codes import Code
from deployr_core.declared import Statistic
from deployr_core.facts import BirthDate, Demographics, Lab, PatientFacts, Sex, Vital
from deployr_core.features import AgeGroup, LabGroup, SexGroup, VitalGroup
from deployr_core.units import WIDEST

MOST_FIELDS = 60
OLDEST = 130
"""In completed years."""
AGE, SEX = "age", "sex"
_LATEST = frozenset({Statistic.LAST, Statistic.MISSING})
_JUST_BEFORE = timedelta(seconds=1)
"""Facts are seen that were known strictly before the instant that is scored."""


class NoForm(Exception):
    """The model cannot be asked by hand; the message says why, and holds nothing about a patient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One latest value to type, in ``unit``, from ``low`` to ``high``, both included; None where nobody declared any.

    ``name`` is what the form calls it.
    """

    name: str
    label: str
    code: Code
    unit: str
    is_vital: bool
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What is asked for. ``fields``: tests, in the declared order."""

    asks_age: bool
    asks_sex: bool
    fields: tuple[Field, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Typed:
    """What was typed: the facts, or by the name of each field what was expected there."""

    facts: PatientFacts | None = field(repr=False)
    problems: Mapping[str, str]


def form_of(bundle: Bundle) -> Form:
    """Give a model's form.

    Raises:
        NoForm: the model sees more than can be typed, or asks for more than a form knows.
    """
    requires = bundle.manifest.requires
    if requires.visit_classes:
        raise NoForm("it scores certain classes of visits only, and a form knows of no visit")
    if bundle.documents is not None:
        raise NoForm("it looks at documents, which nobody can be asked to type")
    tests: dict[tuple[bool, Code], Field] = {}
    kinds = set()
    for group in bundle.spec.groups:
        kinds.add(type(group))
        if isinstance(group, AgeGroup | SexGroup):
            continue
        if not isinstance(group, LabGroup | VitalGroup):
            raise NoForm(f"it looks at {group.__struct_config__.tag}, which nobody can be asked to type completely")
        if not set(group.statistics) <= _LATEST:
            raise NoForm("it looks at more of a test than its latest value")
        for analyte in group.analytes:
            is_vital = isinstance(group, VitalGroup)
            known = tests.get((is_vital, analyte.key))
            low, high = (None, None) if analyte.plausible_range == WIDEST else analyte.plausible_range
            asked = Field(
                name=known.name if known else f"test-{len(tests) + 1}",
                label=known.label if known else analyte.name or analyte.code,
                code=analyte.key,
                unit=analyte.unit,
                is_vital=is_vital,
                low=low,
                high=high,
            )
            if known not in {None, asked}:
                raise NoForm("it declares one test in two units or ranges")
            tests[is_vital, analyte.key] = asked
    has_age = AgeGroup in kinds or requires.age_at_least is not None or requires.age_below is not None
    if len(tests) + has_age + (SexGroup in kinds) > MOST_FIELDS:
        raise NoForm(f"it takes more than {MOST_FIELDS} inputs")
    return Form(asks_age=has_age, asks_sex=SexGroup in kinds, fields=tuple(tests.values()))


def typed(form: Form, given: Mapping[str, str], *, as_of: datetime) -> Typed:
    """Read what was typed, as facts that became known just before ``as_of``; an empty field is a test not done."""
    problems: dict[str, str] = {}
    born, sex = None, Sex.UNKNOWN
    age = given.get(AGE, "").strip() if form.asks_age else ""
    if age.isdecimal() and age.isascii() and len(age) <= 3 and int(age) <= OLDEST:
        # Born on the first of January, so many years are completed on any day of this one.
        born = BirthDate(year=as_of.year - int(age))
    elif age:
        problems[AGE] = f"Enter completed years, a whole number from 0 to {OLDEST}, or leave it empty."
    if form.asks_sex and (chosen := given.get(SEX, "")):
        if chosen in set(Sex):
            sex = Sex(chosen)
        else:
            problems[SEX] = "Choose one of the list."
    at = as_of - _JUST_BEFORE
    labs: list[Lab] = []
    vitals: list[Vital] = []
    for each in form.fields:
        text = given.get(each.name, "").strip()
        if not text:
            continue
        value = _number(text)
        if value is None or not (WIDEST[0] if each.low is None else each.low) <= value <= (
            WIDEST[1] if each.high is None else each.high
        ):
            problems[each.name] = f"Enter {in_range(each)}, or leave it empty."
        elif each.is_vital:
            vitals.append(Vital(fact_id=each.name, codes=(each.code,), at=at, known_at=at, value=value, unit=each.unit))
        else:
            labs.append(Lab(fact_id=each.name, codes=(each.code,), at=at, known_at=at, value=value, unit=each.unit))
    if problems:
        return Typed(facts=None, problems=problems)
    demographics = Demographics(birth_date=born, sex=sex)
    facts = PatientFacts(patient_id="", demographics=demographics, labs=tuple(labs), vitals=tuple(vitals))
    return Typed(facts=facts, problems={})


def in_range(each: Field) -> str:
    """Say what may be typed."""
    return "a number" if each.low is None else f"a number from {each.low:g} to {each.high:g}"


def _number(text: str) -> float | None:
    try:
        value = float(text) if text.isascii() and len(text) <= 30 and "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
