"""One fetch for all who ask the same: who shares it, and who must not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest

from deployr_core.packet import FetchRecord, Subject
from deployr_serve.adapters.fetch_once import HOLD_S, FetchOnce
from deployr_serve.core.errors import EmrTimeout, EmrUnreachable
from deployr_serve.core.ports import Handed

SAME = (("labs", "the same"),)
ABOUT_ORDER = Subject(patient_id="p1", encounter_id="e1", order_id="o1")


@pytest.fixture
def once_of(clock):
    """Give a function that puts a `FetchOnce` before a source; declarations need the same unless told otherwise."""

    def make(source, needs=lambda _: SAME):
        return FetchOnce(source, clock=clock, needs=needs)

    return make


@pytest.fixture
def ask(feature_spec, now):
    async def run(once, subject=ABOUT_ORDER, **options):
        return await once.fetch(subject, feature_spec, as_of=options.pop("as_of", now), **options)

    return run


async def test_twelve_models_that_ask_at_once_share_one_fetch(once_of, source_of, fetched_of, ask):
    source = source_of(fetched_of())
    once = once_of(source)
    answers = await asyncio.gather(*(ask(once) for _ in range(12)))
    assert len(source.asked) == 1
    assert all(answer is answers[0] for answer in answers)


async def test_a_model_that_asks_a_little_later_shares_it_too(once_of, source_of, fetched_of, ask, clock):
    source = source_of(fetched_of())
    once = once_of(source)
    await ask(once)
    clock.pass_time(HOLD_S)
    await ask(once)
    assert len(source.asked) == 1


async def test_after_the_hold_it_is_fetched_again(once_of, source_of, fetched_of, ask, clock):
    source = source_of(fetched_of())
    once = once_of(source)
    await ask(once)
    clock.pass_time(HOLD_S + 0.001)
    await ask(once)
    assert len(source.asked) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"subject": Subject(patient_id="p2", encounter_id="e1", order_id="o1")},
        {"subject": Subject(patient_id="p1", encounter_id="e2", order_id="o1")},
        {"subject": Subject(patient_id="p1", encounter_id="e1", order_id="o2")},
        {"handed": Handed(token="another token")},
        {"handed": Handed(prefetch={"labs": b"null"})},
    ],
    ids=["another patient", "another encounter", "another order", "another token", "other prefetched facts"],
)
async def test_what_differs_in_anything_that_matters_is_not_shared(once_of, source_of, fetched_of, ask, changed):
    source = source_of(fetched_of())
    once = once_of(source)
    await asyncio.gather(ask(once), ask(once, **changed))
    assert len(source.asked) == 2


async def test_another_instant_is_not_shared(once_of, source_of, fetched_of, ask, now):
    source = source_of(fetched_of())
    once = once_of(source)
    await asyncio.gather(ask(once), ask(once, as_of=now.replace(year=now.year - 1)))
    assert len(source.asked) == 2


async def test_declarations_that_need_other_searches_do_not_share(once_of, source_of, fetched_of, feature_spec, now):
    source = source_of(fetched_of())
    once = once_of(source, needs=lambda spec: spec)
    fewer = msgspec.structs.replace(feature_spec, groups=feature_spec.groups[:1])
    await asyncio.gather(*(once.fetch(ABOUT_ORDER, spec, as_of=now) for spec in (feature_spec, fewer)))
    assert len(source.asked) == 2


async def test_prefetched_facts_are_told_apart_by_where_one_ends(once_of, source_of, fetched_of, ask):
    source = source_of(fetched_of())
    once = once_of(source)
    one = Handed(prefetch={"a": b"1\nb 1\n2"})
    other = Handed(prefetch={"a": b"1", "b": b"2"})
    await asyncio.gather(ask(once, handed=one), ask(once, handed=other))
    assert len(source.asked) == 2


async def test_a_failure_is_shared_by_those_who_waited_and_by_nobody_after(once_of, source_of, fetched_of, ask):
    source = source_of(EmrUnreachable("down"), fetched_of())
    once = once_of(source)
    failed = await asyncio.gather(*(ask(once) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in failed] == [EmrUnreachable] * 3
    await ask(once)
    assert len(source.asked) == 2


async def test_who_gives_up_does_not_end_it_for_the_others(once_of, source_of, fetched_of, ask):
    source = source_of(fetched_of())
    once = once_of(source)
    first = asyncio.ensure_future(ask(once))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(ask(once))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).facts is not None
    assert len(source.asked) == 1


async def test_no_more_is_held_than_a_busy_minute_needs(once_of, source_of, fetched_of, ask):
    once = once_of(source_of(fetched_of()))
    for number in range(200):
        await ask(once, Subject(patient_id=f"p{number}"))
    assert len(once._shared) <= 65


async def test_what_was_handed_over_in_whole_is_read_once_by_those_who_ask_at_once_and_soon_let_go_of(
    once_of, source_of, fetched_of, ask
):
    read = FetchRecord(resource="Patient", resources=1, pages=1, milliseconds=0.0, via="prefetch", requests=0)
    source = source_of(replace(fetched_of(), fetches=(read,)))
    once = once_of(source)
    first, second, third = (Handed(prefetch={"labs": str(number).encode()}) for number in range(3))
    await asyncio.gather(*(ask(once, handed=first) for _ in range(12)))
    await ask(once, handed=second)
    await ask(once, handed=first)
    assert len(source.asked) == 2
    await ask(once, handed=third)
    await ask(once, handed=second)
    assert len(source.asked) == 3
    await ask(once, handed=first)
    assert len(source.asked) == 4


WHOLE = Handed(prefetch={"patient": b"{}", "encounter": b"{}", "order": b"{}", "labs": b"null"})


class Reading:
    """A source that tells on which task it was read, and goes on when it may."""

    def __init__(self, found):
        self.found, self.tasks, self.may = found, [], None

    async def fetch(self, *_, **__):
        self.tasks.append(asyncio.current_task())
        if self.may is not None:
            await self.may
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


async def test_what_is_handed_over_in_whole_is_read_without_a_task_apart_and_the_rest_on_one(once_of, fetched_of, ask):
    source = Reading(fetched_of())
    once, here = once_of(source), asyncio.current_task()
    assert await ask(once, handed=WHOLE) is source.found
    # An order that is asked about, and not handed over, is fetched.
    await ask(once, handed=Handed(prefetch=dict.fromkeys(("patient", "encounter", "labs"), b"{}")))
    await ask(once)
    assert [task is here for task in source.tasks] == [True, False, False]


async def test_what_is_handed_over_in_whole_is_shared_while_it_is_read(once_of, fetched_of, ask):
    source = Reading(fetched_of())
    source.may = asyncio.get_running_loop().create_future()
    once = once_of(source)
    asking = [asyncio.ensure_future(ask(once, handed=WHOLE)) for _ in range(3)]
    await asyncio.sleep(0)
    source.may.set_result(None)
    assert [each is source.found for each in await asyncio.gather(*asking)] == [True] * 3
    assert len(source.tasks) == 1


async def test_a_failure_to_read_it_is_shared_too_and_by_nobody_after(once_of, ask):
    source = Reading(EmrUnreachable("down"))
    source.may = asyncio.get_running_loop().create_future()
    once = once_of(source)
    asking = [asyncio.ensure_future(ask(once, handed=WHOLE)) for _ in range(3)]
    await asyncio.sleep(0)
    source.may.set_result(None)
    failed = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in failed] == [EmrUnreachable] * 3
    with pytest.raises(EmrUnreachable):
        await ask(once, handed=WHOLE)
    assert len(source.tasks) == 2


async def test_where_the_one_who_reads_it_gives_up_the_others_are_told_that_the_time_was_over(once_of, fetched_of, ask):
    source = Reading(fetched_of())
    source.may = asyncio.get_running_loop().create_future()
    once = once_of(source)
    first, second = (asyncio.ensure_future(ask(once, handed=WHOLE)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    failed = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(each) for each in failed] == [asyncio.CancelledError, EmrTimeout]
    source.may = None
    assert await ask(once, handed=WHOLE) is source.found


async def test_what_was_handed_over_is_told_apart_by_its_content_where_the_sizes_agree(once_of, fetched_of, ask):
    source = Reading(fetched_of())
    once = once_of(source)
    other = Handed(prefetch={**WHOLE.prefetch, "labs": b"true"})
    for handed in (WHOLE, other, Handed(prefetch=dict(WHOLE.prefetch))):
        await ask(once, handed=handed)
    assert len(source.tasks) == 2


async def test_what_was_handed_over_is_not_held_on_to_beside_what_was_asked_of_the_emr(once_of, fetched_of, ask):
    sent = FetchRecord(resource="Patient", resources=1, pages=1, milliseconds=1.0, requests=1)
    once = once_of(Reading(replace(fetched_of(), fetches=(sent,))))
    await ask(once, handed=WHOLE)
    await asyncio.sleep(0)
    [(*_, content)] = once._shared
    assert content._held == ()
