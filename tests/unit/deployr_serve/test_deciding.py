"""Arms and suppression as all workers share them: one arm per unit, no place twice, no advisory too many."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from deployr_core.packet import Event, EventKind, Mode
from deployr_core.packet_ids import derive_event_id
from deployr_core.trial import (
    Arm,
    AssignmentSource,
    Exploration,
    PermutedBlocks,
    RandomizationUnit,
    Trial,
    assign,
    stratum_hash,
    unit_hash,
)
from deployr_core.wedge import SteppedWedge, WedgePlace
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.core.deciding import ADVISED, ASSIGNMENT, STRATUM, decision_of
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.core.policy import Policy, Suppression, SuppressionUnit, TimeBlock

KEY = b"0123456789abcdef"
ARMS = (Arm(name="control", shows=False), Arm(name="advisory", shows=True))
HIGH, LOW = 0.9, 0.1


def trial_of(**changes):
    settings = {"trial_id": "t", "version": 1, "unit": RandomizationUnit.PATIENT, "arms": ARMS}
    return Trial(**{**settings, **changes})


def in_trial(*, suppression=None, time_block=None, **changes):
    return Policy(
        schema_version=1,
        model="hematocrit",
        mode=Mode.TRIAL,
        threshold=0.5,
        trial=trial_of(**changes),
        suppression=suppression,
        time_block=time_block,
    )


def live(**suppression):
    return Policy(
        schema_version=1, model="hematocrit", mode=Mode.LIVE, threshold=0.5, suppression=Suppression(**suppression)
    )


class OverANetwork:
    """A store that lets others work after a read, so that what was read may be old already."""

    def __init__(self):
        self._store = MemoryStore()

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def read_record(self, kind, record_id, *, now):
        record = await self._store.read_record(kind, record_id, now=now)
        await asyncio.sleep(0)
        return record


@pytest.fixture
def store():
    return OverANetwork()


@pytest.fixture
def decide_for(store, request_of, now):
    """Give a function that decides about a score of 0.9 of patient p1, unless told otherwise."""

    async def run(policy, *, packet_id="p01", score=HIGH, at=now, records=None, context=None, **asked):
        request = dataclasses.replace(request_of(**asked), context=context or {})
        return await decision_of(
            request,
            policy,
            packet_id=packet_id,
            score=score,
            key=KEY,
            now=at,
            records=records or store,
            store=store,
        )

    return run


# -- arms


async def test_a_unit_gets_its_arm_once_and_keeps_it(decide_for):
    first = await decide_for(in_trial())
    again = await decide_for(in_trial(), packet_id="p02", order_id="o2")
    expected = assign(trial_of(), key=KEY, unit_id="p1")
    assert first.assignment == expected
    assert again.assignment == msgspec.structs.replace(expected, source=AssignmentSource.STORED)
    assert (first.eligible, again.eligible) == (True, True)


async def test_the_stored_arm_counts_even_where_another_would_be_drawn(decide_for, store, now):
    drawn = assign(trial_of(), key=KEY, unit_id="p1")
    other = next(arm.name for arm in ARMS if arm.name != drawn.arm)
    stored = msgspec.json.encode(msgspec.structs.replace(drawn, arm=other))
    await store.create_record(ASSIGNMENT, drawn.unit_hash, stored, now=now)
    assert (await decide_for(in_trial())).assignment.arm == other


@pytest.mark.parametrize(
    ("unit", "asked", "same", "other"),
    [
        (RandomizationUnit.PATIENT, {}, {"order_id": "o2"}, {"patient_id": "p2"}),
        (RandomizationUnit.ORDER, {}, {"patient_id": "p2"}, {"order_id": "o2"}),
        (
            RandomizationUnit.PROVIDER,
            {"context": {"provider": "dr1"}},
            {"context": {"provider": "dr1"}, "patient_id": "p2"},
            {"context": {"provider": "dr2"}},
        ),
        (
            RandomizationUnit.DEPARTMENT,
            {"context": {"department": "d1"}},
            {"context": {"department": "d1", "provider": "dr2"}},
            {"context": {"department": "d2"}},
        ),
    ],
)
async def test_the_unit_is_what_the_trial_says(decide_for, unit, asked, same, other):
    hashes = [(await decide_for(in_trial(unit=unit), **each)).assignment.unit_hash for each in (asked, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]


STEPS = (datetime(2015, 1, 5, 12, tzinfo=UTC), datetime(2015, 2, 5, 12, tzinfo=UTC))
WEDGE = SteppedWedge(clusters=("7A", "7B"), steps=STEPS, sequence=(("7B",), ("7A",)))


async def test_a_cluster_of_a_stepped_wedge_has_the_arm_of_the_events_time_and_nothing_is_stored(
    decide_for, store, now
):
    policy = in_trial(unit=RandomizationUnit.DEPARTMENT, method=WEDGE)
    made = [
        (await decide_for(policy, event_time=at, context={"department": "7B"}))
        for at in (STEPS[0] - timedelta(seconds=1), STEPS[0], STEPS[1])
    ]
    assert [each.why for each in made] == ["control", "advised", "advised"]
    assert [each.assignment.wedge for each in made] == [WedgePlace(cluster=2, period=period) for period in (0, 1, 2)]
    assert len({each.assignment.unit_hash for each in made}) == 1
    assert all(each.eligible and each.showing.probability == 1.0 for each in made)
    assert not await store.records(ASSIGNMENT, now=now)
    other = await decide_for(policy, event_time=STEPS[0], context={"department": "7A"})
    assert (other.why, other.assignment.arm) == ("control", "control")


async def test_a_cluster_that_is_not_listed_takes_no_part_and_says_so(decide_for):
    policy = in_trial(unit=RandomizationUnit.DEPARTMENT, method=WEDGE)
    for context, why in (({"department": "8C"}, "cluster-not-listed"), ({}, "not-eligible")):
        decision = await decide_for(policy, context=context)
        assert (decision.why, decision.advise, decision.eligible) == (why, False, False)


async def test_a_wedge_needs_its_strata_told_too(decide_for):
    policy = in_trial(unit=RandomizationUnit.DEPARTMENT, method=WEDGE, strata=("hospital",))
    decision = await decide_for(policy, context={"department": "7B"})
    assert (decision.why, decision.eligible) == ("not-eligible", False)
    told = await decide_for(policy, context={"department": "7B", "hospital": "north"})
    assert told.assignment.strata == ("north",)


async def test_a_time_block_includes_its_start_and_excludes_its_end(decide_for):
    start = datetime(2015, 1, 5, 12, tzinfo=UTC)
    policy = in_trial(unit=RandomizationUnit.TIME_BLOCK, time_block=TimeBlock(hours=12, starts=start))
    hashes = [
        (await decide_for(policy, event_time=start + timedelta(seconds=seconds))).assignment.unit_hash
        for seconds in (-1, 0, 12 * 3600 - 1, 12 * 3600)
    ]
    assert hashes[1] == hashes[2]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({"unit": RandomizationUnit.PROVIDER}, {}),
        ({"unit": RandomizationUnit.DEPARTMENT}, {"department": ""}),
        ({"strata": ("department", "shift")}, {"department": "d1"}),
    ],
)
async def test_who_lacks_a_unit_or_a_stratum_takes_no_part_and_is_not_advised(decide_for, changes, context):
    decision = await decide_for(in_trial(**changes), context=context)
    assert (decision.why, decision.advise, decision.eligible) == ("not-eligible", False, False)
    assert decision.assignment is decision.showing is None


async def test_who_has_an_arm_keeps_it_where_a_stratum_is_no_longer_told(decide_for):
    policy = in_trial(strata=("department",))
    first = await decide_for(policy, context={"department": "d1"})
    again = await decide_for(policy, packet_id="p02")
    assert again.assignment.arm == first.assignment.arm
    assert again.assignment.strata == ("d1",)


async def test_no_record_tells_who_the_unit_is(decide_for, store, now):
    await decide_for(in_trial(suppression=Suppression(hours=1)), patient_id="CANARY")
    for kind in (ASSIGNMENT, STRATUM, ADVISED):
        for record_id, record in (await store.records(kind, now=now)).items():
            assert "CANARY" not in record_id
            assert b"CANARY" not in record.content


# -- blocks


BLOCKS = PermutedBlocks(sizes=(2, 4))


async def test_blocks_give_each_unit_the_next_place_of_its_stratum(decide_for, now):
    policy = in_trial(method=BLOCKS, strata=("department",))
    arms = {
        department: [
            (
                await decide_for(policy, patient_id=f"{department}-{n}", context={"department": department})
            ).assignment.arm
            for n in range(40)
        ]
        for department in ("d1", "d2")
    }
    for department, got in arms.items():
        expected = [
            assign(policy.trial, key=KEY, unit_id=str(place), strata=(department,), place=place).arm
            for place in range(40)
        ]
        assert got == expected
        # Blocks of at most 4 with both arms alike: no more than 2 apart at any time.
        assert all(abs(2 * got[:n].count("control") - n) <= 2 for n in range(41))


async def test_two_hundred_units_at_once_get_a_place_each(decide_for, store, now):
    policy = in_trial(method=BLOCKS)
    decisions = await asyncio.gather(*(decide_for(policy, patient_id=f"p{n}") for n in range(200)))
    places = await store.read_record(STRATUM, stratum_hash(policy.trial, key=KEY, strata=()), now=now)
    assert msgspec.json.decode(places.content) == {"taken": 200}
    arms = Counter(decision.assignment.arm for decision in decisions)
    assert abs(arms["control"] - 100) <= 2


async def test_a_worker_that_dies_between_place_and_assignment_wastes_the_place_and_gives_no_second_arm(
    decide_for, store, now
):
    policy = in_trial(method=BLOCKS)

    class Dies(MemoryStore):
        async def create_record(self, kind, record_id, content, *, now, expires_at=None):
            if kind == ASSIGNMENT:
                raise StoreUnavailable("expected a store")
            return await store.create_record(kind, record_id, content, now=now, expires_at=expires_at)

        async def read_record(self, kind, record_id, *, now):
            return await store.read_record(kind, record_id, now=now)

    with pytest.raises(StoreUnavailable):
        await decide_for(policy, records=Dies())
    after = await decide_for(policy)
    assert after.assignment.arm == assign(policy.trial, key=KEY, unit_id="p1", place=1).arm
    assert (await decide_for(policy, packet_id="p02")).assignment.arm == after.assignment.arm


# -- exploration


async def test_exploration_shows_some_below_and_hides_some_above(decide_for):
    everybody_sees = (Arm(name="advisory", shows=True), Arm(name="advisory-too", shows=True))
    policy = in_trial(arms=everybody_sees, exploration=Exploration(show_below=0.5, hide_above=0.5))
    for score, turned in ((LOW, True), (HIGH, False)):
        decisions = [await decide_for(policy, score=score, packet_id=f"p{n}") for n in range(200)]
        explored = [each for each in decisions if each.why == "explored"]
        assert 60 <= len(explored) <= 140
        assert {each.advise for each in explored} == {turned}
        assert {each.showing.probability for each in decisions} == {0.5}


# -- suppression


async def test_a_second_advisory_waits_for_the_hours_to_pass(decide_for, now):
    policy = live(hours=24)
    whys = [
        (await decide_for(policy, packet_id=f"p{n}", at=now + timedelta(hours=hours))).why
        for n, hours in enumerate((0, 0, 23.999, 24, 47.999, 48))
    ]
    recently = "suppressed-recently"
    assert whys == ["advised", recently, recently, "advised", recently, "advised"]


async def test_the_same_packet_asked_again_is_not_suppressed_by_itself(decide_for):
    assert [(await decide_for(live(hours=24))).why for _ in range(2)] == ["advised", "advised"]


async def test_a_score_below_the_threshold_neither_counts_nor_is_called_suppressed(decide_for):
    policy = live(hours=24)
    whys = [
        (await decide_for(policy, packet_id=f"p{n}", score=score)).why for n, score in enumerate((LOW, HIGH, LOW, HIGH))
    ]
    assert whys == ["below-threshold", "advised", "below-threshold", "suppressed-recently"]


async def test_patients_are_suppressed_each_for_themselves(decide_for):
    policy = live(hours=24)
    whys = [(await decide_for(policy, packet_id=who, patient_id=who)).why for who in ("a1", "a2")]
    assert whys == ["advised", "advised"]


async def test_suppression_by_encounter_goes_by_the_encounter_where_there_is_one(decide_for):
    policy = live(hours=24, unit=SuppressionUnit.ENCOUNTER)
    whys = [(await decide_for(policy, packet_id=who, patient_id=who)).why for who in ("a1", "a2")]
    # Both requests are about encounter e1.
    assert whys == ["advised", "suppressed-recently"]


@pytest.mark.parametrize("kind", [EventKind.ACKNOWLEDGED, EventKind.OVERRIDDEN, EventKind.ACCEPTED])
async def test_an_answer_keeps_the_advisory_away_for_its_own_hours(decide_for, store, now, kind):
    policy = live(hours=1, hours_after_response=72)
    await decide_for(policy)
    answered_at = now + timedelta(minutes=30)
    await store.append_event(
        Event(event_id=derive_event_id("p01", kind, answered_at), packet_id="p01", kind=kind, at=answered_at)
    )
    whys = [
        (await decide_for(policy, packet_id=f"p{n}", at=now + timedelta(hours=hours))).why
        for n, hours in enumerate((0.9, 1, 72.4, 72.5))
    ]
    assert whys == ["suppressed-recently", "suppressed-acknowledged", "suppressed-acknowledged", "advised"]


async def test_that_it_was_shown_is_no_answer(decide_for, store, now):
    policy = live(hours=1, hours_after_response=72)
    await decide_for(policy)
    shown = Event(event_id="p01.1", packet_id="p01", kind=EventKind.SHOWN, at=now)
    await store.append_event(shown)
    assert (await decide_for(policy, packet_id="p02", at=now + timedelta(hours=1))).why == "advised"


async def test_of_many_at_once_one_is_advised(decide_for):
    policy = live(hours=24)
    whys = await asyncio.gather(*(decide_for(policy, packet_id=f"p{n}", order_id=f"o{n}") for n in range(50)))
    assert Counter(decision.why for decision in whys) == {"advised": 1, "suppressed-recently": 49}


async def test_both_arms_have_the_same_occasions(decide_for):
    policy = in_trial(suppression=Suppression(hours=24))
    patients = [f"p{n}" for n in range(40)]
    whys = {
        who: [(await decide_for(policy, patient_id=who, packet_id=f"{who}-{n}")).why for n in range(2)]
        for who in patients
    }
    assert {tuple(each) for each in whys.values()} == {
        ("control", "suppressed-recently"),
        ("advised", "suppressed-recently"),
    }


async def test_silent_mode_stores_nothing_of_a_trial_or_an_advisory(decide_for, store, now):
    policy = msgspec.structs.replace(in_trial(suppression=Suppression(hours=24)), mode=Mode.SILENT)
    assert (await decide_for(policy)).why == "silent"
    assert [await store.records(kind, now=now) for kind in (ASSIGNMENT, STRATUM, ADVISED)] == [{}, {}, {}]


async def test_records_that_cannot_be_read_stop_the_advisory_and_repeat_nothing(decide_for, store, now):
    hashed = unit_hash(trial_of(), key=KEY, unit_id="p1")
    await store.create_record(ASSIGNMENT, hashed, b"CANARY", now=now)
    with pytest.raises(StoreUnavailable) as caught:
        await decide_for(in_trial())
    assert "CANARY" not in str(caught.value)
