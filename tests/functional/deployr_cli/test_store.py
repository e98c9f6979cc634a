"""`deployr store`, as an operator runs it on a SQLite store."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import sqlite3
from datetime import timedelta

import msgspec
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from deployr_cli.failures import CommandFailed
from deployr_cli.main import app
from deployr_cli.up_azure import COSMOS_KEY
from deployr_core.forgetting import derive_patient_hash, is_forgotten
from deployr_core.layout import layout_of
from deployr_core.packet import Abstained, Contribution, Event, EventKind, Label, Observed, Received
from deployr_core.packet_ids import derive_event_id, derive_label_id
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.spool_sqlite import SqliteSpool
from deployr_serve.core.ports import Belongings
from deployr_serve.core.spool import Spooled
from deployr_serve.facts_bootstrap import open_vault
from deployr_serve.settings import read_settings
from deployr_serve.store_bootstrap import open_store

KEY = "a-key-of-the-tests-own"
DIGEST = hashlib.sha256(b"facts").hexdigest()
CANARIES = ("CANARY-PATIENT", "CANARY-ENCOUNTER", "CANARY-ORDER", "CANARY-COMMENT", "CANARY-SOURCE", "CANARY-CSN")


def hash_of(patient_id):
    return derive_patient_hash(KEY.encode(), patient_id)


class Site:
    """A site's settings in the environment, its store, and `deployr store` on it."""

    def __init__(self, folder, bundles):
        self.file = folder / "store.sqlite"
        self.audit = folder / "audit"
        self.settings = {
            "DEPLOYR_STORE": f"sqlite:{self.file}",
            "DEPLOYR_BUNDLES": str(bundles),
            "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir",
            "DEPLOYR_ID_KEY": KEY,
            "DEPLOYR_AUDIT": f"folder:{self.audit}",
        }

    def run(self, *arguments, stdin="", **settings):
        env = {name: None for name in os.environ if name.startswith("DEPLOYR_")} | self.settings | settings
        return CliRunner().invoke(app, ["store", *arguments], input=stdin, env=env)

    def on_store(self, work):
        async def run():
            site = read_settings(self.settings)
            store = open_store(site.store, clock=SystemClock(), deadline_s=site.deadline_s)
            try:
                return await work(store)
            finally:
                await store.aclose()

        return asyncio.run(run())

    def acts(self):
        """Give what was written down: the act, what is said of it, and the details that are there."""
        files = sorted(self.audit.glob("*.ndjson")) if self.audit.is_dir() else []
        events = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return [
            (
                event["subtype"][0]["code"],
                event["outcomeDesc"],
                {each["type"]: each["valueString"] for each in event["entity"][0]["detail"]},
            )
            for event in events
        ]


@pytest.fixture
def site(tmp_path, bundles_folder):
    return Site(tmp_path, bundles_folder)


@pytest.fixture
def filled(site, packet_of, delivery_of, bundle, now):
    """Give a site whose store holds two packets of one patient and one of another, with all that belongs to them."""
    spec = bundle.spec.digest()

    async def fill(store):
        for packet_id, patient_id in (("p01", "CANARY-PATIENT"), ("p02", "CANARY-PATIENT"), ("p03", "other")):
            about = {
                "patient_id": patient_id,
                "order_id": "CANARY-ORDER",
                "patient_hash": hash_of(patient_id),
            }
            outcome = packet_of().outcome
            outcome = msgspec.structs.replace(
                outcome,
                entity_id="CANARY-CSN",
                vector=msgspec.structs.replace(outcome.vector, spec_sha256=spec),
                contributions=(Contribution(concept="hematocrit", value=0.5),),
            )
            packet = packet_of(packet_id, outcome=outcome, **about)
            subject = msgspec.structs.replace(packet.subject, encounter_id="CANARY-ENCOUNTER")
            packet = msgspec.structs.replace(packet, subject=subject)
            created = await store.create(packet)
            event = Event(
                event_id=derive_event_id(packet_id, EventKind.OVERRIDDEN, now),
                packet_id=packet_id,
                kind=EventKind.OVERRIDDEN,
                at=now + timedelta(minutes=5),
                comment="CANARY-COMMENT",
            )
            await store.replace(packet, etag=created.etag, deliveries=(delivery_of(packet_id),), events=(event,))
            observed = Observed(value=1.0, at=now, known_at=now + timedelta(hours=2), source_id="CANARY-SOURCE")
            await store.attach_label(
                Label(
                    label_id=derive_label_id(packet_id, "lab-component"),
                    packet_id=packet_id,
                    rule="lab-component",
                    outcome=observed,
                    attached_at=now + timedelta(days=1),
                )
            )

    site.on_store(fill)
    return site


