"""The looks that the app itself takes every few minutes: at calls, deliveries, the spool, and the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo

from deployr_core.monitoring.alerting import Finding
from deployr_core.monitoring.alerting_operations import (
    OF_MODELS,
    OF_SITE,
    TIMER,
    Calls,
    Queues,
    of_model,
    of_site,
    of_store,
    week_of,
)
from deployr_core.packet import Delivery, DeliveryState
from deployr_serve.core.alert_desk import AlertDesk, Looked, Seen
from deployr_serve.core.alert_tallies import Tallies
from deployr_serve.core.decide import SWITCHED_OFF, Why
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.infer import Services
from deployr_serve.core.ports import InferenceStore
from deployr_serve.core.spool import SpoolUnavailable

_PAGE, _MOST_PAGES = 500, 8
"""What is read of deliveries in one state: with 4,000 given up, it does not matter how many more there are."""

_MEANT = frozenset({SWITCHED_OFF, Why.SILENT.value})
"""Why somebody wanted scores to be given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertWatch:
    """What the app's timer looks with.

    ``desk``: in shared records. ``own_desk``: in this process's memory, for alerts about the store itself. ``zone``:
    the site's, in which its week is learnt.
    """

    services: Services
    desk: AlertDesk
    own_desk: AlertDesk
    tallies: Tallies
    zone: tzinfo

    async def look(self) -> Looked:
        """Look once at everything. Where the store does not answer, that is all that is found."""
        try:
            found = await self.desk.look(TIMER, self._operations)
        except StoreUnavailable:
            return await self._of_store(is_there=False)
        await self._of_store(is_there=True)
        return found

    async def _of_store(self, *, is_there: bool) -> Looked:
        async def find(last_runs: Mapping[str, datetime]) -> Seen:  # noqa: ARG001 nobody watches this one
            return Seen(findings=(of_store(is_there=is_there),), watched=("store",))

        return await self.own_desk.look(TIMER, find)

    async def _operations(self, last_runs: Mapping[str, datetime]) -> Seen:
        services, rules = self.services, self.desk.rules
        now = services.clock.now()
        found: list[Finding] = []
        is_read = await self.tallies.count()
        models = tuple(services.models.deployed())
        for model, (hours, last_at) in (await self.tallies.of_models(models)).items() if is_read else ():
            calls = Calls(model=model, hours=hours, last_at=last_at, is_off=await services.switches.is_off(model))
            week = week_of(calls, zone=self.zone, now=now)
            found += of_model(calls, rules.of(model), rhythm=week, deadline_s=services.site.deadline_s, now=now)
        queues = await self._queues(last_runs)
        found += of_site(queues, rules.rules, evaluator=TIMER, now=now)
        # Of calls that are not all read yet nothing can be said, neither that they are well.
        return Seen(findings=found, watched=(*OF_MODELS, *OF_SITE) if is_read else OF_SITE)

    async def _queues(self, last_runs: Mapping[str, datetime]) -> Queues:
        store, spooling = self.services.store, self.services.spooling
        outputs = {output.name for output in self.services.outputs}
        given_up: dict[str, list[datetime]] = {name: [] for name in outputs}
        for delivery in await _deliveries(store, DeliveryState.DEAD):
            if delivery.last_error not in _MEANT:
                given_up.setdefault(delivery.output, []).append(delivery.updated_at)
        oldest: dict[str, datetime | None] = dict.fromkeys(outputs)
        for delivery in await _deliveries(store, DeliveryState.PENDING):
            oldest[delivery.output] = min(oldest.get(delivery.output) or delivery.created_at, delivery.created_at)
        spooled_at, is_losing = None, False
        if spooling is not None:
            try:
                spooled_at, is_losing = (await spooling.spool.standing()).oldest_at, spooling.is_losing
            except SpoolUnavailable:
                is_losing = True
        return Queues(
            given_up=given_up,
            oldest_pending=oldest,
            has_spool=spooling is not None,
            spooled_at=spooled_at,
            is_losing=is_losing,
            last_runs=last_runs,
        )


async def _deliveries(store: InferenceStore, state: DeliveryState) -> list[Delivery]:
    found: list[Delivery] = []
    after: str | None = None
    for _ in range(_MOST_PAGES):
        page = await store.deliveries(state=state, after=after, limit=_PAGE)
        found += page
        if len(page) < _PAGE:
            break
        after = page[-1].delivery_id
    return found
