"""What the use cases need from the world, as shapes; the adapters fill them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from deployr_core.bundle import Bundle
from deployr_core.document_columns import Came
from deployr_core.facts import Encounter, PatientFacts
from deployr_core.features import FeatureSpec
from deployr_core.packet import Delivery, DeliveryState, Event, FetchRecord, InferencePacket, Label, Subject
from deployr_core.patient_groups import PatientGroups

_T = TypeVar("_T")


class Clock(Protocol):
    """The only place that time comes from."""

    def now(self) -> datetime:
        """Give the current instant, aware, in UTC."""

    def monotonic(self) -> float:
        """Give seconds on a line that never goes back; only differences mean anything."""

    async def sleep(self, seconds: float) -> None:
        """Let others work for that long."""


class Lane(StrEnum):
    """Who is waiting: a clinician after a ``click``, or a ``batch`` that must not take the clicks' connections."""

    CLICK = "click"
    BATCH = "batch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What one request may still use: every call that is made for it ends by ``deadline``, on `Clock.monotonic`."""

    deadline: float
    correlation_id: str
    lane: Lane = Lane.CLICK


@dataclass(frozen=True, kw_only=True, slots=True)
class Handed:
    """What a caller hands over with its question: facts that it has at hand, and a token to fetch the rest with.

    ``prefetch``: the JSON of each resource or searchset by the name that the plan gives its search; ``null`` is an
    answer without matches. ``token`` is used for this request and for no other: it is never cached, stored or logged.
    """

    prefetch: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedFacts:
    """What the EMR gave for one request: the facts, the encounter of the event if there is one, and how it went."""

    facts: PatientFacts = field(repr=False)
    encounter: Encounter | None = field(repr=False)
    fetches: tuple[FetchRecord, ...]
    dropped: Mapping[str, int]
    """How many resources could not be used, by reason, such as ``labs.no_release_time``."""
    oldest_answer_s: float = 0.0
    """How old the oldest of the EMR's answers was when it came, in seconds, as caches and replicas own up to it."""
    documents: Came | None = field(default=None, repr=False)
    """What came for a model that takes documents; never kept."""
    patient_groups: PatientGroups | None = field(default=None, repr=False)