# -- init and check


def test_a_store_is_made_once_and_then_checks_out(site):
    first = site.run("init")
    assert (first.exit_code, first.output) == (0, f"{site.file}: is there now\n")
    assert site.run("init").output == "everything is as declared already\n"
    checked = site.run("check")
    assert checked.exit_code == 0
    assert "as declared, whole, and can be written" in checked.output


def test_a_store_that_is_not_there_is_not_made_by_looking_at_it(site):
    result = site.run("check")
    assert isinstance(result.exception, CommandFailed)
    assert not site.file.exists()


def test_check_counts_what_is_there_and_shows_nobody(filled):
    result = filled.run("check")
    assert "deliveries: 3 pending; labels: 3; events: 3" in result.output
    assert "CANARY" not in result.output
    # The deliveries are of 2015.
    assert result.exit_code == 1
    assert "deliveries wait since 2015-01-06T20:55:00Z" in result.output


def test_check_finds_what_lost_its_packet_and_rows_that_contradict_their_content(filled):
    with sqlite3.connect(filled.file) as db:
        db.execute("DELETE FROM packets WHERE packet_id = 'p03'")
        db.execute("UPDATE packets SET kind = 'failed' WHERE packet_id = 'p02'")
    db.close()
    output = filled.run("check").output
    assert "1 deliveries of packets that are not there" in output
    assert "1 labels of packets that are not there" in output
    assert "1 events of packets that are not there" in output
    assert "1 packets whose row says something else than their content" in output


