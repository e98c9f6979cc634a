"""Are later patients like those of before: what parity cannot show, because both sides say the same of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from math import erfc, log1p, sqrt
from statistics import fmean, stdev, variance

from deployr_core.facts import PatientFacts
from deployr_core.features import FeatureSpec, LabGroup
from deployr_core.layout import ResultLayout, layout_of
from deployr_core.units import canonical_value, conversion_factor
from deployr_dev.parity_kinds import Cause, CauseKind

FEWEST_PATIENTS = 20
"""Of each period: below it nothing is said of a test."""

HOW_MANY = "results seen"
"""Stands among the tests for how many results an order sees, its logarithm: of who goes home sooner, less is known."""

_CHANCE = 0.01
"""How often a change may be named where there is none, over all tests of a group together."""


def case_mix(
    orders: Iterable[tuple[PatientFacts, datetime]], spec: FeatureSpec, *, reference_until: datetime
) -> tuple[Cause, ...]:
    """Compare what orders before an instant saw with what later ones do: of each test the last result, and how many.

    Of each patient one order a period counts, the last: results of one patient are alike. Means are compared (Welch,
    normal approximation), corrected for the number of tests (Bonferroni). Of the groups of laboratory tests the one
    that looks back furthest is compared.

    Args:
        orders: the facts of one side, and the instant of the order, in any sequence. The warehouse's, if the EMR's
            interface is not to be taken for a change of the patients. No facts are kept.
        spec: the fitted declaration.
        reference_until: the first instant of the later period.

    Raises:
        SpecNotFitted: the declaration still holds something to be learned.
    """
    layouts = [
        group
        for group in layout_of(spec).groups
        if isinstance(group, ResultLayout) and isinstance(group.group, LabGroup)
    ]
    if not layouts:
        return ()
    layout = max(layouts, key=lambda each: each.lookback)
    before: dict[str, tuple[datetime, dict[str, float]]] = {}
    after: dict[str, tuple[datetime, dict[str, float]]] = {}
    for facts, as_of in orders:
        period = before if as_of < reference_until else after
        if facts.patient_id not in period or period[facts.patient_id][0] < as_of:
            period[facts.patient_id] = as_of, _last_results(layout, facts, as_of)
    changed = []
    names = (*(analyte.analyte.code for analyte in layout.analytes), HOW_MANY)
    for code in names:
        earlier = [held[code] for _, held in before.values() if code in held]
        later = [held[code] for _, held in after.values() if code in held]
        if min(len(earlier), len(later)) >= FEWEST_PATIENTS and _chance(earlier, later) < _CHANCE / len(names):
            changed.append((code, (fmean(later) - fmean(earlier)) / stdev(earlier)))
    if not changed:
        return ()
    changed.sort(key=lambda each: -abs(each[1]))
    said = ", ".join(f"{code} {deviations:+.2f}" for code, deviations in changed)
    return (
        Cause(
            kind=CauseKind.CASE_MIX,
            group=layout.group.name,
            side=None,
            facts=len(after),
            of=len(before) + len(after),
            explanation=f"the {len(after)} patients from {reference_until:%Y-%m-%d} on are not those of before "
            f"({len(before)} patients), and both sides say so alike: what an order sees differs, in standard "
            f"deviations: {said}",
            example=changed[0][0],
        ),
    )


def _last_results(layout: ResultLayout, facts: PatientFacts, as_of: datetime) -> dict[str, float]:
    """Give the last number of each test that an order could see, in the declared unit, and how many results in all."""
    seen = 0
    found: dict[str, tuple[datetime, float]] = {}
    for lab in facts.labs:
        if lab.value is None or not as_of - layout.lookback <= lab.at < as_of or lab.known_at >= as_of:
            continue
        seen += 1
        for code in lab.codes:
            if (place := layout.reading.place_of.get(code)) is None:
                continue
            analyte = layout.analytes[place].analyte
            factor = conversion_factor(code, unit=lab.unit, wanted=analyte.unit)
            value = None if factor is None else canonical_value(lab.value, factor)
            if value is not None and (analyte.code not in found or lab.at > found[analyte.code][0]):
                found[analyte.code] = lab.at, value
    return {**{code: value for code, (_, value) in found.items()}, HOW_MANY: log1p(seen)}


def _chance(earlier: Sequence[float], later: Sequence[float]) -> float:
    """Give how likely means at least so far apart are where there is no difference."""
    spread = sqrt(variance(earlier) / len(earlier) + variance(later) / len(later))
    return erfc(abs(fmean(later) - fmean(earlier)) / spread / sqrt(2)) if spread else 1.0
