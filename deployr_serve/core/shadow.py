"""Shadow challengers: what a champion was asked is scored by others too, silently, after the champion has answered.

A shadow takes nothing from whoever waits: its work begins when the answer is on its way, outside its deadline, from the
facts that were fetched for it. What goes wrong with it is its own: its packet says so, or it has none, and a worker
leaves one that hangs alone for a while. Its packets name the champion's; labels are attached to both.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime

from deployr_core.bundle import Bundle
from deployr_core.features import FeatureSpec
from deployr_core.packet import InferencePacket, Mode, Subject
from deployr_serve.core.errors import ModelUnavailable
from deployr_serve.core.infer import Services, infer
from deployr_serve.core.policy import SCHEMA_VERSION, Policies, Policy
from deployr_serve.core.ports import Budget, FactSource, FetchedFacts, Handed, Lane, Models
from deployr_serve.core.request import InferenceRequest
from deployr_serve.core.site_logs import fresh_context
from deployr_serve.core.switches import Switches
from deployr_serve.core.watch import NOT_WATCHED

CHANNEL = "shadow"
AFTER_S = 0.05
"""How long after the champion's answer a shadow begins, so that the answer is out of this process."""
RESTS_S = 60.0
"""How long a worker leaves a shadow alone that took as long as a whole request may."""
_AT_MOST = 256
"""Answers that wait for their shadows in one worker; what comes beyond has none."""

_log = logging.getLogger(__name__)

