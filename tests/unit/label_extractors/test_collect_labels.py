from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from deployr_core.codes import LOINC, Code
from deployr_core.facts import Order, OrderStatus
from deployr_core.label_rules import Answer, LabComponent, LabPanel
from deployr_core.packet import Censored, Failed, Rejected
from deployr_serve.core.errors import EmrUnreachable, ModelUnavailable, StoreUnavailable, WrongPatient
from deployr_serve.core.outcome_source import OutcomeFacts, OutcomeNeeds
from deployr_serve.core.ports import Lane
from label_extractors import waiting
from label_extractors.collect import collect_labels

DAY = 24 * 3600


async def labels_in(services):
    return await services.store.labels(model_id="hematocrit", rule="lab-component", after=None, limit=100)


async def test_nothing_to_label_asks_the_emr_nothing(services, outcomes_of):
    outcomes = outcomes_of()
    assert await collect_labels(services, outcomes) == {}
    assert outcomes.asked == []


async def test_labels_are_read_with_the_connections_that_are_set_aside_for_batches(
    services, store_packets, packet_of, outcomes_of
):
    await store_packets(packet_of())
    outcomes = outcomes_of()
    await collect_labels(services, outcomes)
    assert outcomes.lanes == {Lane.BATCH}


async def test_a_packet_is_labelled_by_the_result_of_its_order(
    services, store_packets, packet_of, outcomes_of, abnormal, clock, now
):
    await store_packets(packet_of())
    clock.pass_time(3 * 3600)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),), orders={}))
    assert await collect_labels(services, outcomes) == {"observed": 1}
    [label] = await labels_in(services)
    assert (label.label_id, label.packet_id, label.rule) == ("p01.lab-component", "p01", "lab-component")
    assert (label.outcome.value, label.outcome.source_id) == (1.0, "lab-o1")
    assert label.attached_at == now + timedelta(hours=3)


async def test_a_second_run_changes_nothing_and_asks_for_nobody(
    services, store_packets, packet_of, outcomes_of, abnormal, clock
):
    await store_packets(packet_of("p01"), packet_of("p02", patient_id="p2", order_id="o2"))
    clock.pass_time(2 * DAY)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),), orders={}))
    assert await collect_labels(services, outcomes) == {"observed": 1, "censored": 1}
    before = await labels_in(services)
    clock.pass_time(DAY)
    assert await collect_labels(services, outcomes) == {}
    assert await labels_in(services) == before
    assert len(outcomes.asked) == 2


async def test_two_runs_at_once_attach_each_label_once(
    services, store_packets, packet_of, outcomes_of, abnormal, clock
):
    await store_packets(*(packet_of(f"p0{i}", patient_id=f"p{i}", order_id=f"o{i}") for i in range(5)))
    clock.pass_time(2 * DAY)
    patients = {f"p{i}": OutcomeFacts(labs=(abnormal(f"o{i}"),), orders={}) for i in range(5)}
    runs = await asyncio.gather(*(collect_labels(services, outcomes_of(**patients)) for _ in range(2)))
    assert sum(run["observed"] for run in runs) == 5
    assert len(await labels_in(services)) == 5


async def test_all_packets_of_a_patient_take_one_fetch_over_all_their_orders(
    services, store_packets, packet_of, outcomes_of, abnormal, clock, now
):
    later = now + timedelta(hours=2)
    await store_packets(
        packet_of("p01", order_id="o1"),
        packet_of("p02", order_id="o2", as_of=later),
        packet_of("p03", order_id="o1"),
        packet_of("p04", order_id=None),
        packet_of("p05", patient_id="p2", order_id="o3"),
    )
    clock.pass_time(2 * DAY)
    outcomes = outcomes_of(
        p1=OutcomeFacts(labs=(abnormal("o1"), abnormal("o2", after=timedelta(hours=2), value=41.0)), orders={})
    )
    await collect_labels(services, outcomes)
    since, codes = now - timedelta(days=1), (Code(LOINC, "4544-3"),)
    assert dict(outcomes.asked) == {
        "p1": OutcomeNeeds(since=since, order_ids=("o1", "o2"), codes=codes),
        "p2": OutcomeNeeds(since=since, order_ids=("o3",), codes=codes),
    }
    assert len(outcomes.asked) == 2
    assert [(label.packet_id, getattr(label.outcome, "value", None)) for label in await labels_in(services)] == [
        ("p01", 1.0),
        ("p02", 0.0),
        ("p03", 1.0),
        ("p04", None),
        ("p05", None),
    ]


async def test_what_is_not_yet_known_gets_no_label_and_is_looked_at_again(
    services, store_packets, packet_of, outcomes_of, abnormal, clock
):
    await store_packets(packet_of())
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),), orders={}))
    clock.pass_time(3600)
    assert await collect_labels(services, outcomes) == {"not-yet": 1}
    assert await labels_in(services) == ()
    clock.pass_time(3600)
    assert await collect_labels(services, outcomes) == {"observed": 1}


