from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import msgspec
import pytest

from deployr_core.packet import (
    Abstained,
    Attempt,
    DeliveryState,
    Failed,
    FetchRecord,
    Received,
    Rejected,
    Scored,
)
from deployr_core.packet_ids import derive_packet_id
from deployr_core.scoring import ScoreInvalid
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrRefused,
    EmrTimeout,
    EmrUnreachable,
    EventInFuture,
    InProgress,
    KeyReused,
    ModelUnavailable,
    RecordChanged,
    StoreUnavailable,
    UnknownContext,
    UnknownModel,
    UnknownPatient,
    WrongPatient,
)
from deployr_serve.core.infer import infer

DEADLINE_S = 8.0
LEASE_S = 2 * DEADLINE_S


async def all_packets(services):
    return await services.store.packets(model_id="hematocrit", after=None, limit=1000)


async def all_pending(services, now):
    return await services.store.pending_deliveries(due_before=now + timedelta(days=1), limit=1000)


# -- scored


async def test_a_patient_with_a_result_in_the_window_is_scored_three_quarters(request_of, services_of):
    answer = await infer(request_of(), services_of())
    assert answer.packet.outcome.score == 3 / 4
    assert answer.replayed is False


async def test_a_patient_without_a_result_is_scored_one_quarter(request_of, services_of, source_of, fetched_of):
    answer = await infer(request_of(), services_of(source=source_of(fetched_of())))
    assert answer.packet.outcome.score == 1 / 4


async def test_a_result_released_after_the_event_is_not_seen(
    request_of, services_of, source_of, fetched_of, lab_of, now
):
    late = lab_of(known_at=now)
    answer = await infer(request_of(), services_of(source=source_of(fetched_of(late))))
    assert answer.packet.outcome.score == 1 / 4


async def test_the_stored_packet_is_the_one_answered_and_says_all_that_scoring_again_needs(
    request_of, services_of, bundle, now
):
    services = services_of()
    answer = await infer(request_of(), services)
    assert await all_packets(services) == (answer.packet,)
    packet = answer.packet
    assert (packet.site, packet.environment) == ("test", "TEST")
    assert (packet.model.version, packet.model.bundle_sha256) == ("1.0.0", bundle.digest)
    assert packet.as_of == packet.trigger.event_time == now
    outcome = packet.outcome
    assert isinstance(outcome, Scored)
    # Features in order: female, male, count, last, D50.9, 310325. A woman with one result of 30 %.
    assert (outcome.vector.size, outcome.vector.indices, outcome.vector.values) == (6, (0, 2, 3), (1.0, 1.0, 30.0))
    assert outcome.vector.spec_sha256 == bundle.spec.digest()
    assert (outcome.coverage["labs.results"], outcome.coverage["labs.status_not_final"]) == (1, 2)
    assert outcome.entity_id == "42"


async def test_the_packet_id_comes_from_the_sites_key_and_the_request_alone(request_of, services_of):
    request, services = request_of(), services_of()
    answer = await infer(request, services)
    assert answer.packet.packet_id == derive_packet_id(
        services.site.id_key, environment="TEST", model_id="hematocrit", request_key=request.key
    )
    assert "o1" not in answer.packet.packet_id


async def test_a_repeat_is_answered_from_the_store_without_fetching_or_sending_again(
    request_of, services_of, source_of, output_of, fetched_of, lab_of
):
    source, output = source_of(fetched_of(lab_of()), fetched_of()), output_of()
    services = services_of(source=source, outputs=(output,))
    first = await infer(request_of(), services)
    again = await infer(request_of(), services)
    assert again.packet == first.packet
    assert (first.replayed, again.replayed) == (False, True)
    assert len(source.asked) == len(output.sent) == 1
    assert len(await all_packets(services)) == 1


async def test_what_is_prepared_is_the_packet_that_is_answered_before_anybody_is_told(
    request_of, services_of, tmp_path
):
    store, prepared = SqliteStore(tmp_path / "store.sqlite"), []
    services = services_of(store=store)
    answer = await infer(request_of(), services, prepare=prepared.append)
    again = await infer(request_of(), services, prepare=prepared.append)
    assert again.packet == answer.packet
    # A repeat stores nothing, so that nothing is waited for.
    assert [each is answer.packet for each in prepared] == [True]
    await store.aclose()


