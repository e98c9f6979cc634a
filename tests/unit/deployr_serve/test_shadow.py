"""Shadows score what a champion was asked, after its answer, and nothing that happens to them reaches it."""

from __future__ import annotations

import asyncio
import dataclasses
from contextvars import ContextVar

import msgspec
import pytest

from deployr_core.packet import Abstained, Failed, Mode, Scored
from deployr_core.scoring import Reply, ScoreInvalid
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.decide import SWITCHED_OFF
from deployr_serve.core.errors import EmrUnreachable, ModelUnavailable, StoreUnavailable
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policy
from deployr_serve.core.ports import Handed, Lane
from deployr_serve.core.shadow import CHANNEL, RESTS_S, Shadows
from deployr_serve.core.switches import EVERYTHING, HOLD_S, Change, model_switch, turn

SHADOW = "hematocrit-3f2a91c04b7e"
LIVE = Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, threshold=0.6, shadows=(SHADOW,))


def the_same(_):
    return ("labs", "drugs")


@pytest.fixture
def challenger(bundle):
    return msgspec.structs.replace(bundle, digest="c" * 64)


@pytest.fixture
def shadowed(services_of, challenger, models_of):
    """Give a function that makes the champion's services, followed by one shadow."""

    def make(*, shadow=challenger, needs=the_same, policies=(LIVE,), store_of_shadow=None, **given):
        services = services_of(policies=policies, **given)
        followed = services if store_of_shadow is None else dataclasses.replace(services, store=store_of_shadow)
        shadows = Shadows(followed, models=models_of(**{SHADOW: shadow}), needs=needs)
        return dataclasses.replace(services, shadows=shadows)

    return make


async def packets_of(services, model_id):
    return await services.store.packets(model_id=model_id, after=None, limit=100)


async def test_a_shadow_scores_the_facts_that_were_fetched_and_names_the_champions_packet(
    request_of, shadowed, source_of, fetched_of, lab_of, challenger
):
    source = source_of(fetched_of(lab_of()))
    services = shadowed(source=source)

    answer = await infer(request_of(), services)
    await services.shadows.settled()

    (packet,) = await packets_of(services, SHADOW)
    assert packet.shadow_of == answer.packet.packet_id
    assert (packet.subject, packet.as_of) == (answer.packet.subject, answer.packet.as_of)
    assert packet.outcome.score == 3 / 4
    assert packet.model.bundle_sha256 == challenger.digest
    assert packet.trigger.channel == CHANNEL
    # The EMR was read once; the searches stand in the champion's packet.
    assert len(source.asked) == 1
    assert packet.fetches == ()


async def test_a_shadow_inherits_nothing_of_the_request_that_set_it_to_work(request_of, shadowed, fetched_of, lab_of):
    """Such as the parent of its trace: one worker scores what many requests have left."""
    belongs_to: ContextVar[str] = ContextVar("belongs_to", default="nobody")

    class Remembers:
        def __init__(self):
            self.asked_for = []

        async def fetch(self, subject, spec, *, as_of, budget=None, handed=None):
            self.asked_for.append(belongs_to.get())
            return fetched_of(lab_of())

    source = Remembers()
    services = shadowed(source=source, needs=lambda _: (object(),))
    for order in ("o1", "o2"):
        belongs_to.set(order)
        await infer(request_of(order_id=order), services)
    await services.shadows.settled()
    assert source.asked_for == ["o1", "o2", "nobody", "nobody"]


async def test_a_shadow_is_silent_at_the_champions_threshold_and_nothing_of_it_is_sent(request_of, shadowed, output_of):
    output = output_of()
    services = shadowed(outputs=(output,))

    answer = await infer(request_of(), services)
    await services.shadows.settled()

    (packet,) = await packets_of(services, SHADOW)
    decision = packet.outcome.decision
    assert (decision.mode, decision.advise, decision.threshold) == (Mode.SILENT, False, 0.6)
    assert output.sent == [f"{answer.packet.packet_id}.score-column"]


async def test_where_somebody_waits_the_shadow_begins_after_the_answer(request_of, shadowed):
    services = shadowed()

    await infer(request_of(), services)

    assert await packets_of(services, SHADOW) == ()
    await services.shadows.settled()
    assert len(await packets_of(services, SHADOW)) == 1


async def test_a_batch_waits_for_its_shadows_so_that_none_is_left_behind(request_of, shadowed):
    services = shadowed()

    for number in range(3):
        await infer(dataclasses.replace(request_of(order_id=f"o{number}"), lane=Lane.BATCH), services)

    assert len(await packets_of(services, SHADOW)) == 3


class NeverAnswers:
    """A source whose second answer never comes."""

    def __init__(self, first):
        self._first = first
        self.hung = asyncio.Event()

    async def fetch(self, subject, spec, *, as_of, budget=None, handed=None):
        if self._first is not None:
            first, self._first = self._first, None
            return first
        self.hung.set()
        return await asyncio.Event().wait()


