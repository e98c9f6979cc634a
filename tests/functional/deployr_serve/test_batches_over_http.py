"""Batches as a host runs them: ticks and queue messages to scores in an EMR on loopback, over one SQLite file."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta

import azure.functions as func
import pytest

from deployr_core.packet import Scored
from deployr_serve.core.batch_runs import RunState, all_runs
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.local_host.queue_file import QueueFile

SLOT = datetime(2015, 1, 6, 20, tzinfo=UTC)
HEAD = "schema_version: 1\nname: icu\nmodels: [hematocrit]\nschedule: '0 0 * * * *'\n"
FHIR = HEAD + "worklist: {from: fhir, locations: [icu]}\n"
CENSUS = HEAD + "worklist: {from: census, units: [icu]}\n"


@pytest.fixture
def ward_of(now):
    """Give a function that makes patients, each in an encounter at a location since two hours ago, with one result."""

    def make(count, *, location="icu", first=0, **patient):
        for n in range(first, first + count):
            since = (now - timedelta(hours=2)).isoformat()
            yield {"resourceType": "Patient", "id": f"pat{n}", "gender": "female", "birthDate": "1950-03-04", **patient}
            yield {
                "resourceType": "Encounter",
                "id": f"enc{n}",
                "status": "in-progress",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                "subject": {"reference": f"Patient/pat{n}"},
                "period": {"start": since},
                "location": [{"location": {"reference": f"Location/{location}"}}],
            }

    return make


@pytest.fixture
def site_of(app_of, tmp_path):
    """Give a function that builds an app with one batch, with ``work`` to score what is queued, as a host does."""

    def make(url, batch=FHIR, **settings):
        folder = tmp_path / "batches"
        folder.mkdir(exist_ok=True)
        (folder / "icu.yaml").write_text(batch)
        file = tmp_path / "queue.sqlite"
        settings = {"DEPLOYR_BATCHES": str(folder), "AzureWebJobsStorage": f"sqlite:{file}"} | settings
        app = app_of(url, **settings)
        queues = QueueFile(file, clock=lambda: datetime.now(UTC))

        async def work():
            while (taken := queues.take("deployr-chunks", hidden=timedelta(minutes=5))) is not None:
                message = func.QueueMessage(id=taken.message_id, body=taken.body)
                await app.functions["score_chunk"](message)
                queues.delete(taken)

        async def runs():
            return await all_runs(app.store, now=SLOT)

        app.work, app.runs = work, runs
        return app

    return make


async def scored(app):
    found = await app.store.packets(model_id="hematocrit", after=None, limit=5000)
    return sorted(packet.subject.patient_id for packet in found if isinstance(packet.outcome, Scored))


@pytest.mark.parametrize("batch", [FHIR, CENSUS], ids=["fhir", "census"])
async def test_who_lies_there_is_scored_once_and_written_to_the_emr(emr_of, ward_of, site_of, batch):
    emr = await emr_of(*ward_of(3), *ward_of(2, location="ward", first=3))
    app = site_of(emr.url, batch)
    await app.fire("batch_icu")
    await app.work()
    [run] = await app.runs()
    assert (run.state, run.slot, run.listed, run.totals) == (RunState.COMPLETE, SLOT, 3, {"scored": 3})
    assert await scored(app) == ["pat0", "pat1", "pat2"]
    assert len(emr.parts.scores.cells()) == 3
    await app.fire("batch_icu")
    await app.work()
    assert len(await app.runs()) == 1


async def test_who_died_was_merged_or_was_written_down_twice_is_skipped_with_the_reason(
    emr_of, ward_of, site_of, tmp_path, now
):
    merged = {"active": False, "link": [{"type": "replaced-by", "other": {"reference": "Patient/pat0"}}]}
    died = {"deceasedDateTime": (now - timedelta(hours=1)).isoformat()}
    left = {"period": {"start": (now - timedelta(days=3)).isoformat(), "end": (now - timedelta(days=1)).isoformat()}}
    discharged = [
        {**resource, **left, "status": "finished"} if resource["resourceType"] == "Encounter" else resource
        for resource in ward_of(1, first=3)
    ]
    emr = await emr_of(*ward_of(1), *ward_of(1, first=1, **merged), *ward_of(1, first=2, **died), *discharged)
    rows = [
        "pat0,enc0",
        "pat0,enc0",
        "pat1,enc1",
        "pat2,enc2",
        "pat3,enc3",
        "pat0,enc1",
        "pat9,",
        ",enc0",
        '"a,b",enc0',
    ]
    drop = tmp_path / "drop.csv"
    drop.write_text("patientId,encounterId\n" + "".join(f"{row}\n" for row in rows))
    modified = (now - timedelta(hours=1)).timestamp()
    os.utime(drop, (modified, modified))
    app = site_of(emr.url, HEAD + f"worklist: {{from: csv, file: {drop}}}\n")
    await app.fire("batch_icu")
    await app.work()
    [run] = await app.runs()
    assert run.skipped == {
        "repeated": 1,
        "merged": 1,
        "deceased": 1,
        "discharged": 1,
        "wrong-patient": 1,
        "unknown-patient": 1,
        "no-usable-ids": 2,
    }
    assert (run.state, run.patients) == (RunState.COMPLETE, 1)
    assert await scored(app) == ["pat0"]


async def test_two_workers_on_one_file_that_tick_at_once_score_each_patient_once(emr_of, ward_of, site_of):
    emr = await emr_of(*ward_of(40))
    first, second = (site_of(emr.url, FHIR + "chunk_size: 5\n") for _ in range(2))
    await asyncio.gather(*(app.fire("batch_icu") for app in (first, second, first, second)))
    await asyncio.gather(first.work(), second.work())
    [run] = await first.runs()
    assert (run.state, run.totals) == (RunState.COMPLETE, {"scored": 40})
    assert len(await scored(first)) == 40
    assert {len(cell.rows) for cell in emr.parts.scores.cells()} == {1}
    assert len(emr.parts.scores.cells()) == 40


@pytest.mark.slow
async def test_a_thousand_patients_are_scored_in_one_run(emr_of, ward_of, site_of):
    emr = await emr_of(*ward_of(1000))
    # A busy machine may let one call to the store wait for seconds; what is shown here is the count.
    app = site_of(emr.url, DEPLOYR_DEADLINE_S="30")
    await app.fire("batch_icu")
    await app.work()
    [run] = await app.runs()
    assert (run.state, run.chunks, run.totals) == (RunState.COMPLETE, 20, {"scored": 1000})
    assert len(await scored(app)) == 1000


async def test_no_address_names_anybody_and_no_log_does(emr_of, ward_of, site_of, caplog):
    caplog.set_level("DEBUG")
    emr = await emr_of(*ward_of(2))
    app = site_of(emr.url)
    await app.fire("batch_icu")
    await app.work()
    assert not [address for address in emr.addresses if "pat0" in address or "enc0" in address]
    assert "state=complete" in caplog.text
    assert "pat0" not in caplog.text
    assert "enc0" not in caplog.text


async def test_nobody_there_is_told_as_an_alert(emr_of, ward_of, site_of, caplog):
    emr = await emr_of(*ward_of(1, location="ward"))
    app = site_of(emr.url)
    await app.fire("batch_icu")
    assert "alert=worklist-too-small batch=icu" in caplog.text


async def test_batches_need_a_queue(emr_of, ward_of, site_of):
    emr = await emr_of(*ward_of(1))
    with pytest.raises(SettingsInvalid, match="AzureWebJobsStorage: expected sqlite: and a file"):
        site_of(emr.url, AzureWebJobsStorage="")


async def test_a_query_needs_a_database(emr_of, ward_of, site_of):
    emr = await emr_of(*ward_of(1))
    with pytest.raises(SettingsInvalid, match="icu: a query is asked of DEPLOYR_BATCH_DATABASE"):
        site_of(emr.url, HEAD + "worklist: {from: sql, query: SELECT 1}\n")