async def test_what_cannot_be_prepared_is_answered_all_the_same(request_of, services_of, tmp_path, caplog):
    store, asked = SqliteStore(tmp_path / "store.sqlite"), []

    def prepare(packet):
        asked.append(packet)
        raise ValueError("CANARY")

    answer = await infer(request_of(), services_of(store=store), prepare=prepare)
    assert isinstance(answer.packet.outcome, Scored)
    assert asked == [answer.packet]
    assert "CANARY" not in caplog.text
    await store.aclose()


async def test_the_same_question_by_another_correlation_is_the_same_request(request_of, services_of):
    services = services_of()
    first = await infer(request_of(), services)
    again = await infer(dataclasses.replace(request_of(), correlation_id="correlation-2"), services)
    assert (again.packet, again.replayed) == (first.packet, True)


@pytest.mark.parametrize(
    "other",
    [{"patient_id": "p2"}, {"order_id": "o2"}, {"order_id": None}],
    ids=["patient", "order", "no order"],
)
async def test_another_question_without_a_key_is_another_packet(request_of, services_of, other):
    services = services_of()
    await infer(request_of(), services)
    assert (await infer(request_of(**other), services)).replayed is False
    assert len(await all_packets(services)) == 2


# -- evidence before effect


async def test_packet_and_pending_delivery_are_stored_before_the_output_is_called(request_of, services_of, output_of):
    store = MemoryStore()
    output = output_of(store=store)
    answer = await infer(request_of(), services_of(store=store, outputs=(output,)))
    [(stored, delivery)] = output.stored_when_sent
    assert stored.packet == answer.packet
    assert isinstance(stored.packet.outcome, Scored)
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 0)


async def test_a_score_that_was_sent_leaves_a_sent_delivery(request_of, services_of, output_of, now):
    output = output_of()
    services = services_of(outputs=(output,))
    answer = await infer(request_of(), services)
    delivery_id = f"{answer.packet.packet_id}.score-column"
    delivery = await services.store.read_delivery(delivery_id)
    assert (delivery.state, delivery.attempts, delivery.last_error) == (DeliveryState.SENT, 1, None)
    assert output.scores == {delivery_id: 3 / 4}
    assert await all_pending(services, now) == ()


async def test_an_output_that_is_down_leaves_the_answer_as_it_is_and_the_delivery_pending(
    request_of, services_of, output_of, now
):
    services = services_of(outputs=(output_of(EmrUnreachable("down")),))
    answer = await infer(request_of(), services)
    assert answer.packet.outcome.score == 3 / 4
    [delivery] = await all_pending(services, now)
    assert (delivery.attempts, delivery.last_error) == (1, "emr-unreachable")


async def test_an_output_that_fails_in_a_way_nobody_foresaw_leaves_the_answer_as_it_is(
    request_of, services_of, output_of, now
):
    services = services_of(outputs=(output_of(RuntimeError("a bug")),))
    answer = await infer(request_of(), services)
    assert answer.packet.outcome.score == 3 / 4
    [delivery] = await all_pending(services, now)
    assert (delivery.attempts, delivery.last_error) == (1, "unexpected")


async def test_an_output_that_never_answers_is_left_at_the_deadline_and_to_the_relay(
    request_of, services_of, output_of, now
):
    class HangingOutput(output_of):
        async def send(self, packet, bundle, *, delivery_id, budget=None):
            await asyncio.Event().wait()

    services = services_of(outputs=(HangingOutput(),), deadline_s=1.0)
    answer = await asyncio.wait_for(infer(request_of(), services), timeout=5)
    assert answer.packet.outcome.score == 3 / 4
    [delivery] = await all_pending(services, now)
    assert (delivery.attempts, delivery.last_error) == (1, "emr-timeout")


class StoreThatFails(MemoryStore):
    """Loses its connection at one method, from its ``after``-th call on."""

    def __init__(self, method, *, after=0):
        super().__init__()
        self.calls = 0

        async def fail(*_, **__):
            raise StoreUnavailable("expected a store that can be read and written")

        working = getattr(self, method)

        async def count_and_fail(*arguments, **named):
            self.calls += 1
            return await (fail if self.calls > after else working)(*arguments, **named)

        setattr(self, method, count_and_fail)


@pytest.mark.parametrize("method", ["create", "replace"])
async def test_without_a_stored_packet_nothing_is_answered_and_nothing_is_sent(
    request_of, services_of, output_of, method
):
    output = output_of()
    with pytest.raises(StoreUnavailable):
        await infer(request_of(), services_of(store=StoreThatFails(method), outputs=(output,)))
    assert output.sent == []


