"""The records of evidence: the inference packet, its deliveries and its labels.

A packet is written once it is received, and again when it is terminal; what it says is enough to score it again to
the same bits. Deliveries and labels are records of their own that name their packet. How their ids come about is in
`deployr_core.packet_ids`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec

from deployr_core.documents import SeenDocument
from deployr_core.labels import LabelValue
from deployr_core.patient_groups import PatientGroups
from deployr_core.trial import Assignment, Showing
from deployr_core.vectorize import FeatureVector

SCHEMA_VERSION = 1
"""Of deliveries, labels and events."""
PACKET_SCHEMA_VERSION = 2
"""Of packets. 1: without ``patient_hash``; still read, and `deployr store migrate` fills it in."""


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """Unknown fields are kept out but tolerated: an older reader must survive a newer writer.

    Nothing is shown in a ``repr`` or by rich: both end up in logs and tracebacks.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class _Record(_Part, frozen=True, kw_only=True):
    """Something that holds instants."""

    def __post_init__(self) -> None:
        for name in _dated(type(self)):
            value = getattr(self, name)
            if isinstance(value, datetime) and value.tzinfo is not UTC:
                raise ValueError(f"expected {name} in UTC")


@cache
def _dated(kind: type[_Record]) -> tuple[str, ...]:
    """Give the fields that may hold an instant."""
    return tuple(name for name, hint in get_type_hints(kind).items() if hint is datetime or datetime in get_args(hint))


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
    """How the request came. ``request_sha256`` is over what was asked, so that a key used twice is noticed.

    ``caller``: who asked, by the name that it proved; empty where callers are not asked who they are.
    """

    channel: str
    correlation_id: str
    request_sha256: str
    received_at: datetime
    event_time: datetime
    caller: str = ""


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
    """One search or read that was made for the request: what was asked, when, how long it took, how whole it was.

    ``name``: what it was for, such as ``labs``. ``via``: ``fhir``, ``epic`` or ``prefetch``. ``requests``: how often
    something was sent, repeats and pages included. ``total``: what the server counted; None if it did not say.
    ``error``: the reason code where it failed; then what came before is not counted.
    """

    resource: str
    resources: int
    pages: int
    milliseconds: float
    name: str = ""
    via: str = "fhir"
    started_at: datetime | None = None
    requests: int = 1
    total: int | None = None
    error: str | None = None


class Received(_Record, frozen=True, kw_only=True, tag_field="kind", tag="received"):
    """Taken on, not finished. Past ``lease_until`` another worker may take it over: the first one has died."""

    lease_until: datetime


class Mode(StrEnum):
    """How a deployment takes part in care.

    ``silent``: scored and stored, nothing is sent or shown. ``trial``: shown as its trial assigns. ``live``: sent, and
    shown at or above the threshold. ``off``: not even scored.
    """

    SILENT = "silent"
    TRIAL = "trial"
    LIVE = "live"
    OFF = "off"


class Decision(_Record, frozen=True, kw_only=True):
    """What was decided to do with a score, stored before anything is sent or shown; it is never changed afterwards.

    ``advise``: the intended action. ``why``: a code from the glossary, ``advised`` or what spoke against it.
    ``policy_sha256``: the deployment file in force. ``eligible``: whether the unit takes part in the trial.
    """

    mode: Mode
    advise: bool
    why: str
    policy_sha256: str
    threshold: float | None = None
    band: str | None = None
    eligible: bool = False
    assignment: Assignment | None = None
    showing: Showing | None = None


class Contribution(_Part, frozen=True, kw_only=True, gc=False):
    """What one clinical concept added to the score or took from it; see `deployr_core.contributions`."""

    concept: str
    value: float


class Scored(_Record, frozen=True, kw_only=True, tag_field="kind", tag="scored"):
    """Answered. ``entity_id`` is what the EMR's write interface calls the target.

    ``score``: the headline, a probability in [0, 1]; with a ``value_unit``, any finite number in that unit.
    ``outputs``: every class's or label's probability by name; empty where the score is all there is.
    ``contributions``: largest first, with a ``base`` they add up to ``explained``, the number that the model's trees or
    terms end in; empty where the model cannot be taken apart. ``decision``: None only in packets of before there were
    any. ``answered_by``: what a model that answers elsewhere calls itself; None of a bundle's own, and of one that does
    not say. ``documents``: those whose columns stand behind the features in the vector.
    """

    score: float
    vector: StoredVector
    coverage: Mapping[str, int]
    entity_id: str | None
    outputs: Mapping[str, float] = msgspec.field(default_factory=dict)
    value_unit: str | None = None
    contributions: tuple[Contribution, ...] = ()
    base: float | None = None
    explained: float | None = None
    decision: Decision | None = None
    answered_by: str | None = None
    documents: tuple[SeenDocument, ...] = ()

    def __post_init__(self) -> None:
        if self.value_unit is not None:
            if not math.isfinite(self.score):
                raise ValueError("expected a finite number as the score")
        elif not all(0.0 <= each <= 1.0 for each in (self.score, *self.outputs.values())):
            raise ValueError("expected a probability from 0 to 1")


