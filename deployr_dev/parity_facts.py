"""The facts behind each feature group, as both sides have them, joined where they are the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from deployr_core.codes import Code
from deployr_core.facts import Demographics, Lab, PatientFacts, Sex, Vital
from deployr_core.features import AgeGroup, EthnicityGroup, FeatureSpec, RaceGroup, SexGroup, WindowedGroup
from deployr_core.labels import is_abnormal
from deployr_core.layout import CategoryLayout, CodeLayout, ResultLayout, layout_of
from deployr_core.units import canonical_value, conversion_factor
from deployr_core.vectorize import CodedFacts, coded_facts, result_facts

Pair = tuple[PatientFacts, PatientFacts, datetime]
"""The EMR's facts of a patient, the warehouse's, and the instant as of which they are compared."""


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Chart:
    """All that the EMR holds of a patient, asked for without codes: what no search of a model would find.

    ``undated``: what lacks the date that makes it count. Results stand at the instant of their specimen, other facts at
    no instant that means anything.
    """

    facts: PatientFacts
    undated: PatientFacts


class Side(StrEnum):
    """Where a fact was read."""

    EMR = "emr"
    WAREHOUSE = "warehouse"

    @property
    def other(self) -> Side:
        """The other side."""
        return Side.WAREHOUSE if self is Side.EMR else Side.EMR


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Row:
    """One fact as one feature of its group sees it.

    ``feature``: the code that names the feature; None where no code of the fact is declared, and then ``code`` is its
    first. ``value``: a result in the declared unit, None where it cannot be; ``raw`` and ``unit``: as it came.
    ``ranged``: it came with a reference range; ``unflagged``: it lies outside, and nothing flags it. ``seen``: it
    happened in the window of one of the patient's orders, and was known by then.
    """

    patient: str
    feature: str | None
    code: Code | None
    at: datetime
    known_at: datetime
    seen: bool
    value: float | None = None
    raw: float | None = None
    unit: str = ""
    ranged: bool = False
    unflagged: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class GroupFacts:
    """One windowed group's rows: those that both sides have (same patient, feature, instant, value), and the rest.

    ``alone``: declared, but without a counterpart. ``undeclared``: rows that count for no feature. ``undated``: what
    the EMR holds without the date that makes it count (see `Chart`).
    """

    group: WindowedGroup
    matched: Sequence[tuple[Row, Row]]
    alone: dict[Side, list[Row]]
    undeclared: dict[Side, list[Row]]
    undated: list[Row]

    def declared(self, side: Side) -> Iterator[Row]:
        """Give all rows of a side that count for a feature."""
        place = 0 if side is Side.EMR else 1
        yield from (pair[place] for pair in self.matched)
        yield from self.alone[side]

    def has_any(self, side: Side) -> bool:
        """True if the side has any fact of this kind, declared or not, that an order could see."""
        return any(row.seen for rows in (self.declared(side), self.undeclared[side]) for row in rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown:
    """A demographic group: of how many patients each side knows it, and of how many the other does not."""

    group: str
    patients: int
    known_to: dict[Side, int]
    only_known_to: dict[Side, int]


@dataclass(kw_only=True, slots=True, repr=False)
class _Person:
    orders: list[datetime] = field(default_factory=list)
    undated: list[PatientFacts] = field(default_factory=list)
    facts: dict[Side, list[PatientFacts]] = field(default_factory=lambda: {Side.EMR: [], Side.WAREHOUSE: []})


def side_by_side(
    pairs: Iterable[Pair], spec: FeatureSpec, *, charts: Mapping[str, Chart]
) -> tuple[tuple[GroupFacts, ...], tuple[Unknown, ...]]:
    """Join the facts of both sides for each group; a fact that several orders see counts once.

    The EMR's facts may be cut to each order's window, as a fetch gives them; the warehouse's may be whole. ``charts``:
    by the EMR's patient id, as far as they were read.

    Raises:
        SpecNotFitted: the declaration still holds something to be learned.
    """
    people: dict[str, _Person] = defaultdict(_Person)
    for emr, warehouse, as_of in pairs:
        person = people[emr.patient_id]
        person.orders.append(as_of)
        person.facts[Side.EMR].append(emr)
        if not any(warehouse is held for held in person.facts[Side.WAREHOUSE]):
            person.facts[Side.WAREHOUSE].append(warehouse)
    for patient, person in people.items():
        if patient in charts:
            person.facts[Side.EMR].append(charts[patient].facts)
            person.undated.append(charts[patient].undated)
    windowed: list[GroupFacts] = []
    categories: list[Unknown] = []
    for layout in layout_of(spec).groups:
        if isinstance(layout, CategoryLayout):
            categories.append(_unknown(layout, people))
        else:
            rows = {
                side: _rows_of(layout, people, {patient: person.facts[side] for patient, person in people.items()})
                for side in Side
            }
            undated = _rows_of(layout, people, {patient: person.undated for patient, person in people.items()})
            windowed.append(_joined(layout.group, rows, undated))
    return tuple(windowed), tuple(categories)


_Key = TypeVar("_Key", bound=Hashable)


def paired_by(
    left: Iterable[Row], right: Iterable[Row], key: Callable[[Row], _Key]
) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
    """Pair rows with the same key, each once, in the order of what was known first; give also what is left."""
    waiting: dict[_Key, list[Row]] = defaultdict(list)
    for row in sorted(right, key=lambda row: row.known_at, reverse=True):
        waiting[key(row)].append(row)
    pairs, alone = [], []
    for row in sorted(left, key=lambda row: row.known_at):
        if partners := waiting.get(key(row)):
            pairs.append((row, partners.pop()))
        else:
            alone.append(row)
    return pairs, alone, [row for rows in waiting.values() for row in rows]


def _joined(group: WindowedGroup, rows: dict[Side, list[Row]], undated: list[Row]) -> GroupFacts:
    declared = {side: [row for row in rows[side] if row.feature is not None] for side in Side}
    matched, emr, warehouse = paired_by(
        declared[Side.EMR], declared[Side.WAREHOUSE], lambda row: (row.patient, row.feature, row.at, row.value)
    )
    return GroupFacts(
        group=group,
        matched=matched,
        alone={Side.EMR: emr, Side.WAREHOUSE: warehouse},
        undeclared={side: [row for row in rows[side] if row.feature is None] for side in Side},
        undated=undated,
    )


def _rows_of(
    layout: CodeLayout | ResultLayout, people: dict[str, _Person], told: Mapping[str, Sequence[PatientFacts]]
) -> list[Row]:
    rows: list[Row] = []
    for patient, person in people.items():
        seen = _seen_by(person.orders, layout.lookback)
        if isinstance(layout, CodeLayout):
            held = [coded_facts(layout.group, facts) for facts in told[patient]]
            rows += _code_rows(patient, layout, held, seen)
        else:
            results = [result_facts(layout.group, facts) for facts in told[patient]]
            rows += _result_rows(patient, layout, results, seen)
    return rows


def _seen_by(orders: Sequence[datetime], lookback: timedelta) -> Callable[[datetime, datetime], bool]:
    def seen(at: datetime, known_at: datetime) -> bool:
        return any(as_of - lookback <= at < as_of and known_at < as_of for as_of in orders)

    return seen


def _code_rows(
    patient: str, layout: CodeLayout, held: Sequence[CodedFacts], seen: Callable[[datetime, datetime], bool]
) -> Iterator[Row]:
    for fact in {fact.fact_id: fact for facts in held for fact in facts}.values():
        counted = {
            to: code for code in fact.codes if (to := layout.code_groups.of(code)) is not None and to in layout.columns
        }
        features: dict[str | None, Code | None] = {f"{to.system}|{to.value}": code for to, code in counted.items()}
        for feature, code in (features or {None: next(iter(fact.codes), None)}).items():
            yield Row(
                patient=patient,
                feature=feature,
                code=code,
                at=fact.at,
                known_at=fact.known_at,
                seen=seen(fact.at, fact.known_at),
            )


def _result_rows(
    patient: str,
    layout: ResultLayout,
    held: Sequence[Sequence[Lab] | Sequence[Vital]],
    seen: Callable[[datetime, datetime], bool],
) -> Iterator[Row]:
    results: dict[str, Lab | Vital] = {fact.fact_id: fact for facts in held for fact in facts}
    for fact in results.values():
        places: dict[int | None, Code | None] = {
            layout.reading.place_of[code]: code for code in reversed(fact.codes) if code in layout.reading.place_of
        }
        for place, code in (places or {None: next(iter(fact.codes), None)}).items():
            analyte = None if place is None else layout.analytes[place]
            factor = None
            if analyte is not None and code is not None:
                factor = conversion_factor(code, unit=fact.unit, wanted=analyte.analyte.unit)
            yield Row(
                patient=patient,
                feature=None if analyte is None else analyte.analyte.code,
                code=code,
                at=fact.at,
                known_at=fact.known_at,
                seen=seen(fact.at, fact.known_at),
                value=None if fact.value is None or factor is None else canonical_value(fact.value, factor),
                raw=fact.value,
                unit=fact.unit,
                ranged=isinstance(fact, Lab) and (fact.reference_low is not None or fact.reference_high is not None),
                unflagged=isinstance(fact, Lab) and fact.abnormal is None and is_abnormal(fact) is True,
            )


def _unknown(layout: CategoryLayout, people: dict[str, _Person]) -> Unknown:
    there, only = dict.fromkeys(Side, 0), dict.fromkeys(Side, 0)
    for person in people.values():
        known = {side: any(_knows(layout, facts.demographics) for facts in person.facts[side]) for side in Side}
        for side in Side:
            there[side] += known[side]
            only[side] += known[side] and not known[side.other]
    return Unknown(group=layout.group.name, patients=len(people), known_to=there, only_known_to=only)


def _knows(layout: CategoryLayout, who: Demographics) -> bool:
    match layout.group:
        case AgeGroup():
            return who.birth_date is not None
        case SexGroup():
            return who.sex is not Sex.UNKNOWN
        case RaceGroup():
            return bool(who.races)
        case EthnicityGroup():
            return bool(who.ethnicities)
