"""A model's journal in every store there is: of two who write at once one is first, and nothing is lost or expires."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from deployr_core.registry.journal import Action, Head, JournalBroken, entry_bytes
from deployr_core.registry.roles import Reason, RegistryRefused
from deployr_serve.core.registry_journal import HEAD, append, heads, read_journal, tell_head
from tests.registry_parts import deed, journal_of


@pytest.fixture
def records(each_store):
    return each_store


async def written(records, clock, *deeds):
    return [await append(records, "hematocrit", lambda _, each=each: each, clock=clock) for each in deeds]


async def test_what_is_added_is_read_back_in_order_and_verified(records, clock):
    said = [deed(Action.OPENED, why=str(number)) for number in range(11)]
    entries = await written(records, clock, *said)
    journal = await read_journal(records, "hematocrit", now=clock.now())
    assert journal.entries == tuple(entries)
    assert [entry.why for entry in journal.entries] == [str(number) for number in range(11)]
    assert await heads(records, now=clock.now()) == {"hematocrit": entries[-1].head}


async def test_a_model_without_a_journal_has_an_empty_one(records, clock):
    journal = await read_journal(records, "hematocrit", now=clock.now())
    assert (journal.entries, journal.standing.head) == ((), None)


async def test_nothing_of_it_ever_expires(records, clock):
    [entry] = await written(records, clock, deed(Action.OPENED))
    clock.pass_time(timedelta(days=36_500).total_seconds())
    assert (await read_journal(records, "hematocrit", now=clock.now())).entries == (entry,)
    assert await heads(records, now=clock.now()) == {"hematocrit": entry.head}


async def test_of_many_who_write_at_once_each_is_kept_once_and_decided_on_what_was_there_before_it(records, clock):
    seen = []

    def decide_as(number):
        def decide(standing):
            seen.append(number)
            return deed(Action.OPENED, why=f"{number} after {standing.opened}")

        return decide

    await asyncio.gather(*(append(records, "hematocrit", decide_as(number), clock=clock) for number in range(6)))
    journal = await read_journal(records, "hematocrit", now=clock.now())
    assert sorted(entry.why.partition(" ")[0] for entry in journal.entries) == [str(n) for n in range(6)]
    assert [entry.why.partition("after ")[2] for entry in journal.entries] == [str(n) for n in range(6)]


async def test_who_is_second_decides_again_and_may_be_refused_by_what_the_first_one_did(records, clock):
    await written(records, clock, deed(Action.REGISTERED, "a"))

    def approve(who):
        def decide(standing):
            if standing.runs["a"].stage != "challenger":
                raise RegistryRefused(Reason.WRONG_STAGE, "too late")
            return deed(Action.APPROVED, "a", who=who)

        return decide

    both = await asyncio.gather(
        *(append(records, "hematocrit", approve(who), clock=clock) for who in ("grace", "barbara")),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in both) == ["Entry", "RegistryRefused"]
    assert len((await read_journal(records, "hematocrit", now=clock.now())).entries) == 2


async def test_a_writer_who_died_before_the_head_is_made_up_for_by_the_next_one(records, clock):
    first, second, third = journal_of(*(deed(Action.OPENED, why=str(n)) for n in range(3)))
    for entry in (first, second):
        name = f"{entry.number:08d}"
        await records.create_record("journal.hematocrit", name, entry_bytes(entry), now=clock.now())
    await tell_head(records, "hematocrit", first.head, now=clock.now())
    assert (await read_journal(records, "hematocrit", now=clock.now())).entries == (first, second)
    await written(records, clock, deed(Action.OPENED, why="2"))
    assert await heads(records, now=clock.now()) == {"hematocrit": third.head}


async def test_the_head_never_goes_back(records, clock):
    entries = await written(records, clock, deed(Action.OPENED), deed(Action.OPENED))
    await tell_head(records, "hematocrit", entries[0].head, now=clock.now())
    assert await heads(records, now=clock.now()) == {"hematocrit": entries[1].head}


async def test_a_journal_that_lacks_its_last_entry_is_not_read_and_not_added_to(records, clock):
    [entry] = await written(records, clock, deed(Action.OPENED))
    held = await records.read_record(HEAD, "hematocrit", now=clock.now())
    longer = msgspec.json.encode(Head(number=2, sha256="f" * 64))
    await records.replace_record(HEAD, "hematocrit", longer, etag=held.etag)
    with pytest.raises(JournalBroken, match="hematocrit, entry 2: expected 2 entries"):
        await written(records, clock, deed(Action.OPENED))
    assert entry.number == 1


async def test_what_cannot_have_happened_is_not_written(records, clock):
    with pytest.raises(JournalBroken, match="that was registered"):
        await written(records, clock, deed(Action.DEPLOYED, "a"))
    assert await heads(records, now=clock.now()) == {}
