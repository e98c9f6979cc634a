"""A label follows what the record says later, keeps what it was, and is nobody's alone."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta

import msgspec
import pytest

from deployr_core.facts import Order, OrderStatus
from deployr_core.label_rules import LabComponent, Mortality
from deployr_core.packet import Censored, Label, NotYet, Observed
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.errors import RecordChanged
from deployr_serve.core.outcome_source import OutcomeFacts
from label_extractors.changes import MOST_TRIES, Noted, corrected, note
from label_extractors.collect import collect_labels
from label_extractors.pace import Pace

HOUR, DAY = 3600, 24 * 3600


@pytest.fixture
def observed(now):
    def make(value=1.0, **changes):
        at = now + timedelta(hours=1)
        return Observed(**{"value": value, "at": at, "known_at": at, "source_id": "lab1", **changes})

    return make


@pytest.fixture
def held_of(now):
    def make(outcome, *, attached_at=now, history=()):
        return Label(
            label_id="p01.lab-component",
            packet_id="p01",
            rule="lab-component",
            outcome=outcome,
            attached_at=attached_at,
            history=history,
        )

    return make


# -- what changes a label


def test_another_answer_takes_the_place_of_the_first_which_is_kept(held_of, observed, now):
    later = now + timedelta(days=1)
    once = corrected(held_of(observed(1.0)), observed(0.0), read_at=later, now=later)
    twice = corrected(once, Censored(reason="no-result"), read_at=later, now=later)
    assert once == held_of(observed(0.0), attached_at=later, history=(observed(1.0),))
    assert twice == held_of(Censored(reason="no-result"), attached_at=later, history=(observed(1.0), observed(0.0)))


def test_the_same_answer_changes_nothing(held_of, observed, now):
    later = now + timedelta(days=1)
    for outcome in (observed(), Censored(reason="no-result")):
        assert corrected(held_of(outcome), outcome, read_at=later, now=later) is None


@pytest.mark.parametrize("reason", ["record-merged", "order-not-visible", "no-visit", "undated-death"])
def test_that_a_record_cannot_show_any_more_what_it_has_shown_takes_nothing_back(held_of, observed, now, reason):
    later = now + timedelta(days=1)
    assert corrected(held_of(observed()), Censored(reason=reason), read_at=later, now=later) is None
    assert corrected(held_of(Censored(reason="no-result")), Censored(reason=reason), read_at=later, now=later)


def test_what_was_observed_and_is_gone_while_there_is_time_left_is_withdrawn(held_of, observed, now):
    later = now + timedelta(hours=3)
    changed = corrected(held_of(observed()), NotYet(ripe_at=now + timedelta(days=1)), read_at=later, now=later)
    assert (changed.outcome, changed.history) == (Censored(reason="withdrawn"), (observed(),))
    assert corrected(changed, NotYet(ripe_at=now), read_at=later, now=later) is None


def test_who_read_the_record_later_knows_better(held_of, observed, now):
    second = timedelta(seconds=1)
    held = held_of(observed(0.0), attached_at=now + second)
    assert corrected(held, observed(1.0), read_at=now, now=now + 2 * second) is None
    assert corrected(held, observed(1.0), read_at=now + second, now=now + 2 * second).outcome == observed(1.0)


# -- two extractors


class AnotherExtractor(MemoryStore):
    """Somebody else changes the label whenever it is about to be changed, so many times."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    async def replace_label(self, label, *, etag):
        if self.left:
            self.left -= 1
            held = await self.read_label(label.label_id)
            await super().replace_label(
                msgspec.structs.replace(held.label, history=(*held.label.history, held.label.outcome)), etag=held.etag
            )
        return await super().replace_label(label, etag=etag)


async def noted_beside(times, packet_of, observed, now):
    store = AnotherExtractor(times)
    await store.create(packet_of())
    await note(store, "p01", "lab-component", observed(1.0), read_at=now, now=now)
    later = now + timedelta(days=1)
    noted = await note(store, "p01", "lab-component", observed(0.0), read_at=later, now=later)
    return noted, (await store.read_label("p01.lab-component")).label


async def test_a_label_that_somebody_else_changed_is_read_again_and_what_they_kept_is_kept(packet_of, observed, now):
    noted, label = await noted_beside(MOST_TRIES - 1, packet_of, observed, now)
    assert noted is Noted.CORRECTED
    assert label.outcome == observed(0.0)
    assert label.history == (observed(1.0),) * MOST_TRIES


async def test_after_so_many_tries_it_is_left_to_the_next_run_and_counted(packet_of, observed, now):
    noted, label = await noted_beside(MOST_TRIES, packet_of, observed, now)
    assert noted is Noted.CONFLICT
    assert label.outcome == observed(1.0)


async def test_of_two_who_attach_at_once_one_attaches_and_the_other_finds_it_done(packet_of, observed, now):
    store = MemoryStore()
    await store.create(packet_of())
    both = await asyncio.gather(
        *(note(store, "p01", "lab-component", observed(), read_at=now, now=now) for _ in range(2))
    )
    assert sorted(both) == [Noted.OBSERVED, Noted.UNCHANGED]


async def test_the_label_of_a_packet_that_was_erased_meanwhile_is_not_made(observed, now):
    class Erased(MemoryStore):
        async def attach_label(self, label):
            return False

    assert await note(Erased(), "p01", "r", observed(), read_at=now, now=now) is Noted.FORGOTTEN


