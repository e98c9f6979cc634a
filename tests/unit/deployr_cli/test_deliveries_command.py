"""`deployr deliveries`: what is on its way, what is dead, and sending that again."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import msgspec
import pytest
from typer.testing import CliRunner

from deployr_cli.main import app
from deployr_core.packet import DeliveryState
from deployr_serve.adapters.sqlite_store import SqliteStore


@pytest.fixture
def deliveries_in(tmp_path, packet_of):
    """Give a function that does something with the site's store."""

    def run(work):
        async def opened():
            store = SqliteStore(tmp_path / "store.sqlite")
            try:
                return await work(store)
            finally:
                await store.aclose()

        return asyncio.run(opened())

    return run


@pytest.fixture
def command(tmp_path, bundles_folder, monkeypatch, packet_of, delivery_of, deliveries_in, now):
    """Give a function that runs `deployr deliveries` at a site with two dead deliveries and one that waits."""
    clock = tmp_path / "clock"
    clock.write_text((now + timedelta(minutes=90)).isoformat())
    values = {
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:9/fhir",
        "DEPLOYR_CLOCK_FILE": str(clock),
    }
    settings = tmp_path / "local.settings.json"
    settings.write_bytes(msgspec.json.encode({"Values": values}))

    async def store_deliveries(store):
        for delivery in (
            delivery_of("p01", state=DeliveryState.DEAD, attempts=1, last_error="emr-refused"),
            delivery_of("p02", state=DeliveryState.DEAD, attempts=1, last_error="switched-off", output="flowsheet"),
            delivery_of("p03", attempts=4, last_error="emr-unreachable", due_at=now + timedelta(minutes=95)),
        ):
            packet = packet_of(delivery.packet_id, patient_id="CanaryPatient7")
            created = await store.create(packet)
            await store.replace(packet, etag=created.etag, deliveries=(delivery,))

    deliveries_in(store_deliveries)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, ["deliveries", *arguments, "--settings", str(settings)])


def test_the_dead_ones_are_listed_with_their_reasons_and_counted(command):
    shown = command("list")
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["p01.score-column", "hematocrit", "2015-01-06T20:55:00Z", "1", "h", "1", "emr-refused", "-"] in lines
    assert ["1", "flowsheet", "switched-off"] in lines
    assert "p03" not in shown.output
    assert "CanaryPatient7" not in shown.output


def test_another_state_or_one_output_can_be_asked_for(command):
    pending = command("list", "--state", "pending").output
    assert "2015-01-06T22:30:00Z" in pending
    assert "p01" not in pending
    assert "p01" not in command("list", "--output", "flowsheet").output
    assert command("list", "--state", "expired").output == "no delivery is expired\n"


def test_what_is_not_shown_is_counted(command):
    assert "1 of 2 shown" in command("list", "--limit", "1").output


def test_one_delivery_is_shown_with_its_packet_and_without_its_patient(command):
    shown = command("show", "p01.score-column")
    assert shown.exit_code == 0, shown.output
    lines = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in shown.output.splitlines())
    assert (lines["state"], lines["last error"], lines["model"]) == ("dead", "emr-refused", "hematocrit 1.0.0")
    assert "CanaryPatient7" not in shown.output


def test_one_that_is_sent_again_is_pending_with_its_past(command, deliveries_in):
    done = command("retry", "p01.score-column")
    assert (done.exit_code, done.output) == (0, "1 to be sent again by the relay\n")
    delivery = deliveries_in(lambda store: store.read_delivery("p01.score-column"))
    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 0)
    assert "dead at 2015-01-06T20:55:00Z after 1 tries: emr-refused" in command("show", "p01.score-column").output


def test_all_that_are_dead_for_one_reason_are_sent_again_together(command, deliveries_in):
    assert command("retry", "--all", "--reason", "switched-off").output == "1 to be sent again by the relay\n"
    [left] = deliveries_in(lambda store: store.deliveries(state=DeliveryState.DEAD, after=None, limit=10))
    assert left.delivery_id == "p01.score-column"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["retry"], "expected the ids of dead deliveries, or --all"),
        (["retry", "--all", "p01.score-column"], "expected the ids of dead deliveries, or --all"),
        (["retry", "p01.score-column", "--reason", "x"], "with --all"),
        (["retry", "p03.score-column"], "expected a dead delivery, it is pending"),
        (["show", "p09.score-column"], "expected the id of a delivery"),
    ],
)
def test_what_cannot_be_done_is_said(command, arguments, said):
    refused = command(*arguments)
    assert refused.exit_code != 0
    assert said in str(refused.exception)
