"""Why the two sides differ: each cause that is known by its pattern, named, with what to change in the mapping."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from statistics import median
from typing import Any

from deployr_core.codes import Code
from deployr_core.features import (
    DiagnosisGroup,
    FeatureSpec,
    LabGroup,
    MedicationGroup,
    OrderGroup,
    ProcedureGroup,
    ResultGroup,
    VisitGroup,
    VitalGroup,
    WindowedGroup,
)
from deployr_dev.parity_facts import GroupFacts, Pair, Row, Side, Unknown, paired_by, side_by_side
from deployr_dev.parity_tallies import MINUTE, Lateness, OneSided, lateness_of, one_sided

FEWEST = 3
"""How many facts must show a pattern before it is called one."""

_MOST_OF, _HALF_OF, _SOME_OF = 0.8, 0.5, 0.05
_SAME_RATIO = 0.02
_ZONE_STEP, _WIDEST_ZONES, _SUMMER_TIME = timedelta(minutes=15), timedelta(hours=26), timedelta(hours=1)

_TABLE_OF_GROUP: tuple[tuple[type[WindowedGroup], str], ...] = (
    (LabGroup, "measurement"),
    (VitalGroup, "measurement"),
    (DiagnosisGroup, "condition_occurrence"),
    (MedicationGroup, "drug_exposure"),
    (ProcedureGroup, "procedure_occurrence"),
    (OrderGroup, "ext_lab_order"),
    (VisitGroup, "visit_occurrence"),
)
"""The OMOP table that a source mapping's ``local_systems`` speaks of."""


class CauseKind(StrEnum):
    """What can be told from the pattern of the differences.

    ``missing-group``: one side has nothing of a group at all. ``code-system``: one side writes the same facts in a
    system or with codes that the declaration does not count. ``time-zone``: the same facts a constant time apart.
    ``late-results``: the same facts, known later at one side. ``unit-factor``: the same results, a constant factor
    apart. ``unit-not-converted``: the same results, in a unit without a reviewed conversion.
    """

    MISSING_GROUP = "missing-group"
    CODE_SYSTEM = "code-system"
    TIME_ZONE = "time-zone"
    LATE_RESULTS = "late-results"
    UNIT_FACTOR = "unit-factor"
    UNIT_NOT_CONVERTED = "unit-not-converted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """One cause, in one group; ``facts`` (or patients, of a demographic group) show it.

    ``side``: whose facts are missing, late, or written otherwise; None where both are as likely. ``patch``: what to
    change in the source mapping, empty where the mapping is not the place.
    """

    kind: CauseKind
    group: str
    side: Side | None
    facts: int
    explanation: str
    patch: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What the facts of both sides show: the causes, those with the most facts first; what is rare; what is late."""

    causes: tuple[Cause, ...]
    one_sided: tuple[OneSided, ...]
    lateness: tuple[Lateness, ...]


def find_causes(pairs: Iterable[Pair], spec: FeatureSpec, *, warehouse_zone: tzinfo | None = None) -> Findings:
    """Look for what made the two sides differ.

    Args:
        pairs: per order the EMR's facts, the warehouse's, and the instant; a patient may have several orders.
        spec: the fitted declaration.
        warehouse_zone: in which zone the source mapping reads times, so that a better one can be named.

    Raises:
        SpecNotFitted: the declaration still holds something to be learned.
    """
    groups, categories = side_by_side(pairs, spec)
    causes = [cause for unknown in categories for cause in _unknown_to_one_side(unknown)]
    for group in groups:
        causes += _missing(group) or _patterns(group, warehouse_zone)
    return Findings(
        causes=tuple(sorted(causes, key=lambda cause: -cause.facts)),
        one_sided=tuple(found for group in groups for found in one_sided(group)),
        lateness=tuple(late for group in groups if (late := lateness_of(group)) is not None),
    )


def _unknown_to_one_side(unknown: Unknown) -> Iterator[Cause]:
    for side in Side:
        lacking = unknown.only_known_to[side.other]
        if lacking and lacking >= unknown.patients * _HALF_OF:
            yield Cause(
                kind=CauseKind.MISSING_GROUP,
                group=unknown.group,
                side=side,
                facts=lacking,
                explanation=f"the {_name(side)} does not say it of {lacking} of {unknown.patients} patients of whom "
                f"the {_name(side.other)} does",
            )


def _missing(facts: GroupFacts) -> list[Cause]:
    for side in Side:
        there = sum(row.seen for row in facts.declared(side.other))
        if there and not facts.has_any(side):
            hint = (
                "no such resource, no scope for it, or its codes are of another system"
                if side is Side.EMR
                else "its table is empty, or not mapped"
            )
            return [
                Cause(
                    kind=CauseKind.MISSING_GROUP,
                    group=facts.group.name,
                    side=side,
                    facts=there,
                    explanation=f"the {_name(side)} has nothing of this group, the {_name(side.other)} {there} facts: "
                    + hint,
                )
            ]
    return []