class RefusesShadows(MemoryStore):
    async def create(self, packet):
        if packet.shadow_of is not None:
            raise StoreUnavailable("expected a store that takes this packet")
        return await super().create(packet)


class Broken:
    def reply(self, vector):
        raise ScoreInvalid("expected a probability")


class Unforeseen:
    def reply(self, vector):
        raise RuntimeError("nobody expected this")


@pytest.mark.parametrize("fault", ["unavailable", "breaks", "unforeseen", "store", "no such run"])
async def test_whatever_becomes_of_the_shadow_the_champions_answer_is_the_same_to_the_bit(
    request_of, shadowed, services_of, challenger, models_of, clock, fault
):
    alone = await infer(request_of(), services_of(policies=(LIVE,)))
    taken = clock.monotonic()
    given = {
        "unavailable": {"shadow": ModelUnavailable("expected a bundle")},
        "breaks": {"shadow": msgspec.structs.replace(challenger, model=Broken())},
        "unforeseen": {"shadow": msgspec.structs.replace(challenger, model=Unforeseen())},
        "store": {"store_of_shadow": RefusesShadows()},
        "no such run": {"shadow": KeyError(SHADOW)},
    }[fault]
    services = shadowed(**given)

    followed = await infer(request_of(), services)

    assert msgspec.json.encode(followed.packet) == msgspec.json.encode(alone.packet)
    assert clock.monotonic() == taken
    await services.shadows.settled()
    held = await services.store.read(followed.packet.packet_id)
    assert msgspec.json.encode(held.packet) == msgspec.json.encode(alone.packet)


class HangsForShadows(MemoryStore):
    def __init__(self):
        super().__init__()
        self.hung = asyncio.Event()

    async def create(self, packet):
        self.hung.set()
        return await asyncio.Event().wait()


@pytest.mark.parametrize("where", ["EMR", "store"])
async def test_a_shadow_that_hangs_holds_up_no_answer(request_of, shadowed, services_of, fetched_of, lab_of, where):
    alone = await infer(request_of(), services_of(policies=(LIVE,)))
    # It needs other searches than the champion, so that it fetches for itself, and waits for ever.
    source, store = NeverAnswers(fetched_of(lab_of())), HangsForShadows()
    hanging = {"needs": lambda _: (object(),)} if where == "EMR" else {"store_of_shadow": store}
    services = shadowed(source=source, **hanging)

    followed = await infer(request_of(), services)
    await (source if where == "EMR" else store).hung.wait()

    assert msgspec.json.encode(followed.packet) == msgspec.json.encode(alone.packet)
    assert (await services.store.read(followed.packet.packet_id)).packet.outcome == alone.packet.outcome
    await services.shadows.aclose()


@pytest.mark.parametrize("name", [EVERYTHING, model_switch(SHADOW)])
async def test_a_switch_stops_shadows_too_alone_or_with_everything(request_of, shadowed, clock, name):
    services = shadowed()
    await infer(request_of(), services)
    await services.shadows.settled()

    await turn(services.records, name, Change(is_off=True, by="ada", why="to see", at=clock.now()))
    clock.pass_time(HOLD_S)
    await infer(request_of(order_id="o2"), services)
    await services.shadows.settled()

    found = {packet.subject.order_id: packet.outcome for packet in await packets_of(services, SHADOW)}
    assert isinstance(found["o1"], Scored)
    assert found.get("o2", Abstained(reason=SWITCHED_OFF)) == Abstained(reason=SWITCHED_OFF)


async def test_a_failure_of_the_shadow_is_its_own_failed_packet(request_of, shadowed, challenger):
    services = shadowed(shadow=msgspec.structs.replace(challenger, model=Broken()))

    answer = await infer(request_of(), services)
    await services.shadows.settled()

    (packet,) = await packets_of(services, SHADOW)
    assert packet.outcome == Failed(reason="model-error", retryable=False)
    assert packet.shadow_of == answer.packet.packet_id
    assert isinstance(answer.packet.outcome, Scored)


async def test_a_shadow_that_took_as_long_as_a_request_may_is_left_alone_for_a_minute(
    request_of, shadowed, fetched_of, lab_of, clock, caplog
):
    class Slow:
        def __init__(self):
            self.asked = 0

        async def fetch(self, subject, spec, *, as_of, budget=None, handed=None):
            self.asked += 1
            if self.asked == 2:
                clock.pass_time(9.0)
            return fetched_of(lab_of())

    services = shadowed(source=Slow(), needs=lambda _: (object(),))

    for order in ("o1", "o2"):
        await infer(request_of(order_id=order), services)
        await services.shadows.settled()
    assert [packet.subject.order_id for packet in await packets_of(services, SHADOW)] == ["o1"]
    assert "alert=shadow-hangs" in caplog.text

    clock.pass_time(RESTS_S)
    await infer(request_of(order_id="o3"), services)
    await services.shadows.settled()
    found = {packet.subject.order_id for packet in await packets_of(services, SHADOW)}
    assert found == {"o1", "o3"}


