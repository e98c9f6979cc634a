"""Which later result answers an order, and what it says: one definition, for training labels and for observed ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployr_core.codes import LOINC, Code
from deployr_core.facts import Lab


@dataclass(frozen=True, kw_only=True, slots=True)
class LabComponentRule:
    """Is the component of this very order outside its reference range?

    ``components``: the LOINC codes that a laboratory may report it under, the preferred one first. ``window``: how long
    after the index time a result may be released; what comes later is no answer to this order.
    """

    components: tuple[str, ...]
    window: timedelta
    name: str = "lab-component"

    def ripe_at(self, as_of: datetime) -> datetime:
        """Give the instant from which on no further result can count."""
        return as_of + self.window

    def deciding_result(self, labs: Iterable[Lab], *, as_of: datetime, order_id: str | None) -> Lab | None:
        """Choose the result that decides the label, or None while there is none.

        Only results released before ``as_of + window`` count. Those linked to the order come first, whenever their
        specimen was taken; where none is linked, those that are linked to no order at all and whose specimen was taken
        in ``[as_of, as_of + window)``. Of one specimen what was released last counts: a corrected result replaces the
        one it corrects. Of several specimens or components, one that can be told normal or abnormal counts before one
        that cannot, then the preferred component, then the earliest specimen.

        Args:
            labs: the patient's results; others than the component's are passed over.
            as_of: the index time.
            order_id: which order was predicted; None if that is not known.
        """
        rank = {Code(LOINC, code): place for place, code in enumerate(self.components)}
        end = self.ripe_at(as_of)
        linked: dict[tuple[int, datetime], Lab] = {}
        unlinked: dict[tuple[int, datetime], Lab] = {}
        for lab in labs:
            place = min((rank[code] for code in lab.codes if code in rank), default=None)
            if place is None or lab.known_at >= end:
                continue
            if order_id is not None and lab.order_id == order_id:
                candidates = linked
            elif lab.order_id is None and as_of <= lab.at < end:
                candidates = unlinked
            else:
                continue
            held = candidates.setdefault((place, lab.at), lab)
            candidates[place, lab.at] = max(held, lab, key=lambda lab: (lab.known_at, lab.fact_id))
        chosen = min(
            (linked or unlinked).items(), key=lambda item: (is_abnormal(item[1]) is None, *item[0]), default=None
        )
        return chosen[1] if chosen else None


def is_abnormal(lab: Lab) -> bool | None:
    """Say if the result is outside its reference range; by the laboratory's own flag where it sent no range; else None.

    The bounds belong to the range, and a missing bound is no limit.

    Source: FHIR R4 Observation.referenceRange,
    http://hl7.org/fhir/R4/observation-definitions.html#Observation.referenceRange.
    """
    if (
        lab.value is not None
        and math.isfinite(lab.value)
        and (lab.reference_low is not None or lab.reference_high is not None)
    ):
        below = lab.reference_low is not None and lab.value < lab.reference_low
        above = lab.reference_high is not None and lab.value > lab.reference_high
        return below or above
    return lab.abnormal
