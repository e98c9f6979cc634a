"""Labels read over FHIR from the mock EMR, against labels computed with plain SQL from the OMOP tables.

Real patients, the same in both. The SQL is a second definition of each rule, written from its description and sharing
no code with it; the two must agree on every order and every visit that the data hold.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import msgspec
import pytest

from deployr_core.label_rules import outputs_of
from deployr_core.packet import Subject
from deployr_dev.cohorts.tasks import TASK_GROUPS, shipped_task
from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.fhir_outcomes import FhirOutcomes
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.http import AiohttpTransport
from deployr_serve.adapters.resilience import ResilientTransport
from deployr_serve.adapters.sqlite_patients import packet_columns
from deployr_serve.adapters.sqlite_store import SqliteStore
from label_extractors.collect import collect_labels
from mock_emr.clock import EmrClock
from mock_emr.hosting import listening
from mock_emr.serve import create_app, real_now

pytestmark = pytest.mark.slow

SITE = timezone(timedelta(hours=-5))
AFTERWARDS = datetime(2017, 6, 1, tzinfo=UTC)
"""All windows have passed; by today the EMR knows everything."""


@pytest.fixture(scope="session")
def eicu() -> Path:
    folder = Path(__file__).parents[4] / "shared" / "data" / "eicu-demo-paired"
    if not (folder / "omop").is_dir():
        pytest.skip("needs ../shared/data/eicu-demo-paired, which is not shipped (ODbL)")
    return folder


@pytest.fixture(scope="session")
def omop(eicu):
    with duckdb.connect() as db:
        for file in sorted((eicu / "omop").glob("*.csv.gz")):
            name = file.name.partition(".")[0]
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM read_csv('{file}', all_varchar = false)")  # noqa: S608
        yield db


class Emr:
    """The mock EMR with all charts, and how often it was called."""

    def __init__(self, outcomes, transport):
        self.outcomes = outcomes
        self.transport = transport


class Counting:
    def __init__(self, transport):
        self._transport = transport
        self.calls = 0

    async def send(self, request):
        self.calls += 1
        return await self._transport.send(request)


@pytest.fixture
async def emr(eicu, clock):
    def make(url):
        now = EmrClock(real_now=real_now, now=AFTERWARDS)
        return create_app(eicu / "fhir", clock=now, open_access=True, base_url=url)

    async with listening(make) as url:
        network = AiohttpTransport(timeout_s=60, clock=SystemClock())
        resilient = ResilientTransport(network, clock=SystemClock(), timeout_s=60, connections=32, batch_connections=16)
        transport = Counting(resilient)
        client = FhirClient(base=f"{url}/api/FHIR/R4", transport=transport, credentials=NoCredentials(), clock=clock)
        try:
            yield Emr(FhirOutcomes(client, clock=clock, zone=SITE), transport)
        finally:
            await network.aclose()


@pytest.fixture
def run(services_of, models_of, bundle, packet_of, clock, now, emr, tmp_path):
    """Give a function that stores packets of models, extracts their labels twice, and gives the labels by packet."""

    async def work(tasks, asked):
        clock.pass_time((AFTERWARDS - now).total_seconds())
        models = {}
        for task in tasks:
            of_task = msgspec.structs.replace(task.for_manifest(), outputs=outputs_of(task.label))
            manifest = msgspec.structs.replace(
                bundle.manifest,
                model_id=task.model_id,
                task=of_task,
                requires=task.requirements,
                training=means(bundle.manifest.training, of_task),
                evaluation=means(bundle.manifest.evaluation, of_task),
            )
            models[task.name] = msgspec.structs.replace(bundle, manifest=manifest)
        file = tmp_path / "store.sqlite"
        store = SqliteStore(file)
        services = services_of(store=store, models=models_of(**models))
        await store.check()
        _insert(file, [packet_of(packet_id, model_id=model_id, **what) for packet_id, model_id, what in asked])
        counts = await collect_labels(services, emr.outcomes)
        assert set(counts) <= {"observed", "censored"}
        calls = emr.transport.calls
        before = _everything(file)
        assert await collect_labels(services, emr.outcomes) == {}
        assert emr.transport.calls == calls
        clock.pass_time(1)
        again = await collect_labels(services, emr.outcomes, again=True)
        assert again == {"unchanged": len(asked)}
        assert _everything(file) == before
        await store.aclose()
        with sqlite3.connect(file) as db:
            bodies = db.execute("SELECT packet_id, body FROM labels")
            labels = {packet_id: msgspec.json.decode(body)["outcome"] for packet_id, body in bodies}
        return labels, counts, calls

    return work


def means(of, task):
    return msgspec.structs.replace(of, label_means=dict.fromkeys(task.outputs.names, 0.5))


def _insert(file, packets):
    """Store packets as `SqliteStore.create` does, all in one transaction."""
    with sqlite3.connect(file) as db:
        db.executemany(
            "INSERT INTO packets (packet_id, etag, model_id, kind, body, started_at, patient_hash)"
            " VALUES (?, 1, ?, ?, ?, ?, ?)",
            [(p.packet_id, p.model.model_id, *packet_columns(p)) for p in packets],
        )


def _everything(file):
    with sqlite3.connect(file) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(db.execute(f"SELECT * FROM {name}"), key=repr) for name in tables}  # noqa: S608


def utc(local):
    return local.replace(tzinfo=SITE).astimezone(UTC)


# -- every order of the twelve components

LABELS = ("abnormal", "normal", "no-result")
COUNTED = {
    "hematocrit": (757, 179, 64),
    "hemoglobin": (824, 163, 13),
    "wbc": (359, 500, 141),
    "platelets": (275, 585, 140),
    "albumin": (313, 94, 783),
    "bun": (369, 608, 213),
    "calcium": (479, 476, 235),
    "co2": (225, 713, 252),
    "creatinine": (579, 408, 203),
    "potassium": (198, 957, 35),
    "sodium": (339, 745, 106),
    "magnesium": (111, 335, 0),
}
"""How many orders of each component came out as what, by the SQL below: 1,000, 1,190 or 446 in all."""

OF_COMPONENT = """
WITH asked AS (
    SELECT order_id, person_id, order_datetime, order_datetime + to_hours($hours) AS ends
    FROM ext_lab_order WHERE list_contains($panels, panel_loinc)
), candidates AS (
    SELECT
        asked.order_id,
        m.value_as_number AS value, m.range_low AS low, m.range_high AS high,
        m.value_as_number IS NULL OR (m.range_low IS NULL AND m.range_high IS NULL) AS says_nothing,
        list_position($codes, m.measurement_source_value) AS preference,
        m.measurement_datetime AS drawn,
        released.result_datetime AS released,
        m.measurement_id AS id,
        m.measurement_event_id = asked.order_id AS is_of_this_order
    FROM asked
    JOIN measurement AS m USING (person_id)
    JOIN ext_lab_order AS released ON released.order_id = m.measurement_event_id
    WHERE list_contains($codes, m.measurement_source_value)
        AND released.result_datetime < asked.ends
        AND m.measurement_event_id = asked.order_id
), newest AS (
    SELECT * FROM candidates
    QUALIFY row_number() OVER (
        PARTITION BY order_id, preference, drawn ORDER BY released DESC, CAST(id AS VARCHAR) DESC
    ) = 1
), chosen AS (
    SELECT * FROM newest
    QUALIFY row_number() OVER (PARTITION BY order_id ORDER BY says_nothing, preference, drawn) = 1
)
SELECT
    asked.order_id, asked.order_datetime, person.person_source_value,
    CASE
        WHEN chosen.order_id IS NULL THEN 'no-result'
        WHEN chosen.says_nothing THEN 'no-reference-range'
        WHEN coalesce(value < low, false) OR coalesce(value > high, false) THEN 'abnormal'
        ELSE 'normal'
    END AS label
