"""What the use cases need from the world, as shapes; the adapters fill them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from deployr_core.bundle import Bundle
from deployr_core.codes import Code
from deployr_core.facts import Encounter, Lab, Order, PatientFacts
from deployr_core.features import FeatureSpec
from deployr_core.packet import Delivery, FetchRecord, InferencePacket, Label, Subject


class Clock(Protocol):
    """The only place that time comes from."""

    def now(self) -> datetime:
        """Give the current instant, aware, in UTC."""

    def monotonic(self) -> float:
        """Give seconds on a line that never goes back; only differences mean anything."""

    async def sleep(self, seconds: float) -> None:
        """Let others work for that long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedFacts:
    """What the EMR gave for one request: the facts, the encounter of the event if there is one, and how it went."""

    facts: PatientFacts = field(repr=False)
    encounter: Encounter | None = field(repr=False)
    fetches: tuple[FetchRecord, ...]
    dropped: Mapping[str, int]
    """How many resources could not be used, by reason, such as ``labs.no_release_time``."""


class FactSource(Protocol):
    """Reads what a model needs about one patient."""

    async def fetch(self, subject: Subject, spec: FeatureSpec, *, as_of: datetime) -> FetchedFacts:
        """Fetch all that the declaration needs, and check that every piece of it is about this patient.

        Raises:
            UnknownPatient, UnknownContext, WrongPatient: the request cannot be scored.
            EmrUnreachable, EmrTimeout, EmrBadResponse, EmrRefused: nothing was scored; never taken for "no data".
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeFacts:
    """What has become of some orders of one patient."""

    labs: tuple[Lab, ...] = field(repr=False)
    orders: Mapping[str, Order] = field(repr=False)
    """By order id; an order that the EMR no longer shows is absent."""


class OutcomeSource(Protocol):
    """Reads what label rules need."""

    async def outcomes(
        self, patient_id: str, *, order_ids: tuple[str, ...], codes: tuple[Code, ...], since: datetime
    ) -> OutcomeFacts:
        """Fetch the patient's results of these codes whose specimen was taken at or after ``since``, and the orders.

        Raises:
            ServeError: as for `FactSource.fetch`.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A packet as it stands in the store, with the tag that a change must name."""

    packet: InferencePacket
    etag: str


class InferenceStore(Protocol):
    """Keeps packets, deliveries and labels. Every method may raise StoreUnavailable."""

    async def create(self, packet: InferencePacket) -> Stored | None:
        """Store a new packet; None if its id is taken, and then nothing is changed."""

    async def read(self, packet_id: str) -> Stored | None:
        """Give the packet, or None if there is none."""

    async def replace(self, packet: InferencePacket, *, etag: str, deliveries: tuple[Delivery, ...] = ()) -> Stored:
        """Change the packet and add its deliveries, all or nothing; a delivery that exists already stays as it is.

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

    async def pending_deliveries(self, *, created_before: datetime, limit: int) -> tuple[Delivery, ...]:
        """Give deliveries that wait to be sent and were created before that instant, oldest first."""

    async def unlabelled(
        self, *, model_id: str, rule: str, after: str | None, limit: int
    ) -> tuple[InferencePacket, ...]:
        """Give scored packets without a label by this rule, in order of id, past the id ``after``."""

    async def attach_label(self, label: Label) -> bool:
        """Store a label; False if the packet has one by this rule already, and then nothing is changed."""

    async def labels(self, *, model_id: str, rule: str) -> tuple[Label, ...]:
        """Give all labels of a model's packets by one rule."""

    async def packets(self, *, model_id: str, after: str | None, limit: int) -> tuple[InferencePacket, ...]:
        """Give the model's packets in order of id, past the id ``after``."""

    async def check(self) -> None:
        """Return if the store can be written to; raise StoreUnavailable otherwise."""


class Output(Protocol):
    """One way out: renders a scored packet for its target and sends it."""

    @property
    def name(self) -> str:
        """What the output is called in ids and settings."""

    async def send(self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str) -> None:
        """Send; the same ``delivery_id`` may be sent again and must then change nothing in the EMR.

        Raises:
            TryLater: it may or may not have arrived; send again.
            FixSetup, AskDifferently: it was refused, and will be again.
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
