"""What happened: rules that turn later facts into observed labels. Pure; every edge of their windows is tested."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from deployr_core.facts import Lab, Order, OrderStatus
from deployr_core.label_rules import LabRule
from deployr_core.labels import Answered, Unanswered, label_of_results
from deployr_core.packet import Censored, LabelOutcome, NotYet, Observed


def ripe_at(rule: LabRule, as_of: datetime) -> datetime:
    """Give the instant from which on no further result can count."""
    return as_of + timedelta(hours=rule.window_hours)


def lab_label(
    rule: LabRule,
    *,
    as_of: datetime,
    order_id: str | None,
    labs: Iterable[Lab],
    order: Order | None,
    now: datetime,
) -> LabelOutcome:
    """Read one packet's label: observed if results decide it, censored if none will, not yet otherwise.

    Args:
        rule: which results decide; the same rule made the training labels.
        as_of: when the prediction was made.
        order_id: which order was predicted; None if the trigger named none.
        labs: the patient's results around and after ``as_of``; what was released after ``now`` is not looked at.
        order: the order as it stands now; None if the EMR shows none.
        now: when the question is asked.
    """
    released = (lab for lab in labs if lab.known_at <= now)
    match label_of_results(rule, released, as_of=as_of, order_id=order_id):
        case Answered() as found:
            sources = " ".join(result.fact_id for result in found.results)
            return Observed(value=found.value, at=found.at, known_at=found.known_at, source_id=sources)
        case Unanswered.NO_RESULT:
            if order is not None and order.status is OrderStatus.CANCELLED:
                return Censored(reason="order-cancelled")
            if now < ripe_at(rule, as_of):
                return NotYet(ripe_at=ripe_at(rule, as_of))
            return Censored(reason="no-result")
        case why:
            return Censored(reason=why.value)
