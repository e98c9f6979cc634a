"""What happened: rules that turn later facts into observed labels. Pure; every edge of their windows is tested."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from deployr_core.facts import Lab, Order, OrderStatus
from deployr_core.labels import LabComponentRule, is_abnormal
from deployr_core.packet import Censored, LabelOutcome, NotYet, Observed


def lab_component_label(
    rule: LabComponentRule,
    *,
    as_of: datetime,
    order_id: str | None,
    labs: Iterable[Lab],
    order: Order | None,
    now: datetime,
) -> LabelOutcome:
    """Read one packet's label: observed if a result decides it, censored if none will, not yet otherwise.

    Args:
        rule: which result decides; the same rule made the training labels.
        as_of: when the prediction was made.
        order_id: which order was predicted; None if the trigger named none.
        labs: the patient's results around and after ``as_of``; what was released after ``now`` is not looked at.
        order: the order as it stands now; None if the EMR shows none.
        now: when the question is asked.
    """
    released = (lab for lab in labs if lab.known_at <= now)
    result = rule.deciding_result(released, as_of=as_of, order_id=order_id)
    if result is not None:
        abnormal = is_abnormal(result)
        if abnormal is None:
            return Censored(reason="no-reference-range")
        return Observed(value=float(abnormal), at=result.at, known_at=result.known_at, source_id=result.fact_id)
    if order is not None and order.status is OrderStatus.CANCELLED:
        return Censored(reason="order-cancelled")
    if now < rule.ripe_at(as_of):
        return NotYet(ripe_at=rule.ripe_at(as_of))
    return Censored(reason="no-result")
