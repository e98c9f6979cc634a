"""A request while the store is down: scored, kept in the spool, and answered as the channel's policy says.

Without its packet in the store no advisory is shown, unless the site says so for the channel: then the packet is
durable in the spool before the answer goes out. What only the store knows, it does not say now: who is in which arm of
a trial, and whom an advisory reached lately. Nobody is advised where that would decide.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import msgspec

from deployr_core.packet import Decision, Delivery, Event, InferencePacket, Mode, Scored
from deployr_serve.core.decide import Why, decide
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import Clock, Lane
from deployr_serve.core.request import InferenceRequest
from deployr_serve.core.spool import Spool, Spooled, SpoolUnavailable

KEEP_WITHIN_S = 2.0
"""How long a request waits for the spool."""
_log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Spooling:
    """The spool as requests use it.

    ``shows``: the channels whose advisories may be shown before their packet is in the store. ``refused``: how many
    packets this worker could not put anywhere; ``is_losing``: the last one of them.
    """

    spool: Spool
    clock: Clock
    shows: frozenset[str] = frozenset()
    refused: int = field(default=0, init=False)
    is_losing: bool = field(default=False, init=False)

    def takes(self, request: InferenceRequest) -> bool:
        """Tell whether the request is one that nobody else keeps: a batch's waits in its queue."""
        return request.lane is Lane.CLICK

    def may_show(self, request: InferenceRequest, *, is_known_on: bool) -> bool:
        """Tell whether what comes of it may be told before it is in the store.

        ``is_known_on``: as far as this worker knows, nobody has switched the model off.
        """
        return is_known_on and request.channel in self.shows

    async def keep(
        self, packet: InferencePacket, *, deliveries: tuple[Delivery, ...], events: tuple[Event, ...]
    ) -> bool:
        """Put a finished packet into the spool; False if that failed too, and then only its id is logged."""
        entry = Spooled(packet=packet, deliveries=deliveries, events=events, spooled_at=self.clock.now())
        try:
            async with asyncio.timeout(KEEP_WITHIN_S):
                await self.spool.put(entry)
        except (SpoolUnavailable, TimeoutError) as error:
            reason = error.reason if isinstance(error, SpoolUnavailable) else SpoolUnavailable().reason
            self.refused, self.is_losing = self.refused + 1, True
            _log.critical("alert=packet-not-kept packet=%s reason=%s", packet.packet_id, reason)
            return False
        self.is_losing = False
        _log.warning("store down, packet in the spool: packet=%s", packet.packet_id)
        return True


def decided_without_store(policy: Policy, *, score: float, may_show: bool) -> Decision:
    """Decide on a score while shared records cannot be read: nobody is advised where they would matter."""
    unknown = None if may_show and policy.suppression is None else Why.NOT_STORED
    decision = decide(policy, score=score, suppressed=unknown)
    return msgspec.structs.replace(decision, why=Why.NOT_STORED.value) if policy.mode is Mode.TRIAL else decision


def withheld(packet: InferencePacket) -> InferencePacket:
    """Give the packet of a decision that was made but will not be shown, because the packet could not be stored."""
    if not isinstance(packet.outcome, Scored) or not packet.is_advised or packet.outcome.decision is None:
        return packet
    decision = msgspec.structs.replace(packet.outcome.decision, advise=False, why=Why.NOT_STORED.value, showing=None)
    return msgspec.structs.replace(packet, outcome=msgspec.structs.replace(packet.outcome, decision=decision))
