"""The tables of a SQLite store come by numbered steps, whatever the file was before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta

import msgspec
import pytest

from deployr_serve.adapters import sqlite_schema
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.errors import StoreUnavailable

TABLES = {"packets", "deliveries", "labels", "events", "records"}


@pytest.fixture
def db(tmp_path):
    with closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as opened:
        yield opened


def version_of(db):
    return db.execute("PRAGMA user_version").fetchone()[0]


def tables_of(db):
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def take_steps(db, number):
    """Make the file one of an earlier version."""
    for step in sqlite_schema._STEPS[:number]:
        for statement in step:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {number}")


def test_a_new_file_takes_all_steps(db):
    sqlite_schema.migrate(db)
    assert tables_of(db) >= TABLES
    assert version_of(db) == len(sqlite_schema._STEPS)


def test_a_file_from_before_steps_were_numbered_keeps_what_it_holds(db):
    for statement in sqlite_schema._STEPS[0]:
        db.execute(statement)
    db.execute("INSERT INTO records VALUES ('switch', 'all', 1, NULL, x'00')")
    sqlite_schema.migrate(db)
    assert db.execute("SELECT record_id FROM records").fetchall() == [("all",)]
    assert version_of(db) == len(sqlite_schema._STEPS)


async def test_packets_from_before_the_period_was_indexed_are_found_by_it(db, tmp_path, packet_of, now):
    take_steps(db, 1)
    body = msgspec.json.encode(packet_of())
    db.execute("INSERT INTO packets VALUES ('p01', 1, 'hematocrit', 'scored', ?)", (body,))
    store = SqliteStore(tmp_path / "store.sqlite")
    everything = {"model_id": "hematocrit", "after": None, "limit": 10}
    [found] = await store.packets(**everything, since=now, until=now + timedelta(microseconds=1))
    assert found == packet_of()
    assert await store.packets(**everything, until=now) == ()
    await store.aclose()


async def test_packets_from_before_changes_were_numbered_have_changed_in_the_order_they_were_asked_for(
    db, tmp_path, packet_of, now
):
    take_steps(db, 5)
    for packet_id, hours in (("p01", 2), ("p02", 1)):
        started = now + timedelta(hours=hours)
        body = msgspec.json.encode(packet_of(packet_id, started_at=started))
        db.execute(
            "INSERT INTO packets VALUES (?, 1, 'hematocrit', 'scored', ?, ?, '')",
            (packet_id, body, started.isoformat()),
        )
    store = SqliteStore(tmp_path / "store.sqlite")
    found = await store.changed(after=None, limit=10)
    assert [packet.packet_id for packet in found.packets] == ["p02", "p01"]
    await store.aclose()


async def test_packets_from_before_they_were_numbered_keep_their_content_their_tags_and_their_changes(
    db, tmp_path, packet_of, now
):
    take_steps(db, 6)
    for packet_id, hours in (("p01", 2), ("p02", 1)):
        packet = packet_of(packet_id, started_at=now + timedelta(hours=hours))
        db.execute(
            "INSERT INTO packets (packet_id, etag, model_id, kind, body, started_at, patient_hash)"
            " VALUES (?, 3, 'hematocrit', 'scored', ?, ?, ?)",
            (packet_id, msgspec.json.encode(packet), packet.started_at.isoformat(), packet.patient_hash),
        )
    store = SqliteStore(tmp_path / "store.sqlite")
    first = await store.changed(after=None, limit=10)
    assert [packet.packet_id for packet in first.packets] == ["p01", "p02"]
    held = await store.read("p02")
    assert (held.packet, held.etag) == (first.packets[1], "3")
    assert [packet.packet_id for packet in await store.packets(model_id="hematocrit", after="p01", limit=10)] == ["p02"]
    assert await store.differences() == ()
    await store.replace(msgspec.structs.replace(held.packet, site="elsewhere"), etag="3")
    [changed] = (await store.changed(after=first.cursor, limit=10)).packets
    assert (changed.packet_id, changed.site) == ("p02", "elsewhere")
    assert await store.erase("p01", leaving=None)
    assert [packet.packet_id for packet in (await store.changed(after=None, limit=10)).packets] == ["p02"]
    await store.aclose()


def test_only_the_steps_that_were_not_taken_are_taken(db, monkeypatch):
    sqlite_schema.migrate(db)
    # Taken twice, this step would fail.
    steps = (*sqlite_schema._STEPS, ("CREATE TABLE added (x)",))
    monkeypatch.setattr(sqlite_schema, "_STEPS", steps)
    sqlite_schema.migrate(db)
    sqlite_schema.migrate(db)
    assert "added" in tables_of(db)
    assert version_of(db) == len(steps)


def test_a_step_that_fails_leaves_the_file_as_it_was(db, monkeypatch):
    sqlite_schema.migrate(db)
    before = version_of(db)
    monkeypatch.setattr(sqlite_schema, "_STEPS", (*sqlite_schema._STEPS, ("CREATE TABLE added (x)", "nonsense")))
    with pytest.raises(sqlite3.OperationalError):
        sqlite_schema.migrate(db)
    assert "added" not in tables_of(db)
    assert version_of(db) == before


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(db, tmp_path):
    newer = len(sqlite_schema._STEPS) + 1
    db.execute(f"PRAGMA user_version = {newer}")
    store = SqliteStore(tmp_path / "store.sqlite")
    with pytest.raises(StoreUnavailable, match=f"this one has {newer}: use the version of deployr that made it"):
        await store.check()
    await store.aclose()
    assert version_of(db) == newer
    assert tables_of(db) == set()
