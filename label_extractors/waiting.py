"""Which packets wait for a label or a second look: page by page, over all models, from where a run left off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from deployr_core.label_rules import LabelRule, rule_name
from deployr_core.packet import InferencePacket
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.ports import InferenceStore, Records
from label_extractors.rules import Asked

PAGE = 500
_PROGRESS = "label-progress"


@dataclass(frozen=True, kw_only=True, slots=True)
class ToLabel:
    """A model whose packets are labelled, and by which rule; ``visit_classes`` as in `label_extractors.rules.Asked`."""

    model_id: str
    rule: LabelRule
    visit_classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A packet to look at."""

    packet_id: str
    asked: Asked


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run over several models stands: within a model's packets without or with a label, past an id."""

    model_id: str
    again: bool
    after: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Packets that are labelled together, and the place that follows them; None after the last."""

    packets: tuple[Waiting, ...]
    then: Place | None


async def spans(
    store: InferenceStore,
    models: Sequence[ToLabel],
    *,
    began: Place | None,
    again_for: timedelta | None,
    now: datetime,
    at_most: int,
) -> AsyncIterator[Span]:
    """Give what waits, about ``at_most`` packets at a time: what is read of a patient serves all of a span.

    Args:
        store: where packets and labels are.
        models: whose packets, in a fixed order.
        began: from where on; None begins at the first.
        again_for: for how long after its last change a label is looked at again; None looks at no label again.
        now: when the run began: what is labelled while it lasts is not looked at again.
        at_most: how many packets; a page's worth more may come.
    """
    held: list[Waiting] = []
    passes = [(model, again) for model in models for again in ((False, True) if again_for is not None else (False,))]
    places = [(model.model_id, again) for model, again in passes]
    # A model that is no longer deployed, or a run that looks at nothing again: from the first on.
    start = places.index((began.model_id, began.again)) if began and (began.model_id, began.again) in places else None
    after = began.after if began and start is not None else None
    for model, again in passes[start or 0 :]:
        while page := await _page(store, model, again_for if again else None, after=after, now=now):
            after = page[-1].packet_id
            held += (_waiting(packet, model) for packet in page)
            if len(held) >= at_most:
                yield Span(packets=tuple(held), then=Place(model_id=model.model_id, again=again, after=after))
                held = []
        after = None
    if held:
        yield Span(packets=tuple(held), then=None)


def _waiting(packet: InferencePacket, model: ToLabel) -> Waiting:
    asked = Asked(rule=model.rule, subject=packet.subject, as_of=packet.as_of, visit_classes=model.visit_classes)
    return Waiting(packet_id=packet.packet_id, asked=asked)


async def _page(
    store: InferenceStore, model: ToLabel, again_for: timedelta | None, *, after: str | None, now: datetime
) -> tuple[InferencePacket, ...]:
    rule = rule_name(model.rule)
    if again_for is None:
        return await store.unlabelled(model_id=model.model_id, rule=rule, after=after, limit=PAGE)
    return await store.labelled(
        model_id=model.model_id, rule=rule, since=now - again_for, until=now, after=after, limit=PAGE
    )


async def left_off(records: Records, name: str, *, now: datetime) -> Place | None:
    """Give the place at which the last run of that name ran out of time; None if it came to its end."""
    record = await records.read_record(_PROGRESS, name, now=now)
    return None if record is None else msgspec.json.decode(record.content, type=Place | None)


async def leave_off(records: Records, name: str, place: Place | None, *, now: datetime) -> None:
    """Store where the next run of that name goes on; nothing is written where that stays the same."""
    content = msgspec.json.encode(place)
    record = await records.read_record(_PROGRESS, name, now=now)
    if record is None:
        if place is not None:
            await records.create_record(_PROGRESS, name, content, now=now)
    elif record.content != content:
        try:
            await records.replace_record(_PROGRESS, name, content, etag=record.etag)
        except RecordChanged:
            # Another run of the same name has come further or less far: either place is as good to go on from.
            return
