"""Worklists: whole or not at all, and whoever is meant, exactly one of them."""

from __future__ import annotations

import os
import sqlite3
from datetime import timedelta

import pytest

from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.epic_census import EpicCensus
from deployr_serve.adapters.epic_client import VendorClient
from deployr_serve.adapters.worklist_reports import CsvWorklist, SqlWorklist, connect_by
from deployr_serve.adapters.worklists import CensusWorklist
from deployr_serve.core.batch import CsvDrop, Listed, SqlReport, UnitCensus, WorklistUnusable
from deployr_serve.core.ports import Budget

TWO = b"patientId,encounterId\np1,e1\np2,\n"


@pytest.fixture
def budget(clock):
    return Budget(deadline=clock.monotonic() + 100, correlation_id="icu")


@pytest.fixture
def drop_of(tmp_path, clock, now):
    """Give a function that makes the worklist of a file with this content, dropped so many hours ago."""

    def make(content, *, hours_ago=1.0, **declared):
        file = tmp_path / "icu.csv"
        if content is not None:
            file.write_bytes(content)
            dropped = (now - timedelta(hours=hours_ago)).timestamp()
            os.utime(file, (dropped, dropped))
        return CsvWorklist(CsvDrop(file=str(file), **declared), clock=clock)

    return make


async def test_a_file_gives_its_rows_in_order(drop_of, budget):
    roster = await drop_of(TWO).read(budget=budget)
    assert roster.rows == (
        Listed(patient=("FHIR", "p1"), encounter=("FHIR", "e1")),
        Listed(patient=("FHIR", "p2"), encounter=None),
    )


async def test_ids_get_the_types_that_the_batch_names(drop_of, budget):
    content = b'\xef\xbb\xbfENCOUNTERID, patientId ,unit\r\n 42 ,"007",7\r\n'
    roster = await drop_of(content, patient_id_type="MRN", encounter_id_type="CSN").read(budget=budget)
    assert roster.rows == (Listed(patient=("MRN", "007"), encounter=("CSN", "42")),)


async def test_a_row_without_a_patient_is_counted(drop_of, budget):
    roster = await drop_of(TWO + b",e3\n").read(budget=budget)
    assert (len(roster.rows), roster.dropped) == (2, {"no-usable-ids": 1})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "worklist-missing"),
        (b"", "worklist-damaged"),
        (TWO[:-3], "worklist-damaged"),  # half a line
        (TWO + b"p3\n", "worklist-damaged"),  # half a row, ended
        (TWO + b"p3,e3,x\n", "worklist-damaged"),
        (b"patientId;encounterId\np1;e1\n", "worklist-damaged"),
        (b"patientId,patientId,encounterId\np1,p2,e1\n", "worklist-damaged"),
        (b'patientId,encounterId\n"p1,e1\n', "worklist-damaged"),
        (b"patientId,encounterId\n\xff,e1\n", "worklist-damaged"),
    ],
)
async def test_a_file_that_is_not_whole_is_no_worklist(drop_of, budget, content, reason):
    with pytest.raises(WorklistUnusable) as refused:
        await drop_of(content).read(budget=budget)
    assert refused.value.reason == reason
    assert "p1" not in str(refused.value)


async def test_a_file_of_its_last_hour_is_fresh_and_a_second_older_is_not(drop_of, budget):
    assert len((await drop_of(TWO, hours_ago=24.0).read(budget=budget)).rows) == 2
    with pytest.raises(WorklistUnusable) as refused:
        await drop_of(TWO, hours_ago=24 + 1 / 3600).read(budget=budget)
    assert refused.value.reason == "worklist-stale"


@pytest.fixture
def report_of(tmp_path, clock):
    """Give a function that makes the worklist of a query of a database with two patients."""
    file = tmp_path / "report.db"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE census (mrn INTEGER, csn INTEGER, unit TEXT)")
        db.executemany("INSERT INTO census VALUES (?, ?, ?)", [(7, 42, "icu"), (8, None, "icu"), (None, 44, "icu")])
    db.close()

    def make(query):
        declared = SqlReport(query=query, patient_id_type="MRN", encounter_id_type="CSN")
        return SqlWorklist(declared, clock=clock, connect=connect_by(f"sqlite3:{file}"))

    return make


async def test_a_query_gives_its_rows(report_of, budget):
    roster = await report_of("SELECT mrn AS patientId, csn AS encounterId FROM census WHERE unit = 'icu'").read(
        budget=budget
    )
    assert roster.rows == (
        Listed(patient=("MRN", "7"), encounter=("CSN", "42")),
        Listed(patient=("MRN", "8"), encounter=None),
    )
    assert roster.dropped == {"no-usable-ids": 1}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT canary FROM nowhere", "worklist-unavailable"),
        ("SELECT mrn, csn FROM census", "worklist-damaged"),
        ("DELETE FROM census WHERE mrn = 0", "worklist-unavailable"),
    ],
)
async def test_a_query_that_gives_no_such_rows_is_no_worklist(report_of, budget, query, reason):
    with pytest.raises(WorklistUnusable) as refused:
        await report_of(query).read(budget=budget)
    assert refused.value.reason == reason
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("text", ["sqlite3", "sqlite3:", "no_such_driver:x", "json:x", ":x", ".x:y"])
def test_what_names_no_driver_is_refused(text):
    with pytest.raises(ValueError, match="expected MODULE:DSN"):
        connect_by(text)


async def test_a_census_gives_each_units_patients_by_the_type_that_is_named(clock, transport_of, budget):
    def bedded(csn, **ids):
        return {
            "PatientIDs": [{"ID": value, "Type": id_type} for id_type, value in ids.items()],
            "ContactIDs": [{"ID": csn, "Type": "CSN"}],
        }

    transport = transport_of(
        {"BeddedPatients": [bedded("42", MRN="7", FHIR="p1"), bedded("43", FHIR="p2")]},
        {"BeddedPatients": [bedded("44", MRN="9")]},
    )
    client = VendorClient(base="https://emr.example", transport=transport, credentials=NoCredentials(), clock=clock)
    worklist = CensusWorklist(EpicCensus(client, user={}), UnitCensus(units=("1", "2"), patient_id_type="MRN"))
    roster = await worklist.read(budget=budget)
    assert roster.rows == (
        Listed(patient=("MRN", "7"), encounter=("CSN", "42")),
        Listed(patient=("MRN", "9"), encounter=("CSN", "44")),
    )
    assert roster.dropped == {"no-usable-ids": 1}
