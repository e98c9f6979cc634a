"""What happened: from later facts to a packet's label, by every rule. Pure; every edge of their windows is tested.

Training decides by the same code (`deployr_core.labels`, `deployr_core.visit_labels`). What is added here is what only
service must tell: not yet, and never.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import assert_never

import msgspec

from deployr_core.facts import OrderStatus
from deployr_core.label_rules import (
    DiagnosisInWindow,
    FhirPathAnswer,
    FhirPathRule,
    IcuTransfer,
    InHospitalMortality,
    LabelRule,
    LabRule,
    Mortality,
    ripe_at,
)
from deployr_core.labels import Answered, Unanswered, label_of_results
from deployr_core.packet import Censored, LabelOutcome, NotYet, Observed, Subject
from deployr_core.visit_labels import Course, Stay, label_of_diagnoses, label_of_visit
from deployr_serve.core.outcome_source import OutcomeFacts

_MERGED, _UNDATED = "record-merged", "undated-death"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One packet's question. ``visit_classes``: which visits count as a readmission; empty for all."""

    rule: LabelRule
    subject: Subject = field(repr=False)
    as_of: datetime
    visit_classes: tuple[str, ...] = ()


def label_of(asked: Asked, facts: OutcomeFacts, *, now: datetime) -> LabelOutcome:
    """Read one packet's label: observed where facts decide it, censored where none will, not yet otherwise.

    Args:
        asked: the rule, and what was predicted when.
        facts: what has become of the patient; what could not be known at ``now`` is not looked at.
        now: when the question is asked.

    Raises:
        RuleFailed: an expression cannot be evaluated over what was found.
    """
    ripe = ripe_at(asked.rule, asked.as_of)
    found = _read(asked, facts, now=now)
    if isinstance(found, Answered):
        return _observed(asked, found, facts)
    if found.may_come or found is Unanswered.NO_VISIT:
        order = facts.orders.get(asked.subject.order_id or "")
        if found is Unanswered.NO_RESULT and order is not None and order.status is OrderStatus.CANCELLED:
            return Censored(reason="order-cancelled")
        if now < ripe:
            return NotYet(ripe_at=ripe)
        return Censored(reason=_why_never(asked, found, facts))
    return Censored(reason=found.value)


def _read(asked: Asked, facts: OutcomeFacts, *, now: datetime) -> Answered | Unanswered:
    rule, as_of = asked.rule, asked.as_of
    if isinstance(rule, LabRule):
        released = (lab for lab in facts.labs if lab.known_at <= now)
        return label_of_results(rule, released, as_of=as_of, order_id=asked.subject.order_id)
    if isinstance(rule, FhirPathRule):
        return _by_expression(rule, facts, as_of=as_of, now=now)
    course = _course(facts, now=now)
    if isinstance(rule, DiagnosisInWindow):
        return label_of_diagnoses(rule, (each for each in facts.diagnoses if each.known_at <= now), course, as_of=as_of)
    visit = _visit(course.stays, asked.subject.encounter_id, as_of=as_of)
    return label_of_visit(rule, course, visit=visit, as_of=as_of, visit_classes=asked.visit_classes)


def _observed(asked: Asked, found: Answered, facts: OutcomeFacts) -> Observed | Censored:
    """Take an answer, unless it is that nothing happened, and the record cannot show what did."""
    rule = asked.rule
    if not found.sources and not isinstance(rule, FhirPathRule):
        if facts.is_merged:
            return Censored(reason=_MERGED)
        of_death = isinstance(rule, Mortality | DiagnosisInWindow) or (isinstance(rule, IcuTransfer) and rule.or_death)
        if facts.died_undated and of_death:
            return Censored(reason=_UNDATED)
    if isinstance(rule, InHospitalMortality) and found.value == 0.0 and facts.died_undated:
        # The visit may say that the patient left alive; one that says nothing leaves it open.
        visit = next((stay for stay in facts.stays if stay.visit_id in found.sources), None)
        if visit is None or visit.discharged_to is None:
            return Censored(reason=_UNDATED)
    return Observed(value=found.value, at=found.at, known_at=found.known_at, source_id=" ".join(found.sources))


def _why_never(asked: Asked, found: Unanswered, facts: OutcomeFacts) -> str:
    """Say why the answer never came, as precisely as the record tells."""
    if facts.is_merged:
        return _MERGED
    if found is not Unanswered.NO_RESULT:
        return found.value
    order_id = asked.subject.order_id
    if facts.died_undated or (facts.death is not None and facts.death.earliest < ripe_at(asked.rule, asked.as_of)):
        return Unanswered.DIED.value
    if order_id is not None and order_id not in facts.orders:
        return "order-not-visible"
    return found.value


def _course(facts: OutcomeFacts, *, now: datetime) -> Course:
    """Give what could be known of the patient by now; an end that is still to come is none."""
    stays = tuple(
        Stay(
            visit_id=stay.visit_id,
            classes=stay.classes,
            began_at=stay.began_at,
            ended_at=stay.ended_at if stay.ended_at is not None and stay.ended_at <= now else None,
            discharged_to=stay.discharged_to,
            known_at=stay.known_at,
        )
        for stay in facts.stays
        if stay.known_at <= now
    )
    death = facts.death if facts.death is not None and facts.death.earliest <= now else None
    return Course(stays=stays, death=death, known_until=now)


def _visit(stays: Iterable[Stay], encounter_id: str | None, *, as_of: datetime) -> Stay | None:
    """Find the visit that was predicted; where the request named none, the only one that holds the index time."""
    if encounter_id is not None:
        return next((stay for stay in stays if stay.visit_id == encounter_id), None)
    holding = [stay for stay in stays if stay.began_at <= as_of and (stay.ended_at is None or as_of <= stay.ended_at)]
    return holding[0] if len(holding) == 1 else None


def _by_expression(rule: FhirPathRule, facts: OutcomeFacts, *, as_of: datetime, now: datetime) -> Answered | Unanswered:
    until = as_of + timedelta(hours=rule.hours)
    if now < until:
        return Unanswered.NOT_FOLLOWED
    # Loaded when the rule was read; imported here so that nobody else pays for it.
    from deployr_core.fhirpath import compiled, number, truth

    entries = [
        {"resource": msgspec.json.decode(body)}
        for search in rule.searches
        for body in facts.resources.get(search.key, ())
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    found = compiled(rule.expression)(bundle, as_of=as_of, until=until)
    match rule.answer:
        case FhirPathAnswer.BOOLEAN:
            value = truth(found)
        case FhirPathAnswer.NUMBER:
            value = number(found)
        case _:
            assert_never(rule.answer)
    if value is None:
        return Unanswered.NO_ANSWER
    return Answered(value=value, at=until, known_at=until)
