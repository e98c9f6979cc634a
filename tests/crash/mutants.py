"""Faults that are planted on purpose, each by name, to see that the schedules find them."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from deployr_core.packet import InferencePacket
from deployr_serve.core.deciding import ASSIGNMENT
from deployr_serve.core.ports import Record, Stored
from tests.crash.gates import held

_LATE_S = 0.05


def plant(name: str | None, application: Any) -> None:
    """Plant one in this process; None plants nothing."""
    if name is not None:
        MUTANTS[name](application)


def _class_with(method: str, application: Any) -> Any:
    """Give the class that does this at last, behind whatever passes the call on."""
    [cls] = {type(one) for one in held(application) if hasattr(type(one), method)}
    return cls


def _sends_before_it_stores(application: Any) -> None:
    services, store = application.services, _class_with("save_delivery", application)
    replace = store.replace

    async def sent_first(self: Any, packet: InferencePacket, *, deliveries: Any = (), **rest: Any) -> Stored:
        outputs = {output.name: output for output in services.outputs}
        bundle = services.models.bundle(packet.model.model_id)
        for each in deliveries:
            await outputs[each.output].send(packet, bundle, delivery_id=each.delivery_id)
        return await replace(self, packet, deliveries=deliveries, **rest)  # type: ignore[no-any-return]

    store.replace = sent_first


def _answers_before_it_is_stored(application: Any) -> None:
    store = _class_with("save_delivery", application)
    replace = store.replace

    async def stored_late(self: Any, packet: InferencePacket, *, etag: str, **rest: Any) -> Stored:
        if not packet.is_terminal:
            return await replace(self, packet, etag=etag, **rest)  # type: ignore[no-any-return]

        async def later() -> None:
            await asyncio.sleep(_LATE_S)
            await replace(self, packet, etag=etag, **rest)

        self.late = asyncio.create_task(later())
        return Stored(packet=packet, etag=etag)

    store.replace = stored_late


def _saves_deliveries_without_comparing(application: Any) -> None:
    store = _class_with("save_delivery", application)
    save = store.save_delivery

    async def saved_anyway(self: Any, delivery: Any, *, was: Any) -> None:
        await save(self, delivery, was=await self.read_delivery(was.delivery_id) or was)

    store.save_delivery = saved_anyway


def _sends_under_another_id_each_time(application: Any) -> None:
    for output in application.services.outputs:
        _under_another_id(output)


def _under_another_id(output: Any) -> None:
    send = output.send

    async def renamed(packet: Any, bundle: Any, *, delivery_id: str, budget: Any = None) -> None:
        await send(packet, bundle, delivery_id=f"{delivery_id}.{os.getpid()}", budget=budget)

    output.send = renamed


def _skips_the_place(application: Any) -> None:
    for output in application.services.outputs:
        [unguarded] = [held for held in vars(output).values() if hasattr(held, "send") and hasattr(held, "name")]
        output.send = unguarded.send


def _names_packets_by_chance(application: Any) -> None:
    numbers = itertools.count()
    for module in tuple(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("deployr_serve") and hasattr(module, "derive_packet_id"):
            module.derive_packet_id = lambda *_, **__: f"p{os.getpid():016x}{next(numbers):016x}"


def _keeps_no_arm(application: Any) -> None:
    records = _class_with("create_record", application)
    create = records.create_record

    async def created(self: Any, kind: str, record_id: str, content: bytes, **rest: Any) -> Record | None:
        if kind == ASSIGNMENT:
            return Record(content=content, etag="1")
        return await create(self, kind, record_id, content, **rest)  # type: ignore[no-any-return]

    records.create_record = created


def _forgets_that_it_sent_a_message(application: Any) -> None:
    records = _class_with("create_record", application)
    create = records.create_record

    async def created(self: Any, kind: str, record_id: str, content: bytes, *, now: Any, **rest: Any) -> Record | None:
        made = await create(self, kind, record_id, content, now=now, **rest)
        if made is None and kind == "message":
            return await self.read_record(kind, record_id, now=now)  # type: ignore[no-any-return]
        return made  # type: ignore[no-any-return]

    records.create_record = created


def _relays_nothing(application: Any) -> None:
    async def nothing(self: Any, **_: Any) -> tuple[()]:
        return ()

    _class_with("pending_deliveries", application).pending_deliveries = nothing


MUTANTS: Mapping[str, Callable[[Any], None]] = {
    "sends before it stores": _sends_before_it_stores,
    "answers before it is stored": _answers_before_it_is_stored,
    "saves deliveries without comparing": _saves_deliveries_without_comparing,
    "sends under another id each time": _sends_under_another_id_each_time,
    "skips the place": _skips_the_place,
    "names packets by chance": _names_packets_by_chance,
    "keeps no arm": _keeps_no_arm,
    "forgets that it sent a message": _forgets_that_it_sent_a_message,
    "relays nothing": _relays_nothing,
}
