"""`deployr monitor extract`, as an operator runs it on a SQLite store."""

from __future__ import annotations

import asyncio
import os
import stat
from datetime import timedelta

import msgspec
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from deployr_cli.main import app
from deployr_core.bundle import MANIFEST_FILE, sha256_hex
from deployr_core.forgetting import derive_patient_hash
from deployr_core.packet import Abstained, Event, EventKind, Label, ModelRef, Observed
from deployr_core.packet_ids import derive_event_id
from deployr_dash.loading import load_frame
from deployr_dash.overview import overview
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.sqlite_store import SqliteStore

KEY = "a-key-of-the-tests-own"


class Site:
    """A site's settings in the environment, and `deployr` on it."""

    def __init__(self, folder, bundles):
        self.file = folder / "store.sqlite"
        self.extract = folder / "monitor"
        self.settings = {
            "DEPLOYR_STORE": f"sqlite:{self.file}",
            "DEPLOYR_BUNDLES": str(bundles),
            "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir",
            "DEPLOYR_ID_KEY": KEY,
            "DEPLOYR_AUDIT": f"folder:{folder / 'audit'}",
        }

    def run(self, *arguments, stdin="", **settings):
        env = {name: None for name in os.environ if name.startswith("DEPLOYR_")} | self.settings | settings
        return CliRunner().invoke(app, list(arguments), input=stdin, env=env)

    def monitor(self, *arguments, **settings):
        return self.run("monitor", "extract", str(self.extract), *arguments, **settings)

    def store(self, *packets, labels=(), events=()):
        async def fill():
            store = SqliteStore(self.file)
            for packet in packets:
                await store.create(packet)
            for label in labels:
                await store.attach_label(label)
            for event in events:
                await store.append_event(event)
            await store.aclose()

        asyncio.run(fill())


@pytest.fixture
def site(tmp_path, bundles_folder):
    return Site(tmp_path, bundles_folder)


@pytest.fixture
def packet_about(packet_of, bundle, bundles_folder):
    """Give a function that makes a packet of the bundle that is deployed, about somebody with marked identifiers."""
    digest = sha256_hex((bundles_folder / "hematocrit" / MANIFEST_FILE).read_bytes())

    def make(packet_id, patient_id, **changes):
        packet = packet_of(packet_id, patient_id=patient_id, order_id="CANARY-ORDER")
        vector = msgspec.structs.replace(packet.outcome.vector, spec_sha256=bundle.spec.digest())
        return msgspec.structs.replace(
            packet,
            **{
                "model": ModelRef(model_id="hematocrit", version="1.0.0", bundle_sha256=digest),
                "patient_hash": derive_patient_hash(KEY.encode(), patient_id),
                "outcome": msgspec.structs.replace(packet.outcome, vector=vector, entity_id="CANARY-CSN"),
                **changes,
            },
        )

    return make


def test_the_extract_is_made_brought_up_to_date_and_says_how_much_it_read(site, packet_about, now):
    site.store(packet_about("p01", "anna"), packet_about("p02", "ben"))
    first = site.monitor()
    assert (first.exit_code, "2 packets read, 2 in all" in first.stdout) == (0, True)
    frame = load_frame(site.extract)
    assert (frame["sex"].tolist(), frame["label_kind"].isna().all()) == (["female", "female"], True)
    outcome = Observed(value=1.0, at=now, known_at=now, source_id="CANARY-SOURCE")
    label = Label(label_id="p01.lab-component", packet_id="p01", rule="lab-component", outcome=outcome, attached_at=now)
    site.store(labels=(label,))
    assert "1 packets read, 2 in all" in site.monitor().stdout
    assert int(overview(site.extract).daily["positive"].sum()) == 1
    assert "0 packets read, 2 in all" in site.monitor().stdout
    assert "2 packets read, 2 in all" in site.monitor("--anew").stdout


def test_no_identity_is_in_any_file_but_the_hashes_in_one_that_is_its_owners_alone(site, packet_about, now):
    packet = packet_about("p01", "CANARY-PATIENT")
    event = Event(
        event_id=derive_event_id("p01", EventKind.OVERRIDDEN, now),
        packet_id="p01",
        kind=EventKind.OVERRIDDEN,
        at=now,
        reason="known-already",
        comment="CANARY-COMMENT",
    )
    site.store(packet, events=(event,))
    told = site.monitor()
    read = [told.output]
    for file in site.extract.rglob("*"):
        if file.is_file() and file.name != "codes.sqlite":
            # What is compressed must be read to be looked through.
            is_table = file.suffix == ".parquet"
            read.append(str(pq.read_table(file).to_pylist()) if is_table else file.read_text(encoding="utf-8"))
    assert len(read) >= 6
    assert "known-already" in "".join(read)
    assert not [text for text in read if "CANARY" in text or packet.patient_hash in text]
    codes = site.extract / "codes.sqlite"
    assert packet.patient_hash.encode() in codes.read_bytes()
    assert b"CANARY" not in codes.read_bytes()
    assert (stat.S_IMODE(codes.stat().st_mode), stat.S_IMODE(site.extract.stat().st_mode)) == (0o600, 0o700)


def test_who_was_forgotten_is_gone_with_the_next_run(site, packet_about):
    site.store(packet_about("p01", "anna"), packet_about("p02", "ben"))
    site.monitor()
    assert site.run("store", "forget", "--yes", "--by", "tests", stdin="anna\n").exit_code == 0
    assert "1 packets read, 1 in all" in site.monitor().stdout
    assert load_frame(site.extract)["packet_id"].tolist() == ["p02"]
    assert derive_patient_hash(KEY.encode(), "anna").encode() not in (site.extract / "codes.sqlite").read_bytes()


def test_what_the_store_no_longer_keeps_is_dropped_here_too(site, packet_about):
    long_ago = SystemClock().now() - timedelta(days=400)
    old = packet_about("p01", "anna", outcome=Abstained(reason="stale"), started_at=long_ago)
    site.store(old, packet_about("p02", "ben", started_at=long_ago))
    assert "2 in all" in site.monitor().stdout
    assert "1 in all" in site.monitor(DEPLOYR_RETENTION_DAYS="unscored:399,scored:401").stdout
    assert load_frame(site.extract)["packet_id"].tolist() == ["p02"]


def test_packets_of_bundles_that_are_not_here_are_counted_and_the_archive_is_looked_through(
    site, packet_about, tmp_path, bundles_folder
):
    old = ModelRef(model_id="hematocrit", version="0.9", bundle_sha256="0" * 64)
    site.store(packet_about("p01", "anna", model=old), packet_about("p02", "ben"))
    assert "1 were scored by bundles that are not here" in site.monitor().stdout
    (tmp_path / "none").mkdir()
    archived = {"DEPLOYR_BUNDLES": str(tmp_path / "none"), "DEPLOYR_BUNDLE_ARCHIVE": str(bundles_folder)}
    assert "1 were scored by bundles that are not here" in site.monitor("--anew", **archived).stdout


def test_a_store_of_one_process_or_none_is_refused(site):
    assert "expected a store that several processes share" in str(site.monitor(DEPLOYR_STORE="memory").exception)
    assert "no such file" in str(site.monitor().exception)
    assert not site.extract.exists()
