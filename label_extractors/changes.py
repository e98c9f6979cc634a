"""How an outcome becomes a label, and a label another one: whoever else is at it, and with what it was before kept."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from deployr_core.packet import Censored, Label, LabelOutcome, NotYet, Observed
from deployr_core.packet_ids import derive_label_id
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.ports import InferenceStore

MOST_TRIES = 5
"""How often a label is read again because somebody else changed it in between."""

WITHDRAWN = "withdrawn"
_NOT_SHOWN = frozenset({"record-merged", "order-not-visible", "no-visit", "undated-death"})
"""Why a record cannot show any more what it has shown: that takes nothing back."""


class Noted(StrEnum):
    """What came of it."""

    OBSERVED = "observed"
    CENSORED = "censored"
    NOT_YET = "not-yet"
    CORRECTED = "corrected"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"
    FORGOTTEN = "forgotten"


def corrected(held: Label, outcome: LabelOutcome, *, read_at: datetime, now: datetime) -> Label | None:
    """Give the label as it is after a second look; None if it stays as it is.

    A label that was attached after we had read the EMR is somebody's who knew more. That the record cannot show any
    more what it has shown takes nothing back. What was observed and is not there any more, though there is time left
    for it, is withdrawn.
    """
    found: Observed | Censored
    if isinstance(outcome, NotYet):
        if isinstance(held.outcome, Censored):
            return None
        found = Censored(reason=WITHDRAWN)
    else:
        found = outcome
    if found == held.outcome or held.attached_at > read_at:
        return None
    if isinstance(held.outcome, Observed) and isinstance(found, Censored) and found.reason in _NOT_SHOWN:
        return None
    return msgspec.structs.replace(held, outcome=found, attached_at=now, history=(*held.history, held.outcome))


async def note(
    store: InferenceStore, packet_id: str, rule: str, outcome: LabelOutcome, *, read_at: datetime, now: datetime
) -> Noted:
    """Attach the outcome as the packet's label by the rule, or correct the label that is there.

    Args:
        store: where labels are kept.
        packet_id: whose label it is.
        rule: what it is filed under.
        outcome: what was found.
        read_at: when the EMR was read for it.
        now: when it is attached.

    Raises:
        StoreUnavailable: nothing was changed.
    """
    label_id = derive_label_id(packet_id, rule)
    if isinstance(outcome, Observed | Censored):
        label = Label(label_id=label_id, packet_id=packet_id, rule=rule, outcome=outcome, attached_at=now)
        if await store.attach_label(label):
            return Noted.OBSERVED if isinstance(outcome, Observed) else Noted.CENSORED
    for _ in range(MOST_TRIES):
        held = await store.read_label(label_id)
        if held is None:
            return Noted.NOT_YET if isinstance(outcome, NotYet) else Noted.FORGOTTEN
        changed = corrected(held.label, outcome, read_at=read_at, now=now)
        if changed is None:
            return Noted.UNCHANGED
        try:
            await store.replace_label(changed, etag=held.etag)
        except RecordChanged:
            continue
        return Noted.CORRECTED
    return Noted.CONFLICT