class Abstained(_Record, frozen=True, kw_only=True, tag_field="kind", tag="abstained"):
    """Deliberately not scored; ``reason`` is a code from the glossary. ``coverage``: what was seen until then."""

    reason: str
    coverage: Mapping[str, int] = msgspec.field(default_factory=dict)


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
    """One inference, from asked to answered. Instants are aware UTC.

    ``patient_hash``: what all packets about one patient are found by, see `deployr_core.forgetting`; empty in packets
    of schema version 1 that were not migrated, and in forgotten ones. ``facts_sha256``: the digest under which the
    facts are kept, sealed, where the deployment keeps them; None where not, or not yet. ``shadow_of``: the packet of
    the champion that a shadow scored the same facts beside; None of everything that was asked for. ``clinician_hash``:
    for whom it was asked, see `deployr_core.packet_ids`; None where the channel does not say, as in older packets.
    ``patient_groups``: what the EMR says of the patient and the model does not see; None where nobody looked.
    """

    schema_version: int = PACKET_SCHEMA_VERSION
    packet_id: str
    site: str
    environment: str
    model: ModelRef
    trigger: Trigger
    subject: Subject
    patient_hash: str = ""
    as_of: datetime
    outcome: Outcome
    started_at: datetime
    updated_at: datetime
    fetches: tuple[FetchRecord, ...] = ()
    facts_sha256: str | None = None
    earlier_attempts: tuple[Attempt, ...] = ()
    shadow_of: str | None = None
    clinician_hash: str | None = None
    patient_groups: PatientGroups | None = None

    @property
    def is_terminal(self) -> bool:
        """True once the packet holds its answer, or the reason why there is none."""
        return not isinstance(self.outcome, Received)

    @property
    def is_advised(self) -> bool:
        """True if it was decided to show this packet's advisory."""
        outcome = self.outcome
        return isinstance(outcome, Scored) and outcome.decision is not None and outcome.decision.advise


class DeliveryState(StrEnum):
    """Where a delivery stands.

    ``pending``: to be sent. ``sent``: accepted. ``dead``: given up, with a reason. ``superseded``: a newer score was
    there first. ``expired``: too old to be shown late.
    """

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


class Sending(_Record, frozen=True, kw_only=True):
    """How a delivery had ended before somebody had it sent again."""

    state: DeliveryState
    ended_at: datetime
    attempts: int
    last_error: str | None


class Delivery(_Record, frozen=True, kw_only=True):
    """One score on its way to one place in the EMR. ``delivery_id`` doubles as the write's idempotency key.

    ``due_at``: while it is pending, nobody takes it up before; whoever sends it puts that off first, so that no two do.
    None, as in deliveries of before there was one: at once. ``earlier``: how it had ended, each time that it was sent
    again by hand; ``attempts`` counts those since. ``location``: where the EMR says that what it made stands, as text;
    it is never fetched.
    """

    schema_version: int = SCHEMA_VERSION
    delivery_id: str
    packet_id: str
    output: str
    state: DeliveryState
    created_at: datetime
    updated_at: datetime
    attempts: int = 0
    last_error: str | None = None
    due_at: datetime | None = None
    earlier: tuple[Sending, ...] = ()
    location: str | None = None


class EventKind(StrEnum):
    """What happened to an advisory after it was decided on."""

    SHOWN = "shown"
    ACCEPTED = "accepted"
    OVERRIDDEN = "overridden"
    ACKNOWLEDGED = "acknowledged"


class Event(_Record, frozen=True, kw_only=True):
    """Something that happened to a packet's advisory; events are only ever added.

    ``event_id`` is derived from what it says, so that one which is reported twice is stored once. ``reason`` is a code
    of the deployment's, ``comment`` is the clinician's own text.
    """

    schema_version: int = SCHEMA_VERSION
    event_id: str
    packet_id: str
    kind: EventKind
    at: datetime
    reason: str | None = None
    comment: str | None = None


class Observed(_Record, frozen=True, kw_only=True, tag_field="kind", tag="observed"):
    """The outcome is known. ``source_id``: the fact that it was read from; of several, their ids with spaces between.

    It is empty where the outcome is that nothing happened. ``value``: 1.0 or 0.0, or a number; the name of a class; or
    1.0 or 0.0 for each of several labels by name. ``why``: the code of a clinician's reason, where the outcome is what
    a clinician did.
    """

    value: LabelValue
    at: datetime
    known_at: datetime
    source_id: str
    why: str | None = None


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
