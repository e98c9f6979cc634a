"""The journal's chain: whatever is changed, left out, moved or cut off is named at its first entry."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta, timezone

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployr_core.registry.journal import (
    GENESIS,
    Action,
    CheckedItem,
    Deed,
    Head,
    JournalBroken,
    chained,
    digest_of,
    entry_bytes,
    parse_entry,
    verify,
)
from tests.registry_parts import AT, deed, journal_of

TEXTS = st.text(max_size=20)
DEEDS = st.builds(
    Deed,
    at=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=7000)).map(lambda later: AT + later),
    who=st.text(min_size=1, max_size=20),
    role=TEXTS,
    action=st.sampled_from(Action),
    run_id=TEXTS,
    why=TEXTS,
    replaces=st.none() | TEXTS,
    checklist=st.lists(st.builds(CheckedItem, item=TEXTS, passed=st.booleans(), said=TEXTS), max_size=2).map(tuple),
)
JOURNALS = st.lists(DEEDS, min_size=1, max_size=6).map(lambda deeds: journal_of(*deeds))


def verified(entries, **told):
    return verify(entries, model_id="hematocrit", **told)


@settings(max_examples=40)
@given(JOURNALS)
def test_what_was_written_is_whole_and_reads_back_as_the_same_bytes(entries):
    assert verified(entries, heads=[entry.head for entry in entries]) is None
    read = tuple(parse_entry(entry_bytes(entry), number=entry.number) for entry in entries)
    assert read == entries
    assert verified(read) is None


@settings(max_examples=40)
@given(JOURNALS, st.data())
def test_an_entry_that_says_something_else_is_named(entries, data):
    at = data.draw(st.integers(0, len(entries) - 1))
    other = data.draw(DEEDS)
    name = data.draw(st.sampled_from(["at", "who", "role", "action", "run_id", "why", "replaces", "checklist"]))
    changed = msgspec.structs.replace(entries[at], **{name: getattr(other, name)})
    fault = verified((*entries[:at], changed, *entries[at + 1 :]))
    assert (None if fault is None else fault.number) == (None if changed == entries[at] else at + 1)


@settings(max_examples=40)
@given(JOURNALS, st.data())
def test_an_entry_that_says_something_else_under_a_new_digest_is_missed_by_the_next_one_or_by_who_was_told(
    entries, data
):
    at = data.draw(st.integers(0, len(entries) - 1))
    changed = msgspec.structs.replace(entries[at], why=entries[at].why + "!")
    changed = msgspec.structs.replace(changed, sha256=digest_of(changed))
    forged = (*entries[:at], changed, *entries[at + 1 :])
    fault = verified(forged, heads=[entries[-1].head])
    assert fault is not None
    assert fault.number == min(at + 2, len(entries))


@settings(max_examples=40)
@given(JOURNALS, st.data())
def test_an_entry_that_is_left_out_is_named(entries, data):
    at = data.draw(st.integers(0, len(entries) - 1))
    fault = verified((*entries[:at], *entries[at + 1 :]), heads=[entries[-1].head])
    assert fault is not None
    assert fault.number == at + 1


@settings(max_examples=40)
@given(JOURNALS, st.data())
def test_entries_that_changed_places_are_named(entries, data):
    first = data.draw(st.integers(0, len(entries) - 1))
    second = data.draw(st.integers(0, len(entries) - 1))
    moved = list(entries)
    moved[first], moved[second] = moved[second], moved[first]
    fault = verified(moved)
    assert (None if fault is None else fault.number) == (None if first == second else min(first, second) + 1)


@settings(max_examples=40)
@given(JOURNALS, st.data())
def test_what_is_cut_off_is_missed_by_who_was_told_and_by_nobody_else(entries, data):
    left = data.draw(st.integers(0, len(entries) - 1))
    assert verified(entries[:left]) is None
    fault = verified(entries[:left], heads=[entries[-1].head])
    assert fault is not None
    assert fault.number == left + 1


def test_a_journal_that_was_written_anew_as_a_whole_is_missed_by_who_was_told():
    told = journal_of(deed(Action.OPENED, why="drift"), deed(Action.OPENED, why="again"))
    anew = journal_of(deed(Action.OPENED, why="nothing happened"), deed(Action.OPENED, why="again"))
    assert verified(anew) is None
    fault = verified(anew, heads=[told[0].head, told[1].head])
    assert fault is not None
    assert fault.number == 1
    assert "anew" in fault.said


def test_an_entry_of_another_models_journal_is_named():
    other = journal_of(deed(Action.OPENED), model_id="anemia")
    fault = verified(other)
    assert fault is not None
    assert "another model" in fault.said


def test_the_digest_is_of_the_canonical_bytes_that_anybody_can_make():
    [entry] = journal_of(deed(Action.OPENED, why="dérive"))
    told = {**msgspec.to_builtins(entry), "sha256": ""}
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert entry.sha256 == hashlib.sha256(canonical).hexdigest()
    assert (entry.number, entry.previous_sha256) == (1, GENESIS)


def test_a_head_reads_as_number_and_digest():
    assert str(Head(number=3, sha256="ab")) == "3:ab"


@pytest.mark.parametrize(
    "said",
    [
        {"at": AT.astimezone(timezone(timedelta(hours=1)))},
        {"at": AT.replace(tzinfo=None)},
        {"who": ""},
        {"why": "x" * 2001},
    ],
)
def test_a_deed_needs_an_instant_in_utc_and_somebody(said):
    with pytest.raises(ValueError, match="expected"):
        Deed(**{"at": AT, "who": "dev", "role": "", "action": Action.OPENED, **said})


@pytest.mark.parametrize("content", [b"", b"{}", b'{"number": 1}', b"\xff"])
def test_what_is_no_entry_cannot_be_read(content):
    with pytest.raises(JournalBroken, match="entry 4: expected an entry that can be read"):
        parse_entry(content, number=4)


def test_an_entry_with_a_field_that_nobody_knows_cannot_be_read():
    [entry] = journal_of(deed(Action.OPENED))
    content = json.dumps({**msgspec.to_builtins(entry), "approved": True}).encode()
    with pytest.raises(JournalBroken):
        parse_entry(content, number=1)


def test_the_next_entry_follows_the_last():
    first = chained(deed(Action.OPENED), model_id="hematocrit", last=None)
    second = chained(deed(Action.OPENED), model_id="hematocrit", last=first)
    assert (second.number, second.previous_sha256) == (2, first.sha256)