class FactSource(Protocol):
    """Reads what a model needs about one patient."""

    async def fetch(
        self,
        subject: Subject,
        spec: FeatureSpec,
        *,
        as_of: datetime,
        budget: Budget | None = None,
        handed: Handed | None = None,
    ) -> FetchedFacts:
        """Fetch all that the declaration needs, and check that every piece of it is about this patient.

        Args:
            subject: who and what is asked about.
            spec: the declaration.
            as_of: windows look back from here.
            budget: what may be used; None leaves it to the transport's own limits.
            handed: what need not be fetched, and whose token fetches the rest; None uses our own credentials.

        Raises:
            AskDifferently: the request cannot be scored: unknown, ambiguous or wrong patient, unknown context.
            Abstain: the record is withheld, or too old.
            TryLater, FixSetup: nothing was scored; never taken for "no data". ``fetches`` tells what was tried.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A packet as it stands in the store, with the tag that a change must name."""

    packet: InferencePacket
    etag: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Belongings:
    """What is stored of one packet beside itself: deliveries and labels in order of id, events in order of time."""

    deliveries: tuple[Delivery, ...] = ()
    labels: tuple[Label, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """Packets that changed; the ``cursor`` to go on after, now or another day; and if that is all by now."""

    packets: tuple[InferencePacket, ...]
    cursor: str
    is_all: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredLabel:
    """A label as it stands in the store, with the tag that a change must name."""

    label: Label
    etag: str


class InferenceStore(Protocol):
    """Keeps packets, deliveries and labels. Every method may raise StoreUnavailable."""

    async def create(self, packet: InferencePacket) -> Stored | None:
        """Store a new packet; None if its id is taken, and then nothing is changed."""

    async def read(self, packet_id: str) -> Stored | None:
        """Give the packet, or None if there is none."""

    async def replace(
        self,
        packet: InferencePacket,
        *,
        etag: str,
        deliveries: tuple[Delivery, ...] = (),
        events: tuple[Event, ...] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> Stored:
        """Change the packet and add its deliveries and events, all or nothing; what of these exists stays as it is.

        ``meanwhile`` is called on the event loop while a disk is waited for, if one is.

        Raises:
            RecordChanged: the packet no longer has this tag.
        """

    async def read_delivery(self, delivery_id: str) -> Delivery | None:
        """Give the delivery, or None if there is none."""

    async def save_delivery(self, delivery: Delivery, *, was: Delivery) -> None:
        """Change a delivery from what it was.

        Raises:
            RecordChanged: it is no longer what it was.
        """

    async def pending_deliveries(self, *, due_before: datetime, limit: int) -> tuple[Delivery, ...]:
        """Give deliveries that wait to be sent and are due before that instant, the longest due first, then by id.

        One without ``due_at`` is due when it was created.
        """

    async def deliveries(self, *, state: DeliveryState, after: str | None, limit: int) -> tuple[Delivery, ...]:
        """Give the deliveries in that state in order of id, past the id ``after``."""

    async def unlabelled(
        self, *, model_id: str, rule: str, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        """Give scored packets without a label by this rule, in order of id, past the id ``after``."""

    async def attach_label(self, label: Label) -> bool:
        """Store a label; False if the packet has one by this rule already, and then nothing is changed."""

    async def read_label(self, label_id: str) -> StoredLabel | None:
        """Give the label, or None if there is none."""

    async def replace_label(self, label: Label, *, etag: str) -> StoredLabel:
        """Change a label.

        Raises:
            RecordChanged: it no longer has this tag.
        """

    async def labels(self, *, model_id: str, rule: str, after: str | None, limit: int) -> tuple[Label, ...]:
        """Give labels of a model's packets by one rule, in order of label id, past the id ``after``."""

    async def labelled(
        self, *, model_id: str, rule: str, since: datetime, until: datetime, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        """Give packets whose label by this rule was attached or last changed in ``[since, until)``.

        In order of packet id, past the id ``after``.
        """

    async def shown(self, *, since: datetime, after: str | None, limit: int) -> tuple[Event, ...]:
        """Give the events that say that an advisory was shown, at or after ``since``.

        In order of event id, past the id ``after``.
        """

    async def packets(
        self,
        *,
        model_id: str,
        after: str | None,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[InferencePacket, ...]:
        """Give the model's packets in order of id, past the id ``after``.

        ``since`` and ``until`` bound ``started_at``, when we were asked: the first is included, the second is not.
        """

    async def changed(self, *, after: str | None, limit: int) -> Changed:
        """Give packets that were written, or whose deliveries, labels or events were, after that cursor; None: ever.

        What changed first comes first, about ``limit`` at a time. Some may come again; what was erased whole does not.
        """

    async def append_event(self, event: Event) -> bool:
        """Store an event; False if it is there already, and then nothing is changed."""

    async def events(self, packet_id: str) -> tuple[Event, ...]:
        """Give what happened to a packet's advisory, in order of time."""

    async def model_ids(self) -> tuple[str, ...]:
        """Give the ids of all models that have packets, in order; deployed today or not."""

    async def packets_of(self, patient_hash: str, *, after: str | None, limit: int) -> tuple[InferencePacket, ...]:
        """Give one patient's packets in order of id, past the id ``after``; forgotten ones are nobody's.

        The empty hash gives packets of schema version 1, whose patients cannot be found by.
        """

    async def belongings(self, packet_id: str) -> Belongings:
        """Give what is stored of a packet beside itself; nothing is given of one that is not there."""

    async def erase(self, packet_id: str, *, leaving: InferencePacket | None) -> bool:
        """Take out a packet with all that belongs to it, all or nothing; False if there was no packet.

        What is ``leaving`` stands in its place from then on, under a new tag; None leaves nothing. Where it is a
        forgotten packet, no label, event or delivery is ever stored for it again.
        """

    async def check(self) -> None:
        """Return if the store can be written to; raise StoreUnavailable otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A small shared record as it stands in the store, with the tag that a change must name."""

    content: bytes = field(repr=False)
    etag: str


class Records(Protocol):
    """Small records that all workers share, by kind and id: assignments, counters, switches, leases, used tokens.

    Neither kinds nor ids carry an identity: what is about a person goes by a keyed hash. One that has expired is as
    good as none. Every method may raise StoreUnavailable.
    """

    async def create_record(
        self, kind: str, record_id: str, content: bytes, *, now: datetime, expires_at: datetime | None = None
    ) -> Record | None:
        """Store a new record; None if its id is taken by one that has not expired, and then nothing is changed."""

    async def read_record(self, kind: str, record_id: str, *, now: datetime) -> Record | None:
        """Give the record, or None if there is none. At ``expires_at`` itself it has expired."""

    async def replace_record(
        self, kind: str, record_id: str, content: bytes, *, etag: str, expires_at: datetime | None = None
    ) -> Record:
        """Change a record.

        Raises:
            RecordChanged: it no longer has this tag.
        """

    async def records(self, kind: str, *, now: datetime) -> Mapping[str, Record]:
        """Give all records of a kind by id; for kinds that hold few."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TypedIdentifier:
    """An identifier with the type that the vendor calls it by, such as ``MRN``, ``EPI`` or ``CSN``."""

    type: str
    value: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """Whom and what a caller names by identifiers of its own; each tuple names one thing, as often as it has types."""

    patient: tuple[TypedIdentifier, ...]
    encounter: tuple[TypedIdentifier, ...] = ()
    order: tuple[TypedIdentifier, ...] = ()


class Subjects(Protocol):
    """Knows who and what is meant."""

    async def subject(self, named: Named, *, budget: Budget | None) -> Subject:
        """Give the one patient, and the encounter and the order, that all of the identifiers lead to.

        Raises:
            AskDifferently: they lead to nobody, to several, or to different ones, or a type is not known here.
            TryLater, FixSetup: nobody could tell.
        """


class Output(Protocol):
    """One way out: renders a scored packet for its target and sends it."""

    @property
    def name(self) -> str:
        """What the output is called in ids and settings."""

    async def send(
        self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str, budget: Budget | None = None
    ) -> str | None:
        """Send; the same ``delivery_id`` may be sent again and must then change nothing in the EMR.

        Returns:
            Where the EMR says that what it made stands; None if it does not say. Nobody may ever fetch it.

        Raises:
            TryLater: it may or may not have arrived; send again.
            FixSetup, AskDifferently: it was refused, and will be again.
        """


class Threads(Protocol):
    """Where work goes that may take long and does not wait for anybody."""

    async def run(self, work: Callable[[], _T], *, name: str, within_s: float) -> _T:
        """Run it beside everything else, and give what it gives, or raise what it raises.

        Args:
            work: touches nothing that others change.
            name: whose it is; one name's work takes none of another's place.
            within_s: how long it is waited for.

        Raises:
            TimeoutError: it took longer, or too much of this name has not ended yet. It goes on unseen.
        """


class Models(Protocol):
    """The models that are deployed here."""

    def bundle(self, model_id: str) -> Bundle:
        """Give the model's bundle, loaded and verified.

        Raises:
            UnknownModel: not deployed here.
            ModelUnavailable: deployed, but its bundle may not be used.
        """

    def deployed(self) -> Mapping[str, str | None]:
        """Give each deployed model id with None, or with the reason why it is not available."""
