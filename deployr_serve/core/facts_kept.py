"""What was fetched for a packet, kept so that its features can be computed again; only where a deployment says so.

The canonical bytes go to the vault before the packet that names their digest is stored. Nothing of this decides over a
score: where the vault does not answer, the score stands, and its packet says that its facts were not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from deployr_core.facts import Encounter, PatientFacts
from deployr_core.packet import Abstained, Outcome, Scored
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.ports import FetchedFacts

NOT_KEPT = "facts.not_kept"
"""Counted in the coverage of an answer whose facts should have been kept and were not."""

SCHEMA_VERSION = 1
_log = logging.getLogger(__name__)


class FactsUnreadable(ValueError):
    """There are facts, and they cannot be read: the message says why, and nothing of what they hold."""


class FactsVault(Protocol):
    """Keeps what was fetched about a patient, sealed, by the packet that it was fetched for and its own digest.

    Ids carry no identity. Every method may raise StoreUnavailable.
    """

    async def keep(self, packet_id: str, digest: str, content: bytes, *, expires_at: datetime) -> None:
        """Seal and store it; what is there already stays as it is.

        Args:
            packet_id: whose facts they are.
            digest: the SHA-256 of the content, in hex. Another attempt at the packet may have fetched other facts.
            content: see `facts_bytes`.
            expires_at: from when on nobody gets it any more, and `purge` erases it.
        """

    async def read(self, packet_id: str, digest: str, *, now: datetime) -> bytes | None:
        """Give the content; None if it was never kept, has expired, or was erased.

        Raises:
            FactsUnreadable: it was changed, or its key is not here.
        """

    async def forget(self, packet_id: str) -> int:
        """Erase all that is kept for a packet; give how many records that were."""

    async def purge(self, *, now: datetime) -> int:
        """Erase what has expired; give how many records that were."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """All of `FetchedFacts` but the calls that were made, which stand in the packet."""

    schema_version: int
    facts: PatientFacts
    encounter: Encounter | None
    dropped: Mapping[str, int]
    oldest_answer_s: float

    def __repr__(self) -> str:
        return "<_Kept>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


def facts_bytes(fetched: FetchedFacts) -> bytes:
    """Give the canonical bytes of what was fetched: the same facts in the same order are the same bytes."""
    kept = _Kept(
        schema_version=SCHEMA_VERSION,
        facts=fetched.facts,
        encounter=fetched.encounter,
        dropped=fetched.dropped,
        oldest_answer_s=fetched.oldest_answer_s,
    )
    return msgspec.json.encode(kept, order="sorted")


def facts_of(content: bytes) -> FetchedFacts:
    """Give the facts again, so that they vectorize to the same bits.

    Raises:
        FactsUnreadable: the bytes are no facts of this schema version.
    """
    try:
        kept = msgspec.json.decode(content, type=_Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        # The message may repeat a part of the record.
        raise FactsUnreadable("expected facts as this version of deployr keeps them") from None
    if kept.schema_version != SCHEMA_VERSION:
        raise FactsUnreadable(f"expected facts of schema version {SCHEMA_VERSION}, got {kept.schema_version}")
    return FetchedFacts(
        facts=kept.facts,
        encounter=kept.encounter,
        fetches=(),
        dropped=kept.dropped,
        oldest_answer_s=kept.oldest_answer_s,
    )


async def keep_facts(
    fetched: FetchedFacts, vault: FactsVault, *, packet_id: str, days: int, now: datetime, within_s: float
) -> str | None:
    """Put what was fetched into the vault; give its digest, which the packet is to name, or None if that failed.

    Args:
        fetched: of this packet.
        vault: seals it.
        packet_id: whose facts they are.
        days: for how long they are kept.
        now: what the days count from.
        within_s: how long the vault may take.
    """
    content = facts_bytes(fetched)
    digest = hashlib.sha256(content).hexdigest()
    try:
        async with asyncio.timeout(within_s):
            await vault.keep(packet_id, digest, content, expires_at=now + timedelta(days=days))
    except (StoreUnavailable, TimeoutError) as error:
        _log.error("facts not kept: packet=%s error=%s", packet_id, type(error).__name__)
        return None
    return digest


def noted_as_not_kept(outcome: Outcome) -> Outcome:
    """Give the outcome with a note in its coverage, where it has one."""
    if isinstance(outcome, Scored | Abstained):
        return msgspec.structs.replace(outcome, coverage={**outcome.coverage, NOT_KEPT: 1})
    return outcome
