"""Duplicates of a score in the EMR: found by our identifier, reported, and only when asked marked as entered in error.

Ours are written once. Where a server knows no conditional create, or another system copied a record, there may be more
all the same, and a clinician would take them for several scores. The first one is kept. Nothing is ever deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from deployr_core.packet import Delivery, InferencePacket
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import Budget
from deployr_serve.core.request import FHIR_ID

ENTERED_IN_ERROR = "entered-in-error"
"""The status by which each of the types that we write is marked as wrong. Source: FHIR R4, their value sets [seen]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldResource:
    """A resource of ours as a server holds it."""

    content: Mapping[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """Give its id, empty where it has none that can stand in an address."""
        found = str(self.content.get("id", ""))
        return found if FHIR_ID.match(found) else ""

    @property
    def version(self) -> str:
        """Give its version; empty where the server tells none."""
        return str(self._meta.get("versionId", ""))

    @property
    def is_valid(self) -> bool:
        """False for one that somebody has marked as entered in error."""
        return self.content.get("status") != ENTERED_IN_ERROR

    @property
    def order(self) -> tuple[str, str]:
        """Give what the first one is told by: when it was last changed, else its id."""
        return str(self._meta.get("lastUpdated", "")), self.id

    @property
    def _meta(self) -> Mapping[str, Any]:
        meta = self.content.get("meta")
        return meta if isinstance(meta, dict) else {}


class Server(Protocol):
    """Holds what was written."""

    async def held(
        self, kind: str, *, patient_id: str, delivery_id: str, budget: Budget | None
    ) -> tuple[HeldResource, ...]:
        """Give what it holds of one delivery, the first that it held first."""

    async def mark_as_wrong(self, held: HeldResource, packet: InferencePacket, *, budget: Budget | None) -> None:
        """Have one resource of this packet marked as entered in error, if nobody has changed it since it was read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """What the EMR holds more than once of one delivery, by the ids that the EMR gave.

    ``marked``: those of ``others`` that were marked as entered in error; ``refusal``: why no more of them were.
    """

    delivery_id: str
    kind: str
    kept: str
    others: tuple[str, ...]
    marked: tuple[str, ...] = ()
    refusal: str | None = None


async def duplicates_of(
    delivery: Delivery,
    packet: InferencePacket,
    kinds: Sequence[str],
    *,
    server: Server,
    mark: bool,
    budget: Budget | None = None,
) -> tuple[Duplicates, ...]:
    """Look for duplicates of one delivery among these types of resources; empty if there are none.

    Args:
        delivery: one that was sent, or given up.
        packet: its packet.
        kinds: what the way out may have written.
        server: where it was written.
        mark: whether all but the first are marked as entered in error.
        budget: what may be used.

    Raises:
        ServeError: the server could not be asked.
    """
    found = []
    for kind in kinds:
        held = await server.held(
            kind, patient_id=packet.subject.patient_id, delivery_id=delivery.delivery_id, budget=budget
        )
        valid = [each for each in held if each.is_valid]
        if len(valid) < 2:
            continue
        first, *others = valid
        report = Duplicates(
            delivery_id=delivery.delivery_id, kind=kind, kept=first.id, others=tuple(each.id for each in others)
        )
        found.append(await _marked(report, others, packet, server=server, budget=budget) if mark else report)
    return tuple(found)


async def _marked(
    report: Duplicates,
    others: Sequence[HeldResource],
    packet: InferencePacket,
    *,
    server: Server,
    budget: Budget | None,
) -> Duplicates:
    marked: list[str] = []
    for other in others:
        try:
            await server.mark_as_wrong(other, packet, budget=budget)
        except ServeError as error:
            return replace(report, marked=tuple(marked), refusal=error.reason)
        marked.append(other.id)
    return replace(report, marked=tuple(marked))
