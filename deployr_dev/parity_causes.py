"""Why the two sides differ: each cause that is known by its pattern, named, with what to change in the mapping."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from statistics import median
from types import MappingProxyType
from typing import Any

from deployr_core.codes import Code
from deployr_core.features import FeatureSpec, LabGroup, ResultGroup, WindowedGroup
from deployr_dev.parity_elements import missing_elements, missing_facts
from deployr_dev.parity_facts import Chart, GroupFacts, Pair, Row, Side, Unknown, paired_by, side_by_side
from deployr_dev.parity_kinds import FEWEST, HALF_OF, MOST_OF, SOME_OF, Cause, CauseKind, name_of, share_of, table_of
from deployr_dev.parity_tallies import MINUTE, Lateness, OneSided, lateness_of, one_sided
from deployr_dev.parity_units import units

_ZONE_STEP, _WIDEST_ZONES, _SUMMER_TIME = timedelta(minutes=15), timedelta(hours=26), timedelta(hours=1)
NO_CHARTS: Mapping[str, Chart] = MappingProxyType({})
"""Where nothing but what a model is served with was read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What the facts of both sides show: the causes, those with the most facts first; what is rare; what is late."""

    causes: tuple[Cause, ...]
    one_sided: tuple[OneSided, ...]
    lateness: tuple[Lateness, ...]


def find_causes(
    pairs: Iterable[Pair],
    spec: FeatureSpec,
    *,
    charts: Mapping[str, Chart] = NO_CHARTS,
    warehouse_zone: tzinfo | None = None,
) -> Findings:
    """Look for what made the two sides differ.

    Args:
        pairs: per order the EMR's facts, the warehouse's, and the instant; a patient may have several orders.
        spec: the fitted declaration.
        charts: by the EMR's patient id, all that it holds of these patients, as far as it was read.
        warehouse_zone: in which zone the source mapping reads times, so that a better one can be named.

    Raises:
        SpecNotFitted: the declaration still holds something to be learned.
    """
    groups, categories = side_by_side(pairs, spec, charts=charts)
    causes = [cause for unknown in categories for cause in _unknown_to_one_side(unknown)]
    for group in groups:
        causes += _causes_of(group, warehouse_zone)
    return Findings(
        causes=tuple(sorted(causes, key=lambda cause: -cause.facts)),
        one_sided=tuple(found for group in groups for found in one_sided(group)),
        lateness=tuple(late for group in groups if (late := lateness_of(group)) is not None),
    )


def _unknown_to_one_side(unknown: Unknown) -> Iterator[Cause]:
    for side in Side:
        lacking, known = unknown.only_known_to[side.other], unknown.known_to[side.other]
        if lacking < max(FEWEST, SOME_OF * known) and lacking < HALF_OF * unknown.patients:
            continue
        if not lacking:
            continue
        yield Cause(
            kind=CauseKind.MISSING_GROUP if lacking == known else CauseKind.MISSING_ELEMENT,
            group=unknown.group,
            side=side,
            facts=lacking,
            of=known,
            explanation=f"the {name_of(side)} does not say it of {lacking} of {known} patients of whom the "
            f"{name_of(side.other)} does ({share_of(lacking, known)})",
        )


def _causes_of(facts: GroupFacts, warehouse_zone: tzinfo | None) -> list[Cause]:
    causes, alone = missing_elements(facts)
    if not causes and (gone := _missing(facts)):
        return gone
    if isinstance(facts.group, ResultGroup):
        of_units, alone = units(facts, alone)
        causes += of_units
    causes += _code_systems(facts, alone)
    # Times that are shifted are shifted for when a fact was known as well.
    causes += list(_time_zone(facts, alone, warehouse_zone)) or list(_late(facts))
    return causes or list(missing_facts(facts))


def _missing(facts: GroupFacts) -> list[Cause]:
    for side in Side:
        there = sum(row.seen for row in facts.declared(side.other))
        if there and not facts.has_any(side):
            hint = "no such resource, or no scope for it" if side is Side.EMR else "its table is empty, or not mapped"
            return [
                Cause(
                    kind=CauseKind.MISSING_GROUP,
                    group=facts.group.name,
                    side=side,
                    facts=there,
                    of=there,
                    explanation=f"the {name_of(side)} has nothing of this group, the {name_of(side.other)} {there} "
                    f"facts: {hint}",
                )
            ]
    return []


def _code_systems(facts: GroupFacts, alone: dict[Side, list[Row]]) -> Iterator[Cause]:
    """Find facts that one side writes with declared codes, the other at the same instant with codes that do not count.

    Results must have the same number as well. Where an instant holds several facts, the same code value tells which.
    """
    is_result = isinstance(facts.group, ResultGroup)
    for side in Side:
        declared, undeclared = alone[side.other], facts.undeclared[side]
        both = len(facts.matched)
        known = {row.code for row in (*facts.declared(side.other), *facts.undeclared[side.other])}
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
            if not same_value:
                # A code that both sides know is another fact, not the same one written otherwise.
                pairs = [pair for pair in pairs if pair[1].code not in known]
            if is_result and not same_value:
                pairs = [pair for pair in pairs if pair[0].raw is not None]
            yield from _by_system(facts.group, side, pairs, both=both, same_value=same_value)


def _by_system(
    group: WindowedGroup, side: Side, pairs: Sequence[tuple[Row, Row]], *, both: int, same_value: bool
) -> Iterator[Cause]:
    by_system: dict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    for ours, theirs in ((declared.code, undeclared.code) for declared, undeclared in pairs):
        if ours is not None and theirs is not None:
            by_system[ours.system, theirs.system][ours.value, theirs.value] += 1
    for (system, written), found in by_system.items():
        # Codes that have nothing in common must meet again and again: once is chance.
        often = Counter({codes: n for codes, n in found.items() if same_value or n >= FEWEST})
        count = often.total()
        if count < FEWEST:
            continue
        code, other_code = often.most_common(1)[0][0]
        patch: dict[str, Any] = {}
        if same_value and side is Side.WAREHOUSE:
            patch = {"local_systems": {table_of(group): system}}
        example = f"{other_code} for {code}"
        what = "the same codes" if same_value else f"codes of its own, such as {example},"
        yield Cause(
            kind=CauseKind.CODE_SYSTEM,
            group=group.name,
            side=side,
            facts=count,
            of=count + both,
            explanation=f"the {name_of(side)} writes {count} of {count + both} facts with {what} in {written}, where "
            f"the declaration and the {name_of(side.other)} have {system}",
            example=example,
            patch=patch,
        )


def _time_zone(facts: GroupFacts, alone: dict[Side, list[Row]], warehouse_zone: tzinfo | None) -> Iterator[Cause]:
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
    if count < MOST_OF * len(alone[Side.EMR]) and summer and votes[summer] >= FEWEST:
        offsets.append(summer)
        count += votes[summer]
    if count < max(FEWEST, HALF_OF * len(alone[Side.EMR])):
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
        group=facts.group.name,
        side=None,
        facts=count,
        of=len(alone[Side.EMR]) + len(facts.matched),
        example=apart_text,
        explanation=f"the same facts are {apart_text} {later} in the EMR than in the warehouse: {hint}",
        patch=patch,
    )


def _late(facts: GroupFacts) -> Iterator[Cause]:
    late = lateness_of(facts)
    if late is None or max(late.emr_later, late.warehouse_later) < max(FEWEST, SOME_OF * late.joined):
        return
    side = Side.EMR if late.emr_later >= late.warehouse_later else Side.WAREHOUSE
    patch: dict[str, Any] = {}
    assumed = Counter(warehouse.known_at - warehouse.at for _, warehouse in facts.matched)
    if isinstance(facts.group, LabGroup) and assumed.most_common(1)[0][1] >= MOST_OF * late.joined:
        # One delay for all is what a mapping assumes where nobody recorded the release.
        real = median((emr.known_at - emr.at) / MINUTE for emr, _ in facts.matched)
        patch = {"result_delay_minutes": max(0, round(real))}
    later = (emr if side is Side.EMR else other for emr, other in facts.matched if _is_later(emr, other, side))
    yield Cause(
        kind=CauseKind.LATE_RESULTS,
        group=facts.group.name,
        side=side,
        facts=late.emr_later if side is Side.EMR else late.warehouse_later,
        of=late.joined,
        example=Counter(row.feature or "" for row in later).most_common(1)[0][0],
        explanation=f"of {late.joined} facts that both have, {late.emr_later} are known later in the EMR and "
        f"{late.warehouse_later} later in the warehouse; the median lag is {abs(late.median_minutes):.0f} minutes",
        patch=patch,
    )


def _plain(code: Code | None) -> str | None:
    """Give a code's value without what systems write differently: the dots and the case of letters."""
    return None if code is None else code.value.replace(".", "").casefold()


def _is_later(emr: Row, warehouse: Row, side: Side) -> bool:
    return emr.known_at > warehouse.known_at if side is Side.EMR else warehouse.known_at > emr.known_at


def _hours(offset: timedelta) -> str:
    hours = abs(offset) / timedelta(hours=1)
    return f"{hours:g} h"


def _offset_text(offset: timedelta) -> str:
    minutes = abs(offset) // MINUTE
    return f"{'-' if offset < timedelta(0) else '+'}{minutes // 60:02d}:{minutes % 60:02d}"
