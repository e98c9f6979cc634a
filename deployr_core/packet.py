"""The records of evidence: the inference packet, its deliveries and its labels.

A packet is written once it is received, and again when it is terminal; what it says is enough to score it again to
the same bits. Deliveries and labels are records of their own that name their packet. All ids are derived from
what the record is about, with a secret key, so that the same request has the same id on any machine and an id
tells nothing about a patient.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from deployr_core.vectorize import FeatureVector

SCHEMA_VERSION = 1


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """Unknown fields are kept out but tolerated: an older reader must survive a newer writer.

    Nothing is shown in a ``repr`` or by rich: both end up in logs and tracebacks.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, datetime) and value.tzinfo is not UTC:
                raise ValueError(f"expected {name} in UTC")


class Subject(_Record, frozen=True, kw_only=True):
    """Whom and what the request is about, by FHIR ids."""

    patient_id: str
    encounter_id: str | None = None
    order_id: str | None = None


class ModelRef(_Record, frozen=True, kw_only=True):
    """Which model answered: one bundle digest and no other."""

    model_id: str
    version: str
    bundle_sha256: str


class Trigger(_Record, frozen=True, kw_only=True):
    """How the request came. ``request_sha256`` is over what was asked, so that a key used twice is noticed."""

    channel: str
    correlation_id: str
    request_sha256: str
    received_at: datetime
    event_time: datetime


class StoredVector(_Record, frozen=True, kw_only=True):
    """The features that were scored, without zeros, and the digest of the declaration that names them."""

    spec_sha256: str
    size: int
    indices: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, vector: FeatureVector) -> StoredVector:
        """Take a vector as it was computed."""
        return cls(
            spec_sha256=vector.spec_digest,
            size=vector.size,
            indices=tuple(vector.indices.tolist()),
            values=tuple(vector.values.tolist()),
        )


class FetchRecord(_Record, frozen=True, kw_only=True):
    """One search or read that was made for the request: how much it gave, in how many pages, how long it took."""

    resource: str
    resources: int
    pages: int
    milliseconds: float


class Received(_Record, frozen=True, kw_only=True, tag_field="kind", tag="received"):
    """Taken on, not finished. Past ``lease_until`` another worker may take it over: the first one has died."""

    lease_until: datetime


class Scored(_Record, frozen=True, kw_only=True, tag_field="kind", tag="scored"):
    """Answered with a probability in [0, 1]. ``entity_id`` is what the EMR's write interface calls the target."""

    score: float
    vector: StoredVector
    coverage: Mapping[str, int]
    entity_id: str | None

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0:
            raise ValueError("expected a probability from 0 to 1")


class Abstained(_Record, frozen=True, kw_only=True, tag_field="kind", tag="abstained"):
    """Deliberately not scored; ``reason`` is a code from the glossary."""

    reason: str


class Failed(_Record, frozen=True, kw_only=True, tag_field="kind", tag="failed"):
    """Could not be scored, through no fault of the request. ``retryable``: asking again later may help."""

    reason: str
    retryable: bool


class Rejected(_Record, frozen=True, kw_only=True, tag_field="kind", tag="rejected"):
    """Not scored, because what was asked cannot be: no such patient, or another patient's encounter."""

    reason: str


Outcome = Received | Scored | Abstained | Failed | Rejected


class Attempt(_Record, frozen=True, kw_only=True):
    """One go at the request that did not end it: kept, because a failure that healed is evidence too."""

    started_at: datetime
    ended_at: datetime
    reason: str


class InferencePacket(_Record, frozen=True, kw_only=True):
    """One inference, from asked to answered. Instants are aware UTC."""

    schema_version: int = SCHEMA_VERSION
    packet_id: str
    site: str
    environment: str
    model: ModelRef
    trigger: Trigger
    subject: Subject
    as_of: datetime
    outcome: Outcome
    started_at: datetime
    updated_at: datetime
    fetches: tuple[FetchRecord, ...] = ()
    earlier_attempts: tuple[Attempt, ...] = ()

    @property
    def is_terminal(self) -> bool:
        """True once the packet holds its answer, or the reason why there is none."""
        return not isinstance(self.outcome, Received)


class DeliveryState(StrEnum):
    """Where a delivery stands: to be sent, accepted by the EMR, or given up with a reason."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"


class Delivery(_Record, frozen=True, kw_only=True):
    """One score on its way to one place in the EMR. ``delivery_id`` doubles as the write's idempotency key."""

    schema_version: int = SCHEMA_VERSION
    delivery_id: str
    packet_id: str
    output: str
    state: DeliveryState
    created_at: datetime
    updated_at: datetime
    attempts: int = 0
    last_error: str | None = None


class Observed(_Record, frozen=True, kw_only=True, tag_field="kind", tag="observed"):
    """The outcome is known. ``value`` is 1.0 or 0.0 for a binary label; ``source_id`` is the fact it was read from."""

    value: float
    at: datetime
    known_at: datetime
    source_id: str


class NotYet(_Record, frozen=True, kw_only=True, tag_field="kind", tag="not-yet"):
    """Too early to say; look again, at the latest when the label is ripe."""

    ripe_at: datetime


class Censored(_Record, frozen=True, kw_only=True, tag_field="kind", tag="censored"):
    """The outcome will never be known; ``reason`` is a code from the glossary."""

    reason: str


LabelOutcome = Observed | NotYet | Censored


class Label(_Record, frozen=True, kw_only=True):
    """What happened, as one rule sees it; earlier answers that were corrected stay in ``history``."""

    schema_version: int = SCHEMA_VERSION
    label_id: str
    packet_id: str
    rule: str
    outcome: Observed | Censored
    attached_at: datetime
    history: tuple[Observed | Censored, ...] = ()


def derive_packet_id(id_key: bytes, *, environment: str, model_id: str, request_key: str) -> str:
    """Give the id of the packet for a request: ``p`` and 32 hex digits of an HMAC-SHA256.

    Args:
        id_key: the site's secret, at least 16 bytes; without it a short order number could be found by trying all.
        environment: the EMR environment; the same order in test and in production is two requests.
        model_id: which model is asked.
        request_key: the caller's idempotency key, or what stands for it.

    Raises:
        ValueError: a key of under 16 bytes.

    Source: RFC 2104.
    """
    if len(id_key) < 16:
        raise ValueError("expected an id key of at least 16 bytes")
    # A length before each part, so that no two different requests run together into one.
    parts = "".join(f"{len(part)}:{part}" for part in (environment, model_id, request_key))
    return "p" + hmac.new(id_key, parts.encode(), hashlib.sha256).hexdigest()[:32]


def derive_delivery_id(packet_id: str, output: str) -> str:
    """Give the id of a packet's delivery to one output."""
    return f"{packet_id}.{output}"


def derive_label_id(packet_id: str, rule: str) -> str:
    """Give the id of a packet's label by one rule."""
    return f"{packet_id}.{rule}"