def test_check_finds_a_damaged_file(filled, packet_of):
    size = filled.file.stat().st_size
    with filled.file.open("r+b") as opened:
        opened.seek(size // 2)
        opened.write(b"\xff" * 4096)
    result = filled.run("check")
    assert result.exit_code != 0


def test_check_says_of_unfinished_and_old_packets_what_to_do(site, packet_of, now):
    async def fill(store):
        await store.create(packet_of("p01", outcome=Received(lease_until=now), patient_hash="h"))
        await store.create(packet_of("p02", schema_version=1))

    site.on_store(fill)
    output = site.run("check").output
    assert "1 packets were begun and never ended; asked again, they are scored" in output
    assert "1 packets of schema version 1, that no patient is found by: run deployr store migrate" in output


# -- migrate


def test_packets_of_before_get_their_patients_hash_and_a_second_run_finds_none(site, packet_of):
    async def fill(store):
        for number in range(3):
            await store.create(packet_of(f"p0{number}", schema_version=1, patient_id=f"patient-{number}"))

    site.on_store(fill)
    counted = site.run("migrate")
    assert "3 packets of schema version 1; nothing was done: add --yes to do it" in counted.output
    assert site.acts() == []
    assert "3 packets of schema version 1\n" in site.run("migrate", "--yes", "--by", "ops").output
    [found] = site.on_store(lambda store: store.packets_of(hash_of("patient-1"), after=None, limit=9))
    assert (found.packet_id, found.schema_version) == ("p01", 2)
    assert site.acts()[0][:2] == ("migrate", "migrated")
    assert "0 packets" in site.run("migrate", "--yes").output
    assert len(site.acts()) == 1


# -- forget


def test_forget_counts_first_and_erases_only_when_told_to(filled):
    told = filled.run("forget", stdin="CANARY-PATIENT\n")
    assert told.exit_code == 0, told.output
    assert "2 packets, 2 deliveries, 2 labels, 2 events; nothing was done" in told.output
    assert filled.acts() == []
    done = filled.run("forget", "--yes", "--by", "ops", stdin="CANARY-PATIENT\n")
    assert "2 packets" in done.output
    assert "nothing was done" not in done.output
    assert [act[:2] for act in filled.acts()] == [("forget", "begun"), ("forget", "erased")]
    assert filled.acts()[1][2]["packets"] == "2"

    async def look(store):
        return [(await store.read(packet_id)).packet for packet_id in ("p01", "p03")], await store.belongings("p01")

    (gone, other), belongings = filled.on_store(look)
    assert is_forgotten(gone)
    assert not is_forgotten(other)
    assert belongings == Belongings()
    # Nor does it lie in pages that are free now.
    assert b"CANARY-PATIENT" not in filled.file.read_bytes()
    assert filled.run("forget", stdin="CANARY-PATIENT\n").output.startswith("nothing; ")


def test_neither_output_nor_audit_of_forgetting_names_the_patient(filled):
    result = filled.run("forget", "--yes", "--from", "-", stdin="CANARY-PATIENT\nother\n")
    text = "".join(file.read_text() for file in filled.audit.iterdir())
    assert "CANARY" not in text + result.output
    assert hash_of("CANARY-PATIENT") in text
    assert hash_of("other") in text


def test_a_patients_id_is_no_argument(filled):
    assert filled.run("forget", "CANARY-PATIENT", "--yes").exit_code == 2
    assert filled.acts() == []


def test_ids_are_read_from_a_file_and_what_is_none_is_refused_without_being_repeated(filled, tmp_path):
    ids = tmp_path / "ids"
    ids.write_text("CANARY PATIENT\n")
    refused = filled.run("forget", "--from", str(ids))
    assert isinstance(refused.exception, CommandFailed)
    assert "CANARY" not in str(refused.exception)
    ids.write_text("CANARY-PATIENT\n\nother\n")
    assert filled.run("forget", "--from", str(ids)).output.count("nothing was done") == 2


def test_nothing_is_forgotten_without_a_record_of_it(filled):
    refused = filled.run("forget", "--yes", stdin="CANARY-PATIENT\n", DEPLOYR_AUDIT="")
    assert "DEPLOYR_AUDIT" in str(refused.exception)
    assert len(filled.on_store(lambda store: store.packets_of(hash_of("CANARY-PATIENT"), after=None, limit=9))) == 2


def test_forgetting_is_not_done_while_packets_are_there_whose_patients_nobody_can_find(filled, packet_of):
    filled.on_store(lambda store: store.create(packet_of("p09", schema_version=1)))
    result = filled.run("forget", "--yes", stdin="CANARY-PATIENT\n")
    assert result.exit_code == 1
    assert "run deployr store migrate, then this again" in result.output
    assert filled.acts()[1][:2] == ("forget", "erased in part")


def test_the_facts_that_are_kept_for_a_patient_go_too(filled, tmp_path, now):
    key = base64.b64encode(bytes(32)).decode()
    vault = {"DEPLOYR_FACTS_VAULT": f"sqlite:{tmp_path / 'facts.sqlite'}", "DEPLOYR_FACTS_KEYS": f"k1:{key}"}

    async def on_vault(work):
        site = read_settings({**filled.settings, **vault})
        opened = open_vault(site.facts, deadline_s=site.deadline_s)
        try:
            return await work(opened)
        finally:
            await opened.aclose()

    async def keep(opened):
        for packet_id in ("p01", "p03"):
            await opened.keep(packet_id, DIGEST, b"facts", expires_at=now + timedelta(days=36_000))

    async def look(opened):
        return [await opened.read(packet_id, DIGEST, now=now) for packet_id in ("p01", "p03")]

    asyncio.run(on_vault(keep))
    done = filled.run("forget", "--yes", stdin="CANARY-PATIENT\n", **vault)
    assert "1 facts" in done.output
    assert asyncio.run(on_vault(look)) == [None, b"facts"]


def test_packets_that_wait_in_the_spool_are_pointed_out(filled, tmp_path, packet_of, now):
    async def put():
        spool = SqliteSpool(tmp_path / "spool.sqlite")
        await spool.put(Spooled(packet=packet_of("p09"), deliveries=(), events=(), spooled_at=now))
        await spool.aclose()

    asyncio.run(put())
    spool = {"DEPLOYR_SPOOL": f"sqlite:{tmp_path / 'spool.sqlite'}"}
    result = filled.run("forget", "--yes", stdin="CANARY-PATIENT\n", **spool)
    assert result.exit_code == 1
    assert "1 packets wait in the spool: run this again when they are in the store" in result.output
    assert filled.acts()[1][:2] == ("forget", "erased in part")


# -- purge


def test_what_is_as_old_as_the_days_say_is_kept_and_what_is_older_goes(site, packet_of, delivery_of):
    today = SystemClock().now()

    async def fill(store):
        for packet_id, days in (("p01", 29.9), ("p02", 30.1)):
            packet = packet_of(packet_id, started_at=today - timedelta(days=days), patient_hash="h")
            created = await store.create(packet)
            await store.replace(packet, etag=created.etag, deliveries=(delivery_of(packet_id),))
        old = today - timedelta(days=9.9)
        for packet_id, started_at in (("p03", old), ("p04", old - timedelta(days=1))):
            await store.create(packet_of(packet_id, started_at=started_at, outcome=Abstained(reason="sparse")))

    site.on_store(fill)
    days = {"DEPLOYR_RETENTION_DAYS": "scored:30,unscored:10"}
    assert "1 scored packets, 1 unscored packets; nothing was done" in site.run("purge", **days).output
    site.run("purge", "--yes", **days)

    async def look(store):
        kept = await store.packets(model_id="hematocrit", after=None, limit=9)
        return [packet.packet_id for packet in kept], await store.read_delivery("p02.score-column")

    assert site.on_store(look) == (["p01", "p03"], None)
    assert site.acts()[1][2] | {"scored": "1", "unscored": "1"} == site.acts()[1][2]


def test_purge_says_which_setting_it_goes_by(site):
    assert "DEPLOYR_RETENTION_DAYS" in str(site.run("purge").exception)


# -- export


def export(site, tmp_path, name="out", *arguments):
    result = site.run("export", str(tmp_path / name), *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return {file.stem: pq.read_table(file).to_pylist() for file in (tmp_path / name).glob("*.parquet")}


def test_an_export_holds_every_packet_and_all_that_belongs_to_it(filled, tmp_path, bundle):
    tables = export(filled, tmp_path)
    assert {name: len(rows) for name, rows in tables.items()} == {
        "inferences": 3,
        "features": 6,
        "contributions": 3,
        "deliveries": 3,
        "events": 3,
        "labels": 3,
    }
    names = layout_of(bundle.spec).names
    assert {row["name"] for row in tables["features"]} == {names[0], names[2]}
    packets = {row["packet"] for row in tables["inferences"]}
    assert all({row["packet"] for row in rows} == packets for rows in tables.values())
    assert len({row["patient"] for row in tables["inferences"]}) == 2
    assert {row["value"] for row in tables["labels"]} == {1.0}
    assert {row["score"] for row in tables["inferences"]} == {0.75}


def test_a_deidentified_export_holds_no_identity_and_no_date(filled, tmp_path, now):
    tables = export(filled, tmp_path)
    content = b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())
    text = json.dumps(tables, default=str)
    for canary in (*CANARIES, hash_of("CANARY-PATIENT"), "p01", "correlation-1"):
        assert canary not in text
        assert canary.encode() not in content or canary == "p01"
    for row in tables["inferences"]:
        shift = now - row["as_of"]
        assert shift % timedelta(weeks=1) == timedelta(0)
        assert timedelta(weeks=1) <= shift <= timedelta(weeks=52)
    # One patient's instants stay as far from each other as they were.
    event, label = tables["events"][0], tables["labels"][0]
    assert label["attached_at"] - event["at"] == timedelta(days=1) - timedelta(minutes=5)


def test_two_exports_cannot_be_joined_unless_they_are_made_with_one_key(filled, tmp_path):
    one, other = export(filled, tmp_path, "one"), export(filled, tmp_path, "other")

    def ids(tables, column):
        return {row[column] for row in tables["inferences"]}

    assert not ids(one, "patient") & ids(other, "patient")
    assert not ids(one, "packet") & ids(other, "packet")
    (tmp_path / "key").write_text("a secret of the study's own\n")
    key = ("--key-file", str(tmp_path / "key"))
    one, other = export(filled, tmp_path, "three", *key), export(filled, tmp_path, "four", *key)
    assert ids(one, "patient") == ids(other, "patient")
    assert ids(one, "packet") == ids(other, "packet")
    assert ids(one, "as_of") == ids(other, "as_of")


def test_an_identified_export_needs_grounds_and_leaves_a_record(filled, tmp_path, now):
    assert "--why" in str(filled.run("export", str(tmp_path / "out"), "--identified").exception)
    refused = filled.run("export", str(tmp_path / "out"), "--identified", "--why", "IRB 1", DEPLOYR_AUDIT="")
    assert "DEPLOYR_AUDIT" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    tables = export(filled, tmp_path, "out", "--identified", "--why", "IRB 1", "--by", "ops")
    assert {row["patient_id"] for row in tables["inferences"]} == {"CANARY-PATIENT", "other"}
    assert {row["as_of"] for row in tables["inferences"]} == {now}
    assert {row["packet"] for row in tables["inferences"]} == {"p01", "p02", "p03"}
    begun, done = filled.acts()
    assert (begun[1], done[1]) == ("begun", "exported")
    assert (done[2]["identified"], done[2]["why"], done[2]["inferences"]) == ("1", "IRB 1", "3")


def test_an_export_without_identities_is_written_down_too(filled, tmp_path):
    export(filled, tmp_path)
    assert [act[:2] for act in filled.acts()] == [("export", "begun"), ("export", "exported")]


def test_the_dictionary_says_what_each_column_of_each_table_means(filled, tmp_path):
    export(filled, tmp_path)
    dictionary = json.loads((tmp_path / "out" / "dictionary.json").read_text())
    for name, table in dictionary["tables"].items():
        schema = pq.read_schema(tmp_path / "out" / f"{name}.parquet")
        assert list(table["columns"]) == schema.names
        assert all(column["meaning"] for column in table["columns"].values())
    assert dictionary["tables"]["inferences"]["rows"] == 3


def test_an_export_bounds_when_packets_were_asked_for(filled, tmp_path):
    at = "2015-01-06T20:55:00Z"
    assert len(export(filled, tmp_path, "from", "--since", at)["inferences"]) == 3
    assert len(export(filled, tmp_path, "to", "--until", at)["inferences"]) == 0


def test_what_is_there_is_not_written_over_and_half_an_export_is_not_left(filled, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    assert "not there yet" in str(filled.run("export", str(tmp_path / "out")).exception)
    with sqlite3.connect(filled.file) as db:
        db.execute("UPDATE packets SET body = '{' WHERE packet_id = 'p03'")
    db.close()
    assert filled.run("export", str(tmp_path / "other")).exit_code != 0
    assert sorted(file.name for file in tmp_path.iterdir() if "other" in file.name) == []


def test_forgotten_packets_are_not_exported(filled, tmp_path):
    filled.run("forget", "--yes", stdin="CANARY-PATIENT\n")
    assert len(export(filled, tmp_path)["inferences"]) == 1


# -- on Azure Cosmos DB


def test_all_of_it_works_on_cosmos_as_well(site, tmp_path, cosmos_address, azurite, new_database, packet_of):
    site.settings |= {
        "DEPLOYR_STORE": f"cosmos:{cosmos_address}",
        "DEPLOYR_STORE_DATABASE": new_database(),
        "DEPLOYR_STORE_KEY": COSMOS_KEY,
        "DEPLOYR_STORE_BLOBS": azurite,
    }
    assert "init" in str(site.run("check").exception)
    made = site.run("init")
    assert made.exit_code == 0, (made.output, made.exception)
    assert site.run("init").output == "everything is as declared already\n"

    async def fill(store):
        await store.create(packet_of("p01", schema_version=1, patient_id="CANARY-PATIENT"))
        await store.create(packet_of("p02", patient_id="other", patient_hash=hash_of("other")))

    site.on_store(fill)
    assert "1 packets of schema version 1\n" in site.run("migrate", "--yes").output
    assert site.run("check").exit_code == 0
    assert len(export(site, tmp_path)["inferences"]) == 2
    assert "1 packets" in site.run("forget", "--yes", stdin="CANARY-PATIENT\n").output
    assert len(export(site, tmp_path, "after")["inferences"]) == 1
    assert "1 scored packets" in site.run("purge", "--yes", DEPLOYR_RETENTION_DAYS="scored:30").output