def _patterns(facts: GroupFacts, warehouse_zone: tzinfo | None) -> list[Cause]:
    alone = facts.alone
    causes: list[Cause] = []
    if isinstance(facts.group, ResultGroup):
        units, alone = _units(facts.group.name, alone)
        causes += units
    causes += _code_systems(facts, alone)
    zones = list(_time_zone(facts.group.name, alone, warehouse_zone))
    # Times that are shifted are shifted for when a fact was known as well.
    return [*causes, *(zones or _late(facts))]


def _units(group: str, alone: dict[Side, list[Row]]) -> tuple[list[Cause], dict[Side, list[Row]]]:
    """Explain results of one instant that differ by their unit; give also what remains unexplained."""
    same, emr_left, warehouse_left = paired_by(
        (row for row in alone[Side.EMR] if row.raw is not None),
        (row for row in alone[Side.WAREHOUSE] if row.raw is not None),
        lambda row: (row.patient, row.feature, row.at),
    )
    by_units: dict[tuple[str, str, str], list[tuple[Row, Row]]] = defaultdict(list)
    for emr, warehouse in same:
        by_units[emr.feature or "", emr.unit, warehouse.unit].append((emr, warehouse))
    causes = []
    left = {Side.EMR: emr_left, Side.WAREHOUSE: warehouse_left}
    for (feature, emr_unit, warehouse_unit), pairs in by_units.items():
        cause = None
        if len(pairs) >= FEWEST:
            cause = _unit_cause(group, feature, {Side.EMR: emr_unit, Side.WAREHOUSE: warehouse_unit}, pairs)
        if cause is None:
            left[Side.EMR] += [emr for emr, _ in pairs]
            left[Side.WAREHOUSE] += [warehouse for _, warehouse in pairs]
        else:
            causes.append(cause)
    return causes, left


def _unit_cause(group: str, feature: str, unit: dict[Side, str], pairs: Sequence[tuple[Row, Row]]) -> Cause | None:
    both = f"EMR {unit[Side.EMR] or 'without a unit'}, warehouse {unit[Side.WAREHOUSE] or 'without a unit'}"
    for place, side in enumerate(Side):
        lost = sum(pair[place].value is None and pair[1 - place].value is not None for pair in pairs)
        if lost >= max(FEWEST, _MOST_OF * len(pairs)):
            written = f"{unit[side]!r}" if unit[side] else "no unit"
            return Cause(
                kind=CauseKind.UNIT_NOT_CONVERTED,
                group=group,
                side=side,
                facts=lost,
                explanation=f"{feature}: the {_name(side)}'s results come with {written}, which nothing converts to "
                f"the declared unit ({both})",
            )
    ratios = [emr.value / warehouse.value for emr, warehouse in pairs if emr.value and warehouse.value]
    if len(ratios) < FEWEST:
        return None
    factor = median(ratios)
    alike = sum(abs(ratio / factor - 1) <= _SAME_RATIO for ratio in ratios)
    if abs(factor - 1) <= _SAME_RATIO or alike < _MOST_OF * len(ratios):
        return None
    return Cause(
        kind=CauseKind.UNIT_FACTOR,
        group=group,
        side=None,
        facts=alike,
        explanation=f"{feature}: the EMR's results are {factor:.6g} times the warehouse's ({both})",
    )


def _code_systems(facts: GroupFacts, alone: dict[Side, list[Row]]) -> Iterator[Cause]:
    """Find facts that one side writes with declared codes, the other at the same instant with codes that do not count.

    Results must have the same number as well. Where an instant holds several facts, the same code value tells which.
    """
    is_result = isinstance(facts.group, ResultGroup)
    for side in Side:
        declared, undeclared = alone[side.other], facts.undeclared[side]
        same_code, left, others = paired_by(
            declared, undeclared, lambda row: (row.patient, row.at, row.raw, _plain(row.code))
        )
        by_instant = Counter((row.patient, row.at, row.raw) for row in others)
        alike, _, _ = paired_by(
            left,
            (row for row in others if is_result or by_instant[row.patient, row.at, row.raw] == 1),
            lambda row: (row.patient, row.at, row.raw),
        )
        for pairs, same_value in ((same_code, True), (alike, False)):
            if is_result and not same_value:
                pairs = [pair for pair in pairs if pair[0].raw is not None]
            yield from _by_system(facts.group, side, pairs, same_value=same_value)


