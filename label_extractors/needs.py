"""What must be read of one patient so that all of its packets can be labelled, by whichever rules. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from deployr_core.codes import LOINC, Code
from deployr_core.label_rules import (
    DiagnosisInWindow,
    FhirPathRule,
    LabComponent,
    LabelRule,
    LabPanel,
    LabRule,
    VisitRule,
    deciding_components,
)
from deployr_serve.core.outcome_source import OutcomeNeeds
from label_extractors.rules import Asked

_A_DAY = timedelta(days=1)


def needs_of(asked: Sequence[Asked]) -> OutcomeNeeds:
    """Give the needs of some packets of one patient together; there must be at least one."""
    of_results = [each for each in asked if isinstance(each.rule, LabRule)]
    rules = {id(each.rule): each.rule for each in asked}.values()
    codes = [Code(LOINC, component) for rule in rules for component in deciding_components(rule)]
    searches = {search.key: search for rule in rules if isinstance(rule, FhirPathRule) for search in rule.searches}
    return OutcomeNeeds(
        since=min(each.as_of - _before(each.rule) for each in asked),
        order_ids=tuple(dict.fromkeys(each.subject.order_id for each in of_results if each.subject.order_id)),
        codes=tuple(dict.fromkeys(codes)),
        stays=any(isinstance(rule, VisitRule | DiagnosisInWindow) for rule in rules),
        diagnoses=any(isinstance(rule, DiagnosisInWindow) for rule in rules),
        searches=tuple(searches.values()),
    )


def _before(rule: LabelRule) -> timedelta:
    """Give how long before the index time what decides may be dated: an added test is of an older specimen."""
    if isinstance(rule, LabComponent | LabPanel):
        return max(_A_DAY, timedelta(hours=rule.window_hours))
    return _A_DAY
