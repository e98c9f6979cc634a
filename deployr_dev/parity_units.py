"""Results of one instant that the two sides write as different numbers: units, and analysers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from deployr_dev.parity_facts import GroupFacts, Row, Side, paired_by
from deployr_dev.parity_kinds import FEWEST, MOST_OF, Cause, CauseKind, name_of, share_of

_SAME_RATIO = 0.02
_Pairs = Sequence[tuple[Row, Row]]


def units(facts: GroupFacts, alone: Mapping[Side, Sequence[Row]]) -> tuple[list[Cause], dict[Side, list[Row]]]:
    """Explain results of one instant that differ by their unit or a factor; give also what remains unexplained."""
    apart, emr_left, warehouse_left = paired_by(
        (row for row in alone[Side.EMR] if row.raw is not None),
        (row for row in alone[Side.WAREHOUSE] if row.raw is not None),
        lambda row: (row.patient, row.feature, row.at),
    )
    left = {Side.EMR: emr_left, Side.WAREHOUSE: warehouse_left}
    differing, equal = _by_units(apart), _by_units(facts.matched)
    causes = []
    for key in {**equal, **differing}:
        feature, emr_unit, warehouse_unit = key
        written = {Side.EMR: emr_unit, Side.WAREHOUSE: warehouse_unit}
        pairs, same = differing.get(key, []), equal.get(key, [])
        cause = None
        if len(pairs) >= FEWEST:
            cause = _unit_cause(facts.group.name, feature, written, pairs, equal=len(same))
        if cause is None and len(pairs) + len(same) >= FEWEST:
            cause = _other_unit(facts.group.name, feature, written, pairs, same)
        if cause is not None:
            causes.append(cause)
        else:
            left[Side.EMR] += [emr for emr, _ in pairs]
            left[Side.WAREHOUSE] += [warehouse for _, warehouse in pairs]
    return causes, left


def _by_units(pairs: _Pairs) -> dict[tuple[str, str, str], list[tuple[Row, Row]]]:
    found: dict[tuple[str, str, str], list[tuple[Row, Row]]] = defaultdict(list)
    for emr, warehouse in pairs:
        found[emr.feature or "", emr.unit, warehouse.unit].append((emr, warehouse))
    return dict(found)


def _unit_cause(group: str, feature: str, unit: Mapping[Side, str], pairs: _Pairs, *, equal: int) -> Cause | None:
    both = f"EMR {unit[Side.EMR] or 'without a unit'}, warehouse {unit[Side.WAREHOUSE] or 'without a unit'}"
    everything = len(pairs) + equal
    for place, side in enumerate(Side):
        lost = sum(pair[place].value is None and pair[1 - place].value is not None for pair in pairs)
        if lost >= max(FEWEST, MOST_OF * len(pairs)):
            written = f"{unit[side]!r}" if unit[side] else "no unit"
            return Cause(
                kind=CauseKind.UNIT_NOT_CONVERTED,
                group=group,
                side=side,
                facts=lost,
                of=everything,
                example=feature,
                explanation=f"{feature}: {lost} of {everything} of the {name_of(side)}'s results come with {written}, "
                f"which nothing converts to the declared unit ({both})",
            )
    ratios = [emr.value / warehouse.value for emr, warehouse in pairs if emr.value and warehouse.value]
    if len(ratios) < FEWEST:
        return None
    factor = median(ratios)
    alike = sum(abs(ratio / factor - 1) <= _SAME_RATIO for ratio in ratios)
    if abs(factor - 1) <= _SAME_RATIO or alike < MOST_OF * len(ratios):
        return None
    is_all = len(pairs) >= MOST_OF * everything
    said = f"are {factor:.6g} times the warehouse's ({both})"
    return Cause(
        kind=CauseKind.UNIT_FACTOR if is_all else CauseKind.OTHER_ANALYSER,
        group=group,
        side=None,
        facts=alike,
        of=everything,
        example=feature,
        explanation=f"{feature}: the EMR's results {said}"
        if is_all
        else f"{feature}: {share_of(len(pairs), everything)} of the EMR's {everything} results {said}, the others "
        "equal: one analyser of several, on a ward or since a day",
    )


def _other_unit(group: str, feature: str, unit: Mapping[Side, str], apart: _Pairs, same: _Pairs) -> Cause | None:
    """Name a unit that converts where the numbers are others; a unit that is only spelled otherwise is none."""
    ratios = [emr.raw / warehouse.raw for emr, warehouse in (*apart, *same) if emr.raw and warehouse.raw]
    if unit[Side.EMR] == unit[Side.WAREHOUSE] or not ratios or abs(median(ratios) - 1) <= _SAME_RATIO:
        return None
    rounded = [abs(emr.value / warehouse.value - 1) for emr, warehouse in apart if emr.value and warehouse.value]
    if rounded and median(rounded) > _SAME_RATIO:
        return None
    cost = (
        f"{len(apart)} of {len(apart) + len(same)} lose digits by it, {max(rounded):.2%} at most"
        if rounded
        else "to the last digit: it costs nothing"
    )
    return Cause(
        kind=CauseKind.OTHER_UNIT,
        group=group,
        side=None,
        facts=len(ratios),
        of=len(apart) + len(same),
        example=feature,
        explanation=f"{feature}: the EMR gives {unit[Side.EMR]}, the warehouse {unit[Side.WAREHOUSE]}; both are "
        f"converted, {cost}",
    )
