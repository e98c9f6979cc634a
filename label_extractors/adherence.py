"""What clinicians did about an advisory that they were shown: a label of its own, from what was reported back. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from deployr_core.packet import Event, EventKind, LabelOutcome, NotYet, Observed

NO_RESPONSE = "no-response"
_RESPONSES = (EventKind.ACCEPTED, EventKind.OVERRIDDEN, EventKind.ACKNOWLEDGED)
"""Of several at one instant, the first of these is the one."""


def adherence(events: Iterable[Event], *, shown_at: datetime, hours: int, now: datetime) -> LabelOutcome:
    """Say what came of an advisory: ``accepted``, ``overridden``, ``acknowledged`` or ``no-response``.

    The first answer before ``shown_at + hours`` counts; later ones are about the same advisory and change nothing. One
    that is dated before it was shown was dated by another clock. ``why`` is the code of the reason that came with it.

    Args:
        events: what happened to the packet's advisory.
        shown_at: when it was shown first.
        hours: how long an answer may take.
        now: when the question is asked.
    """
    until = shown_at + timedelta(hours=hours)
    answers = [event for event in events if event.kind in _RESPONSES and event.at < until]
    if answers:
        first = min(answers, key=lambda event: (event.at, _RESPONSES.index(event.kind), event.event_id))
        return Observed(
            value=first.kind.value, at=first.at, known_at=first.at, source_id=first.event_id, why=first.reason
        )
    if now < until:
        return NotYet(ripe_at=until)
    return Observed(value=NO_RESPONSE, at=until, known_at=until, source_id="")