def _by_system(
    group: WindowedGroup, side: Side, pairs: Sequence[tuple[Row, Row]], *, same_value: bool
) -> Iterator[Cause]:
    by_system: dict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    for ours, theirs in ((declared.code, undeclared.code) for declared, undeclared in pairs):
        if ours is not None and theirs is not None:
            by_system[ours.system, theirs.system][ours.value, theirs.value] += 1
    for (system, written), found in by_system.items():
        # Codes that have nothing in common must meet again and again: once is chance.
        often = Counter({codes: n for codes, n in found.items() if same_value or n >= FEWEST})
        count = often.total()
        if count < FEWEST or (not same_value and system == written):
            continue
        code, other_code = often.most_common(1)[0][0]
        patch: dict[str, Any] = {}
        if same_value and side is Side.WAREHOUSE:
            patch = {"local_systems": {_table(group): system}}
        what = "the same codes" if same_value else f"codes of its own, such as {other_code} for {code},"
        yield Cause(
            kind=CauseKind.CODE_SYSTEM,
            group=group.name,
            side=side,
            facts=count,
            explanation=f"the {_name(side)} writes {what} in {written}, where the declaration and the "
            f"{_name(side.other)} have {system}",
            patch=patch,
        )


def _time_zone(group: str, alone: dict[Side, list[Row]], warehouse_zone: tzinfo | None) -> Iterator[Cause]:
    """Find the one distance, or two that are an hour apart, at which most of the lonely facts have a counterpart."""
    held: dict[tuple[str, str | None, float | None], set[datetime]] = defaultdict(set)
    for row in alone[Side.WAREHOUSE]:
        held[row.patient, row.feature, row.value].add(row.at)
    votes: Counter[timedelta] = Counter()
    seen_at: dict[timedelta, datetime] = {}
    for row in alone[Side.EMR]:
        apart = {row.at - at for at in held.get((row.patient, row.feature, row.value), ())}
        of_zones = [d for d in apart if d and abs(d) <= _WIDEST_ZONES and not d % _ZONE_STEP]
        votes.update(of_zones)
        seen_at.update(dict.fromkeys(of_zones, row.at))
    if not votes:
        return
    best, count = votes.most_common(1)[0]
    offsets = [best]
    summer = max((best + _SUMMER_TIME, best - _SUMMER_TIME), key=lambda d: votes[d])
    if count < _MOST_OF * len(alone[Side.EMR]) and summer and votes[summer] >= FEWEST:
        offsets.append(summer)
        count += votes[summer]
    if count < max(FEWEST, _HALF_OF * len(alone[Side.EMR])):
        return
    apart_text = " or ".join(_hours(offset) for offset in sorted(offsets))
    later = "later" if best > timedelta(0) else "earlier"
    patch: dict[str, Any] = {}
    hint = "the two sides read times in different zones"
    if len(offsets) > 1:
        hint += "; the two distances are an hour apart: name a zone with summer time, such as America/New_York"
    elif warehouse_zone is not None:
        read_with = seen_at[best].astimezone(warehouse_zone).utcoffset() or timedelta(0)
        zone = _offset_text(read_with - best)
        patch = {"time_zone": zone}
        hint += f"; the warehouse's times fit if they are read as {zone}"
    yield Cause(
        kind=CauseKind.TIME_ZONE,
        group=group,
        side=None,
        facts=count,
        explanation=f"the same facts are {apart_text} {later} in the EMR than in the warehouse: {hint}",
        patch=patch,
    )


def _late(facts: GroupFacts) -> Iterator[Cause]:
    late = lateness_of(facts)
    if late is None or max(late.emr_later, late.warehouse_later) < max(FEWEST, _SOME_OF * late.joined):
        return
    side = Side.EMR if late.emr_later >= late.warehouse_later else Side.WAREHOUSE
    patch: dict[str, Any] = {}
    assumed = Counter(warehouse.known_at - warehouse.at for _, warehouse in facts.matched)
    if isinstance(facts.group, LabGroup) and assumed.most_common(1)[0][1] >= _MOST_OF * late.joined:
        # One delay for all is what a mapping assumes where nobody recorded the release.
        real = median((emr.known_at - emr.at) / MINUTE for emr, _ in facts.matched)
        patch = {"result_delay_minutes": max(0, round(real))}
    yield Cause(
        kind=CauseKind.LATE_RESULTS,
        group=facts.group.name,
        side=side,
        facts=late.emr_later if side is Side.EMR else late.warehouse_later,
        explanation=f"of {late.joined} facts that both have, {late.emr_later} are known later in the EMR and "
        f"{late.warehouse_later} later in the warehouse; the median lag is {abs(late.median_minutes):.0f} minutes",
        patch=patch,
    )


def _plain(code: Code | None) -> str | None:
    """Give a code's value without what systems write differently: the dots and the case of letters."""
    return None if code is None else code.value.replace(".", "").casefold()


def _table(group: WindowedGroup) -> str:
    return next(table for kind, table in _TABLE_OF_GROUP if isinstance(group, kind))


def _name(side: Side) -> str:
    return "EMR" if side is Side.EMR else "warehouse"


def _hours(offset: timedelta) -> str:
    hours = abs(offset) / timedelta(hours=1)
    return f"{hours:g} h"


def _offset_text(offset: timedelta) -> str:
    minutes = abs(offset) // MINUTE
    return f"{'-' if offset < timedelta(0) else '+'}{minutes // 60:02d}:{minutes % 60:02d}"