async def test_a_store_that_lost_the_race_says_so_and_not_more(packet_of, observed, now):
    store = MemoryStore()
    await store.create(packet_of())
    await note(store, "p01", "r", observed(), read_at=now, now=now)
    held = await store.read_label("p01.r")
    await store.replace_label(held.label, etag=held.etag)
    with pytest.raises(RecordChanged):
        await store.replace_label(held.label, etag=held.etag)


# -- whole runs


async def label_in(services, rule="lab-component"):
    return (await services.store.read_label(f"p01.{rule}")).label


async def test_an_amended_result_changes_the_label_and_keeps_its_history(
    services, store_packets, packet_of, outcomes_of, abnormal, clock
):
    await store_packets(packet_of())
    clock.pass_time(3 * HOUR)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),)))
    assert await collect_labels(services, outcomes) == {"observed": 1}
    clock.pass_time(HOUR)
    outcomes.patients["p1"] = OutcomeFacts(labs=(abnormal("o1", value=41.0),))
    assert await collect_labels(services, outcomes) == {}
    assert await collect_labels(services, outcomes, again=True) == {"corrected": 1}
    label = await label_in(services)
    assert (label.outcome.value, [each.value for each in label.history]) == (0.0, [1.0])
    assert label.attached_at == clock.now()
    clock.pass_time(1)
    assert await collect_labels(services, outcomes, again=True) == {"unchanged": 1}
    assert await label_in(services) == label


async def test_a_result_that_is_taken_back_withdraws_the_label_until_another_comes(
    services, store_packets, packet_of, outcomes_of, abnormal, clock, now
):
    await store_packets(packet_of())
    clock.pass_time(3 * HOUR)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),)))
    await collect_labels(services, outcomes)
    outcomes.patients["p1"] = OutcomeFacts()
    assert await collect_labels(services, outcomes, again=True) == {}  # attached at this very instant
    clock.pass_time(1)
    assert await collect_labels(services, outcomes, again=True) == {"corrected": 1}
    assert (await label_in(services)).outcome == Censored(reason="withdrawn")
    open_order = Order(fact_id="o1", codes=(), at=now, known_at=now, encounter_id="e1", status=OrderStatus.OPEN)
    outcomes.patients["p1"] = OutcomeFacts(orders={"o1": open_order})
    clock.pass_time(2 * DAY)
    await collect_labels(services, outcomes, again=True)
    outcomes.patients["p1"] = OutcomeFacts(labs=(abnormal("o1", fact_id="late"),))
    clock.pass_time(DAY)
    await collect_labels(services, outcomes, again=True)
    label = await label_in(services)
    assert [getattr(each, "reason", getattr(each, "value", None)) for each in (*label.history, label.outcome)] == [
        1.0,
        "withdrawn",
        "no-result",
        1.0,
    ]


async def test_labels_are_looked_at_again_for_so_long_and_no_longer(
    services, store_packets, packet_of, outcomes_of, abnormal, clock
):
    await store_packets(packet_of())
    clock.pass_time(3 * HOUR)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),)))
    await collect_labels(services, outcomes)
    pace = Pace(corrections=timedelta(days=2))
    clock.pass_time(2 * DAY)
    assert await collect_labels(services, outcomes, again=True, pace=pace) == {"unchanged": 1}
    clock.pass_time(1)
    asked = len(outcomes.asked)
    assert await collect_labels(services, outcomes, again=True, pace=pace) == {}
    assert len(outcomes.asked) == asked


async def test_one_read_of_a_patient_serves_new_and_old_packets_of_all_models(
    services_of, models_of, packet_of, outcomes_of, abnormal, bundle, with_rule, clock, now
):
    models = models_of(
        hematocrit=bundle,
        hemoglobin=with_rule(LabComponent(components=("718-7",), window_hours=72)),
        mortality=with_rule(Mortality(days=30)),
    )
    services = services_of(models=models)
    await services.store.create(packet_of("p01"))
    clock.pass_time(3 * HOUR)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),)))
    assert await collect_labels(services, outcomes) == {"observed": 1}
    await services.store.create(packet_of("p02", model_id="hemoglobin", order_id="o2"))
    await services.store.create(packet_of("p03", model_id="mortality", order_id=None))
    clock.pass_time(HOUR)
    assert await collect_labels(services, outcomes, again=True) == {"not-yet": 2, "unchanged": 1}
    (_, needs) = outcomes.asked[-1]
    assert len(outcomes.asked) == 2
    assert (needs.order_ids, [code.value for code in needs.codes], needs.stays, needs.since) == (
        ("o1", "o2"),
        ["4544-3", "718-7"],
        True,
        now - timedelta(hours=72),
    )


async def test_a_second_run_over_the_same_state_leaves_the_stores_bytes_as_they_were(
    services_of, packet_of, outcomes_of, abnormal, clock, tmp_path
):
    file = tmp_path / "store.sqlite"
    store = SqliteStore(file)
    services = services_of(store=store)
    for number in range(6):
        await store.create(packet_of(f"p0{number}", patient_id=f"p{number}", order_id=f"o{number}"))
    clock.pass_time(3 * DAY)
    outcomes = outcomes_of(**{f"p{n}": OutcomeFacts(labs=(abnormal(f"o{n}"),)) for n in range(4)})
    assert await collect_labels(services, outcomes) == {"observed": 4, "censored": 2}
    clock.pass_time(HOUR)

    def everything():
        with sqlite3.connect(file) as db:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: sorted(db.execute(f"SELECT * FROM {name}"), key=repr) for name in tables}  # noqa: S608

    before = everything()
    assert await collect_labels(services, outcomes) == {}
    assert await collect_labels(services, outcomes, again=True) == {"unchanged": 6}
    assert everything() == before
    await store.aclose()