async def test_without_a_store_nothing_is_fetched(request_of, services_of, source_of, fetched_of):
    source = source_of(fetched_of())
    with pytest.raises(StoreUnavailable):
        await infer(request_of(), services_of(store=StoreThatFails("create"), source=source))
    assert source.asked == []


async def test_a_store_that_goes_away_after_the_score_was_stored_takes_nothing_from_the_answer(
    request_of, services_of, output_of, now
):
    store, output = StoreThatFails("save_delivery"), output_of()
    services = services_of(store=store, outputs=(output,))
    answer = await infer(request_of(), services)
    assert answer.packet.outcome.score == 3 / 4
    assert len(output.sent) == 1
    # It cannot be known as sent, so the relay will send it again, under the same id.
    assert [delivery.delivery_id for delivery in await all_pending(services, now)] == output.sent


# -- not scored


@pytest.mark.parametrize(
    "error", [UnknownPatient("none"), UnknownContext("none"), WrongPatient("foreign")], ids=lambda e: e.reason
)
async def test_what_cannot_be_answered_is_stored_as_rejected_and_nothing_is_sent(
    request_of, services_of, source_of, output_of, error
):
    output = output_of()
    services = services_of(source=source_of(error), outputs=(output,))
    answer = await infer(request_of(), services)
    assert answer.packet.outcome == Rejected(reason=error.reason)
    assert await all_packets(services) == (answer.packet,)
    assert output.sent == []


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (EmrUnreachable("down"), True),
        (EmrTimeout("slow"), True),
        (EmrBadResponse("html"), True),
        (EmrRefused("scopes"), False),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
async def test_what_could_not_be_fetched_is_stored_as_failed_and_nothing_is_sent(
    request_of, services_of, source_of, output_of, error, retryable
):
    output = output_of()
    services = services_of(source=source_of(error), outputs=(output,))
    answer = await infer(request_of(), services)
    assert answer.packet.outcome == Failed(reason=error.reason, retryable=retryable)
    assert await all_packets(services) == (answer.packet,)
    assert output.sent == []


async def test_a_source_that_is_slower_than_the_deadline_is_stored_as_timed_out(request_of, services_of, source_of):
    services = services_of(source=source_of(asyncio.Event().wait), deadline_s=0.5)
    answer = await asyncio.wait_for(infer(request_of(), services), timeout=5)
    assert answer.packet.outcome == Failed(reason="emr-timeout", retryable=True)
    assert await all_packets(services) == (answer.packet,)


async def test_a_source_that_fails_in_a_way_nobody_foresaw_leaves_a_failed_packet_behind_the_error(
    request_of, services_of, source_of, fetched_of
):
    services = services_of(source=source_of(RuntimeError("a bug"), fetched_of()))
    with pytest.raises(RuntimeError):
        await infer(request_of(), services)
    [packet] = await all_packets(services)
    assert packet.outcome == Failed(reason="unexpected", retryable=False)
    assert (await infer(request_of(), services)).packet.outcome.score == 1 / 4


async def test_a_model_that_gives_no_probability_is_stored_as_a_model_error(request_of, services_of, models_of, bundle):
    class BrokenEnsemble:
        def reply(self, vector):
            raise ScoreInvalid("expected one probability from 0 to 1")

    broken = msgspec.structs.replace(bundle, model=BrokenEnsemble())
    answer = await infer(request_of(), services_of(models=models_of(hematocrit=broken)))
    assert answer.packet.outcome == Failed(reason="model-error", retryable=False)


async def test_a_failure_after_fetching_keeps_the_record_of_what_was_fetched(
    request_of, services_of, source_of, fetched_of, models_of, bundle
):
    class BrokenEnsemble:
        def reply(self, vector):
            raise ValueError("expected a vector of another size")

    record = FetchRecord(resource="Observation", resources=3, pages=1, milliseconds=1.5)
    fetched = dataclasses.replace(fetched_of(), fetches=(record,))
    broken = msgspec.structs.replace(bundle, model=BrokenEnsemble())
    answer = await infer(request_of(), services_of(source=source_of(fetched), models=models_of(hematocrit=broken)))
    assert answer.packet.fetches == (record,)


async def test_a_model_whose_bundle_may_not_be_used_leaves_a_failed_packet_and_the_emr_in_peace(
    request_of, services_of, models_of, source_of, fetched_of
):
    source = source_of(fetched_of())
    services = services_of(models=models_of(hematocrit=ModelUnavailable("digest")), source=source)
    answer = await infer(request_of(), services)
    assert answer.packet.outcome == Failed(reason="model-unavailable", retryable=True)
    assert (answer.packet.model.version, answer.packet.model.bundle_sha256) == ("", "")
    assert source.asked == []
    assert await all_packets(services) == (answer.packet,)