async def test_without_facts_there_is_nothing_to_follow(request_of, shadowed, source_of):
    source = source_of(EmrUnreachable("expected a connection"))
    services = shadowed(source=source)

    await infer(request_of(), services)
    await services.shadows.settled()

    assert await packets_of(services, SHADOW) == ()
    assert len(source.asked) == 1


async def test_a_repeat_makes_no_second_packet_of_the_shadow(request_of, shadowed):
    services = shadowed()

    for _ in range(2):
        await infer(request_of(), services)
        await services.shadows.settled()

    assert len(await packets_of(services, SHADOW)) == 1


async def test_a_shadow_that_has_become_the_champion_scores_nothing_twice(request_of, shadowed, bundle):
    services = shadowed(shadow=bundle)

    await infer(request_of(), services)
    await services.shadows.settled()

    assert await packets_of(services, SHADOW) == ()


@pytest.mark.parametrize(
    ("champions", "shadows", "searches"),
    [
        (("labs", "drugs"), ("labs", "drugs"), 1),
        (("labs", "drugs"), ("labs",), 1),
        (("labs",), ("labs", "drugs"), 2),
        (("labs since May",), ("labs since April",), 2),
    ],
)
async def test_the_emr_is_read_again_only_for_what_was_not_fetched(
    request_of, shadowed, source_of, fetched_of, lab_of, challenger, feature_spec, champions, shadows, searches
):
    other = msgspec.structs.replace(feature_spec, groups=feature_spec.groups[:2])
    source = source_of(fetched_of(lab_of()))

    class CountsLabs:
        def reply(self, vector):
            return Reply((0.5,))

    services = shadowed(
        shadow=msgspec.structs.replace(challenger, spec=other, model=CountsLabs()),
        source=source,
        needs=lambda spec: shadows if spec is other else champions,
    )

    await infer(request_of(), services)
    await services.shadows.settled()

    (packet,) = await packets_of(services, SHADOW)
    assert packet.outcome.score == 0.5
    assert len(source.asked) == searches


async def test_a_shadow_that_weighs_how_old_the_newest_fact_is_gets_only_what_it_asks_for_itself(
    request_of, shadowed, source_of, fetched_of, lab_of, challenger, feature_spec
):
    other = msgspec.structs.replace(feature_spec, groups=feature_spec.groups[:2])
    manifest = challenger.manifest
    strict = msgspec.structs.replace(
        manifest, requires=msgspec.structs.replace(manifest.requires, newest_fact_hours=48)
    )
    source = source_of(fetched_of(lab_of()))
    services = shadowed(
        shadow=msgspec.structs.replace(challenger, spec=other, manifest=strict),
        source=source,
        needs=lambda spec: ("labs",) if spec is other else ("labs", "drugs"),
    )

    await infer(request_of(), services)
    await services.shadows.settled()

    assert len(source.asked) == 2


async def test_a_lent_token_ends_with_the_request_that_it_was_lent_for(request_of, shadowed, fetched_of, lab_of):
    class Remembers:
        def __init__(self):
            self.handed = []

        async def fetch(self, subject, spec, *, as_of, budget=None, handed=None):
            self.handed.append(handed)
            return fetched_of(lab_of())

    source, lent = Remembers(), Handed(token="lent")
    services = shadowed(source=source, needs=lambda _: (object(),))

    await infer(dataclasses.replace(request_of(), handed=lent), services)
    waiting = [answered.request.handed for answered in services.shadows._waiting]
    await services.shadows.settled()

    assert waiting == [None]
    assert source.handed == [lent, None]


async def test_more_answers_than_can_wait_have_no_shadow_and_are_told_of(
    request_of, shadowed, fetched_of, lab_of, caplog, monkeypatch
):
    monkeypatch.setattr("deployr_serve.core.shadow._AT_MOST", 2)
    source = NeverAnswers(fetched_of(lab_of()))
    services = shadowed(source=source, needs=lambda _: (object(),))
    answer = await infer(request_of(), services)
    await source.hung.wait()

    # One is at work and hangs; two may wait.
    for _ in range(3):
        assert "alert=shadow-skipped" not in caplog.text
        await services.shadows.follow(
            request_of(), answer.packet, fetched_of(), champion=services.models.bundle("hematocrit")
        )

    assert "alert=shadow-skipped model=hematocrit" in caplog.text
    await services.shadows.aclose()


@pytest.mark.parametrize("shadows", [("a-1", "a-1"), ("hematocrit",), ("A",)])
def test_shadows_are_runs_each_once_and_never_the_model_itself(shadows):
    with pytest.raises(ValueError, match="expected"):
        Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, shadows=shadows)
