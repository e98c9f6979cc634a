"""The journals of models in the shared records: read and verified as a whole, and added to by one writer at a time.

Each entry is a record of its own, by its number, which is created only if there is none yet: of two who write at once
one is first, and the other reads again and decides again. They never expire. Beside them a head says how far the
journal has come; it is what workers look at. A writer who dies in between leaves it one entry behind, and the next one
moves it on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from deployr_core.registry.journal import (
    NO_KEYS,
    Deed,
    Entry,
    Fault,
    Head,
    JournalBroken,
    JournalKeys,
    chained,
    entry_bytes,
    parse_entry,
)
from deployr_core.registry.standing import Standing, after, examined
from deployr_core.signing import TrustedKey
from deployr_serve.core.errors import RecordChanged, SettingsInvalid, StoreUnavailable
from deployr_serve.core.ports import Clock, Record, Records

JOURNAL, HEAD = "journal", "journal-head"
"""Kinds of records; a model's entries are of a kind of their own."""
_MOST_TRIES = 100

Decide = Callable[[Standing], Deed]
"""Gives what is to be written, from how things stand at that moment; raises what speaks against it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Journal:
    """A verified journal, and how the model stands by it."""

    entries: tuple[Entry, ...]
    standing: Standing


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What was found of a journal. ``fault``: None if it is what was written; ``entries``: how many could be read.

    ``signed``: how many of them a key that counts is to have signed; the others are vouched for. ``compared``: with how
    many heads, told elsewhere, it was compared.
    """

    model_id: str
    entries: int
    signed: int
    compared: int
    fault: Fault | None


async def stored_entries(records: Records, model_id: str, *, now: datetime) -> tuple[tuple[Entry, ...], Head | None]:
    """Give a model's entries in the order in which they are stored, and the head as it was before; not verified.

    Raises:
        JournalBroken: an entry cannot be read.
        StoreUnavailable: nobody knows.
    """
    # The head first: what is added meanwhile must not look cut off.
    head = await records.read_record(HEAD, model_id, now=now)
    held = await records.records(_kind(model_id), now=now)
    entries = [parse_entry(record.content, number=at) for at, (_, record) in enumerate(sorted(held.items()), start=1)]
    told = None if head is None else _head(head)
    while told is not None and len(entries) < told.number:
        # What another worker wrote a moment ago, a query of all partitions may not find yet.
        late = await records.read_record(_kind(model_id), _entry_id(len(entries) + 1), now=now)
        if late is None:
            break
        entries.append(parse_entry(late.content, number=len(entries) + 1))
    return tuple(entries), told


async def read_journal(
    records: Records,
    model_id: str,
    *,
    now: datetime,
    told: Iterable[Head] = (),
    keys: Sequence[TrustedKey] = (),
) -> Journal:
    """Give a model's journal; empty where nothing was ever written.

    ``told``: how far it had come at other times, as whoever asks has seen it. ``keys``: whose signatures count.

    Raises:
        JournalBroken: it is not what was written, or says what cannot have happened.
        StoreUnavailable: nobody knows.
    """
    entries, head = await stored_entries(records, model_id, now=now)
    compared = (*told, *([] if head is None else [head]))
    found = await _examined(entries, model_id=model_id, heads=compared, keys=keys)
    if isinstance(found, Fault):
        raise JournalBroken(found, model_id=model_id)
    return Journal(entries=entries, standing=found)


async def verdict(
    records: Records,
    model_id: str,
    *,
    now: datetime,
    told: Iterable[Head] = (),
    keys: Sequence[TrustedKey] = (),
) -> Verdict:
    """Look a journal through from end to end; what is wrong with it is told, not raised.

    ``told``: how far it had come, as others were told. ``keys``: whose signatures count.

    Raises:
        StoreUnavailable: nobody knows.
    """
    heads_told = tuple(told)
    try:
        entries, head = await stored_entries(records, model_id, now=now)
    except JournalBroken as error:
        return Verdict(model_id=model_id, entries=error.fault.number - 1, signed=0, compared=0, fault=error.fault)
    compared = (*heads_told, *([] if head is None else [head]))
    found = await _examined(entries, model_id=model_id, heads=compared, keys=keys)
    fault = found if isinstance(found, Fault) else None
    signed = sum(not isinstance(entry.signature, msgspec.UnsetType) for entry in entries) if keys else 0
    return Verdict(model_id=model_id, entries=len(entries), signed=signed, compared=len(compared), fault=fault)


async def heads(records: Records, *, now: datetime) -> Mapping[str, Head]:
    """Give how far each model's journal has come, by model."""
    held = await records.records(HEAD, now=now)
    return {model_id: _head(record) for model_id, record in held.items()}


async def append(
    records: Records, model_id: str, decide: Decide, *, clock: Clock, keys: JournalKeys = NO_KEYS
) -> Entry:
    """Add one entry: what ``decide`` gives from how things stand; it is asked again whenever somebody else was first.

    Raises:
        SettingsInvalid: entries have to be signed here, and there is no key to sign with.
        JournalBroken: the journal is not what was written; nothing is added to it.
        StoreUnavailable: nobody knows if it was added.
    """
    if keys.trusted and keys.signing is None:
        raise SettingsInvalid("settings: DEPLOYR_JOURNAL_KEY: expected the key that entries are signed with")
    for _ in range(_MOST_TRIES):
        now = clock.now()
        journal = await read_journal(records, model_id, now=now, keys=keys.trusted)
        deed, last = decide(journal.standing), journal.entries[-1] if journal.entries else None
        entry = chained(deed, model_id=model_id, last=last, key=keys.signing)
        # What could not be read back must not be written.
        after(journal.standing, entry)
        record_id = _entry_id(entry.number)
        if await records.create_record(_kind(model_id), record_id, entry_bytes(entry), now=now) is None:
            continue
        await tell_head(records, model_id, entry.head, now=now)
        return entry
    raise StoreUnavailable("expected to add to the journal, but others keep adding to it")


async def tell_head(records: Records, model_id: str, head: Head, *, now: datetime) -> None:
    """Say how far the journal has come, unless somebody has said that it has come farther."""
    content = msgspec.json.encode(head)
    for _ in range(_MOST_TRIES):
        held = await records.read_record(HEAD, model_id, now=now)
        if held is None:
            if await records.create_record(HEAD, model_id, content, now=now) is not None:
                return
            continue
        if _head(held).number >= head.number:
            return
        try:
            await records.replace_record(HEAD, model_id, content, etag=held.etag)
        except RecordChanged:
            continue
        return
    raise StoreUnavailable("expected to say how far the journal has come, but others keep saying it")


async def _examined(
    entries: Sequence[Entry], *, model_id: str, heads: Sequence[Head], keys: Sequence[TrustedKey]
) -> Standing | Fault:
    # A thousand signatures take a tenth of a second, for which nobody else who is answered here should wait.
    return await asyncio.to_thread(examined, entries, model_id=model_id, heads=heads, keys=keys)


def _kind(model_id: str) -> str:
    return f"{JOURNAL}.{model_id}"


def _entry_id(number: int) -> str:
    return f"{number:08d}"


def _head(record: Record) -> Head:
    try:
        return msgspec.json.decode(record.content, type=Head)
    except msgspec.MsgspecError:
        raise StoreUnavailable("expected a stored head of a journal that can be read") from None