async def test_an_unknown_model_leaves_no_packet(request_of, services_of, models_of):
    services = services_of(models=models_of())
    with pytest.raises(UnknownModel):
        await infer(request_of(), services)
    assert await all_packets(services) == ()


# -- time


async def test_an_event_as_far_ahead_as_clocks_may_differ_is_answered(request_of, services_of, now):
    answer = await infer(request_of(event_time=now + timedelta(minutes=5)), services_of())
    assert isinstance(answer.packet.outcome, Scored)


async def test_an_event_further_ahead_is_refused_and_leaves_no_packet(
    request_of, services_of, source_of, fetched_of, now
):
    source = source_of(fetched_of())
    services = services_of(source=source)
    with pytest.raises(EventInFuture):
        await infer(request_of(event_time=now + timedelta(minutes=5, microseconds=1)), services)
    assert await all_packets(services) == ()
    assert source.asked == []


# -- keys


async def test_a_key_used_for_another_question_is_refused_and_the_first_answer_stays(request_of, services_of):
    services = services_of()
    first = await infer(request_of(idempotency_key="k"), services)
    with pytest.raises(KeyReused):
        await infer(request_of(idempotency_key="k", patient_id="p2"), services)
    assert await all_packets(services) == (first.packet,)


async def test_one_question_under_two_keys_is_two_requests(request_of, services_of):
    services = services_of()
    await infer(request_of(idempotency_key="k1"), services)
    assert (await infer(request_of(idempotency_key="k2"), services)).replayed is False
    assert len(await all_packets(services)) == 2


async def test_a_key_that_spells_a_questions_digest_is_not_that_question(request_of, services_of):
    services = services_of()
    request = request_of()
    await infer(request, services)
    assert (await infer(request_of(idempotency_key=request.digest), services)).replayed is False


# -- again after a failure


async def test_a_failure_is_tried_again_and_each_earlier_attempt_is_kept(
    request_of, services_of, source_of, fetched_of, lab_of, clock, now
):
    source = source_of(EmrUnreachable("down"), EmrBadResponse("html"), fetched_of(lab_of()))
    services = services_of(source=source)
    await infer(request_of(), services)
    clock.pass_time(60)
    await infer(request_of(), services)
    clock.pass_time(60)
    answer = await infer(request_of(), services)
    assert answer.packet.outcome.score == 3 / 4
    assert answer.replayed is False
    assert [(attempt.started_at, attempt.reason) for attempt in answer.packet.earlier_attempts] == [
        (now, "emr-unreachable"),
        (now + timedelta(seconds=60), "emr-bad-response"),
    ]
    assert answer.packet.started_at == now + timedelta(seconds=120)
    assert len(await all_packets(services)) == 1


@pytest.mark.parametrize("outcome", [Rejected(reason="wrong-patient"), Abstained(reason="sparse")], ids=["rj", "ab"])
async def test_what_was_answered_otherwise_is_never_tried_again(
    request_of, services_of, source_of, fetched_of, packet_of, outcome
):
    source = source_of(fetched_of())
    services = services_of(source=source)
    request = request_of()
    packet_id = derive_packet_id(
        services.site.id_key, environment="TEST", model_id="hematocrit", request_key=request.key
    )
    trigger = packet_of().trigger
    held = packet_of(
        packet_id, outcome=outcome, trigger=msgspec.structs.replace(trigger, request_sha256=request.digest)
    )
    await services.store.create(held)
    answer = await infer(request, services)
    assert (answer.packet, answer.replayed) == (held, True)
    assert source.asked == []


@pytest.fixture
async def abandoned(request_of, services_of, source_of, fetched_of, packet_of, now):
    """Give services whose store holds the request's packet, taken on at `now` by a worker that has died since."""
    services = services_of(source=source_of(fetched_of()))
    request = request_of()
    packet_id = derive_packet_id(
        services.site.id_key, environment="TEST", model_id="hematocrit", request_key=request.key
    )
    await services.store.create(
        packet_of(
            packet_id,
            outcome=Received(lease_until=now + timedelta(seconds=LEASE_S)),
            trigger=msgspec.structs.replace(packet_of().trigger, request_sha256=request.digest),
        )
    )
    return services