async def test_a_cancelled_order_is_censored(services, store_packets, packet_of, outcomes_of, now):
    await store_packets(packet_of())
    order = Order(fact_id="o1", codes=(), at=now, known_at=now, encounter_id="e1", status=OrderStatus.CANCELLED)
    assert await collect_labels(services, outcomes_of(p1=OutcomeFacts(labs=(), orders={"o1": order}))) == {
        "censored": 1
    }
    [label] = await labels_in(services)
    assert label.outcome == Censored(reason="order-cancelled")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (EmrUnreachable("down"), "emr-unreachable"),
        (WrongPatient("foreign"), "wrong-patient"),
        (RuntimeError("a bug"), "unexpected"),
    ],
    ids=str,
)
async def test_one_patients_trouble_does_not_stop_the_others_and_is_tried_again(
    services, store_packets, packet_of, outcomes_of, abnormal, clock, trouble, reason
):
    await store_packets(
        *(packet_of(f"p0{i}", patient_id=f"p{i}", order_id=f"o{i}") for i in (1, 2, 3)),
        packet_of("p09", patient_id="p2", order_id="o9"),
    )
    clock.pass_time(2 * DAY)
    patients = {f"p{i}": OutcomeFacts(labs=(abnormal(f"o{i}"),), orders={}) for i in (1, 2, 3)}
    assert await collect_labels(services, outcomes_of(**{**patients, "p2": trouble})) == {
        "observed": 2,
        f"failed:{reason}": 2,
    }
    assert [label.packet_id for label in await labels_in(services)] == ["p01", "p03"]
    assert await collect_labels(services, outcomes_of(**patients)) == {"observed": 1, "censored": 1}


async def test_only_scored_packets_are_labelled(services, store_packets, packet_of, outcomes_of, received, clock):
    await store_packets(
        packet_of("p01", outcome=Failed(reason="emr-timeout", retryable=True)),
        packet_of("p02", outcome=Rejected(reason="wrong-patient")),
        packet_of("p03", outcome=received),
    )
    clock.pass_time(2 * DAY)
    outcomes = outcomes_of()
    assert await collect_labels(services, outcomes) == {}
    assert outcomes.asked == []


async def test_a_model_that_is_not_available_does_not_stop_the_others(
    services_of, models_of, packet_of, outcomes_of, bundle, clock
):
    services = services_of(models=models_of(albumin=ModelUnavailable("digest"), hematocrit=bundle))
    await services.store.create(packet_of("p01", model_id="albumin"))
    await services.store.create(packet_of("p02"))
    clock.pass_time(2 * DAY)
    assert await collect_labels(services, outcomes_of()) == {"censored": 1, "model-unavailable": 1}


async def test_a_level_is_observed_as_the_name_of_its_class(
    services_of, models_of, packet_of, outcomes_of, abnormal, with_rule, clock
):
    rule = LabComponent(components=("4544-3",), window_hours=24, answer=Answer.LEVEL)
    services = services_of(models=models_of(hematocrit=with_rule(rule, headline="low")))
    await services.store.create(packet_of())
    clock.pass_time(3 * 3600)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),), orders={}))
    assert await collect_labels(services, outcomes) == {"observed": 1}
    [label] = await labels_in(services)
    assert (label.rule, label.outcome.value) == ("lab-component", "low")


async def test_a_panel_asks_for_all_of_its_components_and_is_observed_by_name(
    services_of, models_of, packet_of, outcomes_of, abnormal, with_rule, clock
):
    rule = LabPanel(components={"hemoglobin": ("718-7",), "hematocrit": ("4544-3",)}, window_hours=24)
    services = services_of(models=models_of(hematocrit=with_rule(rule, headline="hematocrit")))
    await services.store.create(packet_of())
    clock.pass_time(3 * 3600)
    hemoglobin = abnormal("o1", codes=(Code(LOINC, "718-7"),), value=40.0)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"), hemoglobin), orders={}))
    assert await collect_labels(services, outcomes) == {"observed": 1}
    assert outcomes.asked[0][1].codes == (Code(LOINC, "4544-3"), Code(LOINC, "718-7"))
    [label] = await services.store.labels(model_id="hematocrit", rule="lab-panel", after=None, limit=10)
    assert label.outcome.value == {"hematocrit": 1.0, "hemoglobin": 0.0}


async def test_many_packets_are_labelled_page_by_page_each_once(
    services, store_packets, packet_of, outcomes_of, clock, monkeypatch
):
    monkeypatch.setattr(waiting, "PAGE", 3)
    await store_packets(*(packet_of(f"p{i:02}", patient_id=f"p{i}") for i in range(10)))
    clock.pass_time(2 * DAY)
    assert await collect_labels(services, outcomes_of()) == {"censored": 10}
    assert len(await labels_in(services)) == 10


async def test_a_page_full_of_packets_that_are_not_ripe_does_not_hide_those_behind_it(
    services, store_packets, packet_of, outcomes_of, clock, now, monkeypatch
):
    monkeypatch.setattr(waiting, "PAGE", 2)
    tomorrow = now + timedelta(days=2)
    await store_packets(
        *(packet_of(f"p0{i}", as_of=tomorrow) for i in range(4)), packet_of("p09", patient_id="p2", order_id="o2")
    )
    clock.pass_time(2 * DAY)
    assert await collect_labels(services, outcomes_of()) == {"not-yet": 4, "censored": 1}


async def test_no_more_than_eight_patients_are_read_at_once(services, store_packets, packet_of, outcomes_of, clock):
    await store_packets(*(packet_of(f"p{i:02}", patient_id=f"p{i}") for i in range(30)))
    clock.pass_time(2 * DAY)
    outcomes = outcomes_of()
    await collect_labels(services, outcomes)
    assert outcomes.peak == 8


async def test_without_a_store_the_run_ends_with_its_error(services, outcomes_of, monkeypatch):
    async def fail(**_):
        raise StoreUnavailable("expected a store that can be read and written")

    monkeypatch.setattr(services.store, "unlabelled", fail)
    with pytest.raises(StoreUnavailable):
        await collect_labels(services, outcomes_of())