FROM asked JOIN person USING (person_id) LEFT JOIN chosen USING (order_id)
ORDER BY asked.order_id
"""


def said(outcome):
    if outcome["kind"] == "censored":
        return outcome["reason"]
    return {1.0: "abnormal", 0.0: "normal"}[outcome["value"]]


@pytest.mark.proof
async def test_every_order_of_the_twelve_components_is_labelled_as_the_tables_say(omop, run):
    assert omop.execute("SELECT count(*) FROM measurement WHERE measurement_event_id IS NULL").fetchone() == (0,)
    tasks = [shipped_task(name) for name in TASK_GROUPS["paper12"]]
    expected, asked = {}, []
    for task in tasks:
        rows = omop.execute(
            OF_COMPONENT,
            {"hours": task.label.window_hours, "panels": list(task.panels), "codes": list(task.components)},
        ).fetchall()
        for order_id, ordered_at, person, label in rows:
            packet_id = f"p{task.model_id}-{order_id}"
            expected[packet_id] = (task.name, label)
            what = {
                "patient_id": f"eicu-p-{person}",
                "order_id": f"eicu-o-{order_id}",
                "as_of": utc(ordered_at),
            }
            asked.append((packet_id, task.model_id, what))
    labels, counts, calls = await run(tasks, asked)

    assert len(expected) == 12_776
    assert {packet_id: said(outcome) for packet_id, outcome in labels.items()} == {
        packet_id: label for packet_id, (_, label) in expected.items()
    }
    found = Counter(expected.values())
    assert {task.name: tuple(found[task.name, label] for label in LABELS) for task in tasks} == COUNTED
    assert counts["observed"] + counts["censored"] == len(expected)
    # 100 patients: who each is, the results of all twelve, and the orders a hundred at a time; not 12,776 reads.
    assert calls <= 100 * 2 + sum(-(-n // 100) for n in orders_per_person(omop))


def orders_per_person(omop):
    panels = sorted({panel for name in TASK_GROUPS["paper12"] for panel in shipped_task(name).panels})
    rows = omop.execute(
        "SELECT count(*) FROM ext_lab_order WHERE list_contains($panels, panel_loinc) GROUP BY person_id",
        {"panels": panels},
    ).fetchall()
    return [count for (count,) in rows]


# -- visits, deaths and diagnoses

VISITS = """
WITH v AS (
    SELECT visit_occurrence_id AS id, person_id, person_source_value AS person,
        visit_start_datetime AS began, visit_end_datetime AS ended
    FROM visit_occurrence JOIN person USING (person_id)
), a_day_in AS (
    SELECT *, began + INTERVAL 24 HOURS AS index_time FROM v WHERE ended > began + INTERVAL 24 HOURS
)
SELECT 'long_stay' AS task, id, person, index_time, CAST(ended >= began + INTERVAL 168 HOURS AS DOUBLE) FROM a_day_in
UNION ALL
SELECT 'length_of_stay', id, person, index_time, epoch_us(ended - began) / 86400e6 FROM a_day_in
UNION ALL
SELECT 'in_hospital_mortality', id, person, index_time, 0.0 FROM a_day_in
UNION ALL
SELECT 'mortality_30d', id, person, index_time, 0.0 FROM a_day_in
UNION ALL
SELECT 'readmission_30d', id, person, ended, CAST(EXISTS (
    SELECT 1 FROM v AS other WHERE other.person_id = v.person_id
        AND other.began > v.ended AND other.began < v.ended + INTERVAL 720 HOURS
) AS DOUBLE) FROM v
UNION ALL
SELECT 'acute_kidney_injury_7d', id, person, index_time, CAST(EXISTS (
    SELECT 1 FROM condition_occurrence AS c WHERE c.person_id = a_day_in.person_id
        AND (c.condition_source_value = '584' OR starts_with(c.condition_source_value, '584.'))
        AND c.condition_start_datetime >= index_time AND c.condition_start_datetime < index_time + INTERVAL 168 HOURS
) AS DOUBLE) FROM a_day_in
"""
"""The data hold no death, so that nobody dies; intensive care is no visit of its own in them."""


async def test_every_visit_is_labelled_as_the_tables_say(omop, run):
    assert "death" not in {name for (name,) in omop.execute("SHOW TABLES").fetchall()}
    rows = omop.execute(VISITS).fetchall()
    tasks = [shipped_task(name) for name in dict.fromkeys(row[0] for row in rows)]
    by_name = {task.name: task for task in tasks}
    expected, asked = {}, []
    for name, visit_id, person, at, value in rows:
        packet_id = f"p{by_name[name].model_id}-{visit_id}"
        expected[packet_id] = (name, value)
        what = {
            "subject": Subject(patient_id=f"eicu-p-{person}", encounter_id=f"eicu-e-{visit_id}"),
            "as_of": utc(at),
        }
        asked.append((packet_id, by_name[name].model_id, what))
    labels, _, calls = await run(tasks, asked)

    assert {packet_id: outcome.get("value") for packet_id, outcome in labels.items()} == {
        packet_id: value for packet_id, (_, value) in expected.items()
    }
    totals = Counter(name for name, _ in expected.values())
    positive = Counter(name for name, value in expected.values() if value == 1.0)
    assert totals == {**dict.fromkeys(by_name, 135), "readmission_30d": 144}
    assert positive == {"long_stay": 44, "acute_kidney_injury_7d": 4}
    # Who each of the 100 is, the visits, and the diagnoses of those who are asked about them.
    assert calls <= 3 * 100