async def test_a_request_whose_worker_died_is_taken_over_when_its_lease_has_run_out(abandoned, request_of, clock, now):
    clock.pass_time(LEASE_S + 0.001)
    answer = await infer(request_of(), abandoned)
    assert answer.packet.outcome.score == 1 / 4
    assert answer.packet.earlier_attempts == (Attempt(started_at=now, ended_at=now, reason="lease-expired"),)
    assert len(await all_packets(abandoned)) == 1


async def test_a_request_is_left_to_its_worker_while_the_lease_runs(abandoned, request_of, clock):
    clock.pass_time(LEASE_S)
    [before] = await all_packets(abandoned)
    with pytest.raises(InProgress):
        await infer(request_of(), abandoned)
    assert await all_packets(abandoned) == (before,)
    assert abandoned.source.asked == []


async def test_waiting_for_another_worker_ends_at_the_deadline(abandoned, request_of, clock):
    started = clock.monotonic()
    with pytest.raises(InProgress):
        await infer(request_of(), abandoned)
    assert DEADLINE_S <= clock.monotonic() - started < DEADLINE_S + 0.1


async def test_a_worker_that_lost_its_lease_gives_the_answer_of_the_one_that_took_over(
    request_of, services_of, source_of, output_of, fetched_of, lab_of, clock
):
    """The first call's fetch outlasts its lease; a second call answers meanwhile."""
    store, first_output, second_output = MemoryStore(), output_of(), output_of()
    second = services_of(store=store, source=source_of(fetched_of(lab_of())), outputs=(second_output,))

    async def outlasting_the_lease():
        clock.pass_time(LEASE_S + 1)
        await infer(request_of(), second)
        return fetched_of()

    # Its deadline is longer than its lease, as when a machine was suspended.
    first = services_of(store=store, source=source_of(outlasting_the_lease), outputs=(first_output,))
    answer = await infer(request_of(), first)
    assert answer.packet.outcome.score == 3 / 4
    assert answer.replayed is True
    assert (first_output.sent, len(second_output.sent)) == ([], 1)


# -- all at once


async def test_fifty_identical_requests_at_once_make_one_packet_one_send_and_fifty_equal_answers(
    request_of, services_of, source_of, output_of, fetched_of, lab_of
):
    source, output = source_of(fetched_of(lab_of())), output_of()
    services = services_of(source=source, outputs=(output,), deadline_s=1000.0)
    answers = await asyncio.gather(*(infer(request_of(), services) for _ in range(50)))
    [packet] = await all_packets(services)
    assert [answer.packet for answer in answers] == [packet] * 50
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 49
    assert (len(source.asked), len(output.sent)) == (1, 1)


async def test_fifty_identical_requests_at_once_ask_an_emr_that_is_down_once(request_of, services_of, source_of):
    source = source_of(EmrUnreachable("down"))
    services = services_of(source=source, deadline_s=1000.0)
    answers = await asyncio.gather(*(infer(request_of(), services) for _ in range(50)))
    assert len(source.asked) == 1
    [packet] = await all_packets(services)
    assert [answer.packet for answer in answers] == [packet] * 50


async def test_different_requests_at_once_do_not_mix(request_of, services_of, output_of, fetched_of, lab_of):
    class ByPatient:
        async def fetch(self, subject, spec, *, as_of, budget=None, handed=None):
            await asyncio.sleep(0)
            labs = (lab_of(),) if subject.patient_id == "p1" else ()
            return fetched_of(*labs, patient_id=subject.patient_id)

    services = services_of(source=ByPatient())
    requests = [request_of(patient_id=f"p{i % 2 + 1}", order_id=f"o{i}") for i in range(40)]
    answers = await asyncio.gather(*(infer(request, services) for request in requests))
    assert [answer.packet.subject for answer in answers] == [request.subject for request in requests]
    assert [answer.packet.outcome.score for answer in answers] == [3 / 4, 1 / 4] * 20


async def test_losing_every_race_for_a_retry_still_ends(request_of, services_of, source_of, fetched_of):
    """Somebody else changes the packet between our reading and our taking it over, once."""
    services = services_of(source=source_of(EmrUnreachable("down"), fetched_of()))
    await infer(request_of(), services)
    store, replace, refused = services.store, services.store.replace, []

    async def replace_but_once(packet, *, etag, **added):
        if not refused:
            refused.append(packet)
            raise RecordChanged("expected the packet with the tag that was read")
        return await replace(packet, etag=etag, **added)

    store.replace = replace_but_once
    answer = await infer(request_of(), services)
    assert answer.packet.outcome.score == 1 / 4
    assert len(answer.packet.earlier_attempts) == 1