Needs = Callable[[FeatureSpec], Collection[Hashable]]
"""Gives what would be asked of the EMR for a declaration, search by search."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answered:
    """What a champion has answered; ``begins``: when its shadows do, on `Clock.monotonic`."""

    request: InferenceRequest = field(repr=False)
    packet: InferencePacket = field(repr=False)
    fetched: FetchedFacts = field(repr=False)
    champion: Bundle = field(repr=False)
    begins: float


class Shadows:
    """The shadows of a site's champions; see `deployr_serve.core.followers.Followers`.

    Args:
        services: the champions'; a shadow has no output, no spool, no vault and nobody who waits.
        models: the shadows, by the names that deployment files give them.
        needs: what is asked of the EMR for a declaration.
    """

    def __init__(self, services: Services, *, models: Models, needs: Needs) -> None:
        self.models = models
        self._of = {model: names for model, policy in services.policies.declared.items() if (names := policy.shadows)}
        policies = _silent(services.policies)
        self._services = replace(
            services,
            models=models,
            outputs=(),
            policies=policies,
            # Approvals are about what is shown, and a shadow never is.
            switches=Switches(services.records, clock=services.clock, site=services.site.name, policies=policies),
            shadows=None,
            vault=None,
            spooling=None,
            watch=NOT_WATCHED,
        )
        self._needs = needs
        self._waiting: deque[_Answered] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._rests_until: dict[str, float] = {}

    async def follow(
        self, request: InferenceRequest, packet: InferencePacket, fetched: FetchedFacts, *, champion: Bundle
    ) -> None:
        """Have a champion's shadows score what it has just answered; it never raises.

        Where somebody waits for the answer it returns at once. A batch waits, so that its shadows keep up with it.
        """
        if not self._of.get(request.model_id):
            return
        begins = self._services.clock.monotonic() + (AFTER_S if request.lane is Lane.CLICK else 0.0)
        # What was handed over with the question, such as a lent token, ends with it.
        asked = replace(request, handed=None)
        answered = _Answered(request=asked, packet=packet, fetched=fetched, champion=champion, begins=begins)
        if request.lane is Lane.BATCH:
            await self._score(answered)
            return
        if len(self._waiting) >= _AT_MOST:
            _log.warning("alert=shadow-skipped model=%s: too many answers wait for their shadows", request.model_id)
            return
        self._waiting.append(answered)
        is_at_work = self._worker is not None and not self._worker.done()
        if not is_at_work:
            # In a context of its own: this one task goes on to score what other requests have left, and must not pass
            # as a part of the first one's trace.
            self._worker = asyncio.get_running_loop().create_task(self._work(), context=fresh_context())

    async def settled(self) -> None:
        """Return when nothing waits any more."""
        while self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker])

    async def aclose(self) -> None:
        """Stop; what waits gets no shadow."""
        self._waiting.clear()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        clock = self._services.clock
        while self._waiting:
            answered = self._waiting.popleft()
            if (wait_s := answered.begins - clock.monotonic()) > 0:
                await clock.sleep(wait_s)
            await self._score(answered)

    async def _score(self, answered: _Answered) -> None:
        clock, limit_s = self._services.clock, self._services.site.deadline_s
        for name in self._of[answered.request.model_id]:
            began = clock.monotonic()
            if began < self._rests_until.get(name, began):
                continue
            try:
                # Each call ends by itself in time; this is for what does not.
                async with asyncio.timeout(2 * limit_s):
                    await self._score_one(name, answered)
            except Exception as error:  # noqa: BLE001 whatever happens to a shadow is nobody else's trouble
                kind = type(error).__name__
                _log.warning("shadow failed: packet=%s model=%s error=%s", answered.packet.packet_id, name, kind)
            if clock.monotonic() - began >= limit_s:
                self._rests_until[name] = clock.monotonic() + RESTS_S
                _log.error("alert=shadow-hangs model=%s: it is left alone for %d s", name, RESTS_S)

    async def _score_one(self, name: str, answered: _Answered) -> None:
        try:
            shadow = self.models.bundle(name)
        except ModelUnavailable:
            shadow = None
        if shadow is not None and shadow.digest == answered.champion.digest:
            return  # It has become the champion since the deployment file was written.
        asked, packet = answered.request, answered.packet
        request = InferenceRequest(
            channel=CHANNEL,
            model_id=name,
            subject=asked.subject,
            event_time=asked.event_time,
            idempotency_key=packet.packet_id,
            correlation_id=asked.correlation_id,
            lane=Lane.BATCH,
            shadow_of=packet.packet_id,
        )
        source = _AtHand(answered, self._services.source, covers=self._covers(shadow, answered))
        await infer(request, replace(self._services, source=source))

    def _covers(self, shadow: Bundle | None, answered: _Answered) -> bool:
        """Tell whether what was fetched for the champion is what would be fetched for the shadow."""
        if shadow is None:
            return False
        wanted, had = (set(self._needs(each.spec)) for each in (shadow, answered.champion))
        # How old the newest fact is depends on all that was fetched, not only on what the model looks at.
        return wanted == had or (wanted < had and shadow.manifest.requires.newest_fact_hours is None)


class _AtHand:
    """Gives the facts that were fetched for the champion, where they are what the shadow needs; else fetches its own.

    Its own are fetched with the app's credentials: a token that was lent was lent for the champion's request.
    """

    def __init__(self, answered: _Answered, source: FactSource, *, covers: bool) -> None:
        self._fetched = answered.fetched
        self._source = source
        self._covers = covers

    async def fetch(
        self,
        subject: Subject,
        spec: FeatureSpec,
        *,
        as_of: datetime,
        budget: Budget | None = None,
        handed: Handed | None = None,
    ) -> FetchedFacts:
        """See `deployr_serve.core.ports.FactSource`."""
        if self._covers:
            # The searches stand in the champion's packet; they were made once.
            return replace(self._fetched, fetches=())
        return await self._source.fetch(subject, spec, as_of=as_of, budget=budget, handed=handed)


def _silent(policies: Policies) -> Policies:
    """Give each shadow a policy: silent, with the threshold at which its champion advises."""
    return Policies(
        declared={
            name: Policy(
                schema_version=SCHEMA_VERSION,
                model=name,
                mode=Mode.SILENT,
                threshold=policy.threshold,
                bands=policy.bands,
                explain=policy.explain,
            )
            for policy in policies.declared.values()
            for name in policy.shadows
        }
    )
