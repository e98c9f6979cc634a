"""What every trigger turns its bytes into."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from deployr_core.packet import Subject
from deployr_serve.core.ports import Handed, Lane

FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z", re.ASCII)
"""What a FHIR id may be. Source: http://hl7.org/fhir/R4/datatypes.html#id."""

IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}\Z", re.ASCII)
"""Visible ASCII without spaces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceRequest:
    """One question: score this patient, with this model, as things stood at ``event_time``.

    ``idempotency_key`` is the caller's; without one, what is asked stands for itself, so that a repeat of the very
    same event is recognised anyway. ``handed`` is what came with the question; it is no part of what is asked.
    Nor is ``context``: where and for whom it was asked, as trials name it, such as ``provider`` and ``department``.
    Nor is ``caller``: who asks, by the name that it proved. ``answer_shows``: the answer is what shows the advisory,
    whichever other questions are answered along with it. ``shadow_of``: the packet that this follows; only a shadow's.
    """

    channel: str
    model_id: str
    subject: Subject
    event_time: datetime
    idempotency_key: str | None = field(repr=False)
    correlation_id: str
    caller: str = ""
    answer_shows: bool = False
    lane: Lane = Lane.CLICK
    shadow_of: str | None = None
    handed: Handed | None = field(default=None, repr=False)
    context: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.event_time.tzinfo is not UTC:
            raise ValueError("expected an event time in UTC")

    @property
    def digest(self) -> str:
        """Give the SHA-256 of what is asked, whoever asks it and however often."""
        content = (self.model_id, self.subject, self.event_time)
        return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()

    @property
    def key(self) -> str:
        """Give what makes two requests the same one."""
        return f"key:{self.idempotency_key}" if self.idempotency_key is not None else f"content:{self.digest}"
