"""`deployr replay`: what the app has stored is scored again, from its features and from its facts."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from io import StringIO

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from deployr_cli.failures import CommandFailed
from deployr_cli.main import app
from deployr_cli.replay import Period, run_replay
from deployr_core.bundle import MANIFEST_FILE, parse_manifest
from deployr_core.packet import Abstained
from deployr_serve.adapters.facts_vault_sqlite import SqliteFactsVault
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policy
from deployr_serve.core.sealing_keys import read_sealing_keys

KEYS = "2026:" + "A" * 43 + "="
DEPLOYMENT = """\
schema_version: 1
model: hematocrit
mode: live
threshold: 0.5
bands: [{name: high, at_least: 0.5}]
keep_facts_days: 10000
"""


@pytest.fixture
def replayed(tmp_path, bundles_folder):
    """Give a function that runs the command, and gives its exit code, what it printed, and its JSON."""
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "hematocrit.yaml").write_text(DEPLOYMENT)

    def make(packet_id=None, *, period=None, from_facts=False, **settings):
        environ = {
            "DEPLOYR_BUNDLES": str(bundles_folder),
            "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
            "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/api/FHIR/R4",
            "DEPLOYR_DEPLOYMENTS": str(tmp_path / "deployments"),
            "DEPLOYR_FACTS_VAULT": f"sqlite:{tmp_path / 'facts.sqlite'}",
            "DEPLOYR_FACTS_KEYS": KEYS,
            **settings,
        }
        out, json_file = StringIO(), tmp_path / "found.json"
        code = run_replay(
            None,
            packet_id=packet_id,
            period=period,
            from_facts=from_facts,
            json_file=json_file,
            console=Console(file=out, width=200),
            environ=environ,
        )
        return code, out.getvalue(), json.loads(json_file.read_text())

    return make


@pytest.fixture
def answered(tmp_path, services_of, request_of, bundles_folder):
    """Give a function that has requests answered and stored, facts and all, and gives the packets."""
    from deployr_serve.adapters.models import BundleFolder

    async def answer(requests):
        store = SqliteStore(tmp_path / "store.sqlite")
        vault = SqliteFactsVault(tmp_path / "facts.sqlite", keys=read_sealing_keys(KEYS))
        policy = msgspec.yaml.decode(DEPLOYMENT, type=Policy)
        services = services_of(store=store, policies=(policy,), models=BundleFolder(bundles_folder))
        services = replace(services, vault=vault)
        try:
            return [(await infer(request, services)).packet for request in requests]
        finally:
            await store.aclose()
            await vault.aclose()

    return lambda *requests: asyncio.run(answer(requests or (request_of(),)))


def change(tmp_path, packet):
    with closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as db:
        body = msgspec.json.encode(packet)
        db.execute("UPDATE packets SET body = ? WHERE packet_id = ?", (body, packet.packet_id))


def test_a_stored_packet_is_the_same_to_the_bit(answered, replayed):
    [packet] = answered()
    code, said, content = replayed(packet.packet_id)
    assert (code, content["verdict"]) == (0, "same")
    assert "equal to the bit" in said


def test_from_facts_it_is_the_same_too(answered, replayed):
    [packet] = answered()
    assert packet.facts_sha256 is not None
    code, _, content = replayed(packet.packet_id, from_facts=True)
    assert (code, content["verdict"], content["features"]) == (0, "same", [])


def test_a_changed_score_is_named_and_gives_1(answered, replayed, tmp_path):
    [packet] = answered()
    outcome = msgspec.structs.replace(packet.outcome, score=0.7500000000000001)
    change(tmp_path, msgspec.structs.replace(packet, outcome=outcome))
    code, said, content = replayed(packet.packet_id)
    assert (code, content["differences"]) == (1, ["score"])
    assert "Differs" in said


def test_a_feature_that_the_facts_do_not_give_is_named_by_its_declared_name(answered, replayed, tmp_path):
    [packet] = answered()
    vector = packet.outcome.vector
    values = tuple(29.0 if value == 30.0 else value for value in vector.values)
    outcome = msgspec.structs.replace(packet.outcome, vector=msgspec.structs.replace(vector, values=values))
    change(tmp_path, msgspec.structs.replace(packet, outcome=outcome))
    code, said, content = replayed(packet.packet_id, from_facts=True)
    assert (code, content["features"]) == (1, ["labs/4544-3/last"])
    assert "labs/4544-3/last" in said


def test_a_bundle_that_was_replaced_is_missing_by_digest_until_it_is_in_the_archive(
    answered, replayed, tmp_path, bundles_folder
):
    [packet] = answered()
    folder, archive = bundles_folder / "hematocrit", tmp_path / "archive" / "2015" / "any name"
    shutil.copytree(folder, archive)
    newer = msgspec.structs.replace(parse_manifest((folder / MANIFEST_FILE).read_bytes()), version="1.0.1")
    (folder / MANIFEST_FILE).write_bytes(newer.to_json())
    code, said, _ = replayed(packet.packet_id)
    assert code == 2
    assert f"the bundle of digest {packet.model.bundle_sha256[:12]} is missing, version 1.0.0" in said
    assert "here are version 1.0.1 of digest" in said
    code, _, _ = replayed(packet.packet_id, DEPLOYR_BUNDLE_ARCHIVE=str(tmp_path / "archive"))
    assert code == 0


def test_a_bundle_that_no_longer_holds_what_it_promised_is_named(answered, replayed, bundles_folder):
    [packet] = answered()
    (bundles_folder / "hematocrit" / "model.treelite").unlink()
    code, said, _ = replayed(packet.packet_id)
    assert code == 2
    assert "cannot be used here: model.treelite: expected in the bundle" in said


def test_what_was_not_scored_is_said_and_gives_2(answered, replayed, tmp_path):
    [packet] = answered()
    change(tmp_path, msgspec.structs.replace(packet, outcome=Abstained(reason="sparse")))
    code, said, _ = replayed(packet.packet_id)
    assert code == 2
    assert "the packet is not scored: it is abstained, sparse" in said


def test_facts_that_are_gone_or_were_never_kept_cannot_tell(answered, replayed, tmp_path):
    [packet] = answered()
    with closing(sqlite3.connect(tmp_path / "facts.sqlite", isolation_level=None)) as db:
        db.execute("DELETE FROM facts")
    code, said, _ = replayed(packet.packet_id, from_facts=True)
    assert (code, "have expired, or were erased" in said) == (2, True)
    change(tmp_path, msgspec.structs.replace(packet, facts_sha256=None))
    code, said, _ = replayed(packet.packet_id, from_facts=True)
    assert (code, "no facts were kept" in said) == (2, True)


def test_facts_without_their_key_cannot_tell(answered, replayed):
    [packet] = answered()
    code, said, _ = replayed(packet.packet_id, from_facts=True, DEPLOYR_FACTS_KEYS="2027:" + "B" * 43 + "=")
    assert (code, "expected the key '2026'" in said) == (2, True)


def test_a_period_is_counted_by_model_and_what_differs_is_listed(answered, replayed, request_of, tmp_path, now):
    requests = [
        request_of(model_id=model, order_id=f"o{number}") for model in ("hematocrit", "anemia") for number in range(3)
    ]
    packets = answered(*requests)
    first = packets[0]
    outcome = msgspec.structs.replace(first.outcome, score=0.1)
    change(tmp_path, msgspec.structs.replace(first, outcome=outcome))
    change(tmp_path, msgspec.structs.replace(packets[1], outcome=Abstained(reason="sparse")))
    code, said, content = replayed(period=Period(since=now))
    assert code == 1
    assert content["models"] == {
        "anemia": {"same": 3},
        "hematocrit": {"differs": 1, "not-scored": 1, "same": 1},
    }
    assert [one["packet_id"] for one in content["odd"]] == [first.packet_id]
    assert "decision: another side of the threshold" in content["found"]
    assert "6 packets" in said
    code, _, content = replayed(period=Period(since=now, model="anemia"))
    assert (code, content["packets"]) == (0, 3)
    code, _, content = replayed(period=Period(since=now + timedelta(microseconds=1)))
    assert (code, content["packets"]) == (0, 0)
    code, _, content = replayed(period=Period(since=now - timedelta(days=1), until=now))
    assert (code, content["packets"]) == (0, 0)


def test_what_is_printed_and_written_names_nobody(answered, replayed):
    [packet] = answered()
    _, said, content = replayed(packet.packet_id, from_facts=True)
    subject = packet.subject
    for name in (subject.patient_id, subject.encounter_id, subject.order_id):
        assert f'"{name}"' not in json.dumps(content)
        assert f" {name} " not in said


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "expected a packet's id, or --since"),
        ({"packet_id": "p0"}, "expected the id of a packet in DEPLOYR_STORE"),
    ],
)
def test_what_cannot_be_replayed_is_refused(answered, replayed, asked, said):
    answered()
    with pytest.raises(CommandFailed, match=said):
        replayed(**asked)


def test_from_facts_without_a_vault_says_which_setting_is_missing(answered, replayed):
    [packet] = answered()
    with pytest.raises(CommandFailed, match="DEPLOYR_FACTS_VAULT"):
        replayed(packet.packet_id, from_facts=True, DEPLOYR_FACTS_VAULT="")


def test_the_command_gives_its_exit_code(answered, replayed, tmp_path, bundles_folder):
    [packet] = answered()
    settings = tmp_path / "local.settings.json"
    values = {
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/api/FHIR/R4",
    }
    settings.write_text(json.dumps({"IsEncrypted": False, "Values": values}))
    given = ["--settings", str(settings)]
    assert CliRunner().invoke(app, ["replay", packet.packet_id, *given]).exit_code == 0
    assert CliRunner().invoke(app, ["replay", "--since", "2015-01-01T00:00:00Z", *given]).exit_code == 0
    asked = CliRunner().invoke(app, ["replay", "--until", "2015-01-01T00:00:00Z", *given])
    assert (asked.exit_code, "expected --since" in asked.output) == (2, True)
