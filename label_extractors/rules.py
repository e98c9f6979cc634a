"""What happened: rules that turn later facts into labels. Pure; every edge of their windows is tested."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from deployr_core.facts import Lab, Order, OrderStatus
from deployr_core.packet import Censored, LabelOutcome, NotYet, Observed


@dataclass(frozen=True, kw_only=True, slots=True)
class LabComponentRule:
    """Was the component of this very order outside its reference range?

    ``components``: the codes that a laboratory may report it under. ``window``: how long after the index time a result
    is waited for.
    """

    components: frozenset[str]
    window: timedelta
    name: str = "lab-component"

    def label(
        self, *, as_of: datetime, order_id: str | None, labs: tuple[Lab, ...], order: Order | None, now: datetime
    ) -> LabelOutcome:
        """Read the label of one packet.

        The result that is linked to the order decides, whenever it came; of several, the one released last (a corrected
        result replaces what it corrects). Where no result is linked to any order, the nearest one decides whose
        specimen was taken in ``[as_of, as_of + window)``. A result equal to a bound of its range is normal.

        Args:
            as_of: when the prediction was made.
            order_id: which order was predicted; None if the trigger named none.
            labs: the patient's results around and after ``as_of``; others than the component's are passed over.
            order: the order as it stands now; None if the EMR shows none.
            now: nothing released after it is looked at.
        """
        ripe_at = as_of + self.window
        results = [lab for lab in labs if lab.known_at <= now and any(c.value in self.components for c in lab.codes)]
        linked = [lab for lab in results if order_id is not None and lab.order_id == order_id]
        unlinked = [lab for lab in results if lab.order_id is None and as_of <= lab.at < ripe_at]
        if linked:
            return _observed(max(linked, key=lambda lab: (lab.known_at, lab.fact_id)))
        if unlinked:
            return _observed(min(unlinked, key=lambda lab: (lab.at, lab.known_at, lab.fact_id)))
        if order is not None and order.status is OrderStatus.CANCELLED:
            return Censored(reason="order-cancelled")
        if now < ripe_at:
            return NotYet(ripe_at=ripe_at)
        return Censored(reason="no-result")


def _observed(lab: Lab) -> Observed | Censored:
    abnormal = is_abnormal(lab)
    if abnormal is None:
        return Censored(reason="no-reference-range")
    return Observed(value=float(abnormal), at=lab.at, known_at=lab.known_at, source_id=lab.fact_id)


def is_abnormal(lab: Lab) -> bool | None:
    """Say if the result is outside its reference range; by the laboratory's flag where there is none; else None."""
    if lab.value is not None and (lab.reference_low is not None or lab.reference_high is not None):
        below = lab.reference_low is not None and lab.value < lab.reference_low
        above = lab.reference_high is not None and lab.value > lab.reference_high
        return below or above
    return lab.abnormal
