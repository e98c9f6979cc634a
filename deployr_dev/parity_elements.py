"""What the EMR holds and does not say: facts whose date, code, number or range is missing, and facts that are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from deployr_core.features import ResultGroup
from deployr_dev.parity_facts import GroupFacts, Row, Side, paired_by
from deployr_dev.parity_kinds import FEWEST, SOME_OF, Cause, CauseKind, coded_by, dated_by, name_of, share_of

_Pairs = Sequence[tuple[Row, Row]]


def missing_elements(facts: GroupFacts) -> tuple[list[Cause], dict[Side, list[Row]]]:
    """Find facts of the warehouse that the EMR has without the element that makes them count.

    Give also what remains without a counterpart.
    """
    group, lonely, ours = facts.group, facts.alone[Side.WAREHOUSE], facts.alone[Side.EMR]
    is_result = isinstance(group, ResultGroup)
    undated, _, lonely = paired_by(
        facts.undated,
        lonely,
        (lambda row: (row.patient, row.feature, row.at)) if is_result else (lambda row: (row.patient, row.feature)),
    )
    uncoded, _, lonely = paired_by(
        (row for row in facts.undeclared[Side.EMR] if row.code is None),
        lonely,
        lambda row: (row.patient, row.at, row.raw),
    )
    unvalued: _Pairs = []
    if is_result:
        unvalued, _, _ = paired_by(
            (row for row in ours if row.raw is None),
            (row for row in lonely if row.raw is not None),
            lambda row: (row.patient, row.feature, row.at),
        )
        explained = {id(row) for pair in unvalued for row in pair}
        lonely = [row for row in lonely if id(row) not in explained]
        ours = [row for row in ours if id(row) not in explained]
    unflagged = [(emr, other) for emr, other in facts.matched if emr.unflagged]
    unranged = [(emr, other) for emr, other in facts.matched if other.ranged and not emr.ranged]
    found = (
        (dated_by(group), undated, "so it is not known since when they could be seen"),
        (coded_by(group), uncoded, "so they count for nothing"),
        ("Observation.value[x]", unvalued, "so they are results without a number"),
        ("Observation.referenceRange", unranged, "which no feature needs, and every label does"),
        (
            "Observation.interpretation",
            unflagged,
            "which lie outside their range, and need it where that is missing too",
        ),
    )
    both = len(facts.matched) + len(undated) + len(uncoded) + len(unvalued)
    causes = [cause for element, pairs, so in found for cause in _without(facts, element, pairs, of=both, so=so)]
    return causes, {Side.EMR: ours, Side.WAREHOUSE: lonely}


def missing_facts(facts: GroupFacts) -> Iterator[Cause]:
    """Find a side that has nothing at all in the place of some facts that orders could see at the other."""
    for side in Side:
        seen = [row for row in facts.declared(side.other) if row.seen]
        gone = [row for row in facts.alone[side.other] if row.seen]
        if len(gone) < max(FEWEST, SOME_OF * len(seen)):
            continue
        code, count = _most_common(gone)
        yield Cause(
            kind=CauseKind.MISSING_FACTS,
            group=facts.group.name,
            side=side,
            facts=len(gone),
            of=len(seen),
            explanation=f"the {name_of(side)} lacks {len(gone)} of {len(seen)} facts that orders could see in the "
            f"{name_of(side.other)} ({share_of(len(gone), len(seen))}), most often {code} ({count})",
            example=code,
        )


def _without(facts: GroupFacts, element: str, pairs: _Pairs, *, of: int, so: str) -> Iterator[Cause]:
    if len(pairs) < max(FEWEST, SOME_OF * of):
        return
    code, count = _most_common([warehouse for _, warehouse in pairs])
    yield Cause(
        kind=CauseKind.MISSING_ELEMENT,
        group=facts.group.name,
        side=Side.EMR,
        facts=len(pairs),
        of=of,
        explanation=f"{element} is missing in {len(pairs)} of {of} of the EMR's resources "
        f"({share_of(len(pairs), of)}), {so}; most often of {code} ({count})",
        example=f"{element} of {code}",
    )


def _most_common(rows: Sequence[Row]) -> tuple[str, int]:
    (feature, count), *_ = Counter(row.feature or "" for row in rows).most_common(1)
    return feature.rpartition("|")[2], count
