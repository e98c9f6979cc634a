"""The whole inference with labs and demographics by the vendor's services, beside the same inference by FHIR.

What cannot be equal: a result is dated by when it was released, not by when it was drawn; to the minute, and known
only when that minute is over; and it names no order. Everything else about the vector must be.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from deployr_core.codes import LOINC
from deployr_core.declared import Analyte, EdgeBins, Statistic
from deployr_core.features import FeatureSpec, LabGroup, VitalGroup
from deployr_core.packet import Failed, Rejected, Scored, Subject
from deployr_core.vectorize import vectorize
from deployr_serve.bootstrap import build
from deployr_serve.settings import read_settings
from mock_emr.clock import EmrClock
from mock_emr.faults import Rule
from mock_emr.hosting import listening
from mock_emr.loading import load_folder
from mock_emr.serve import create_app, real_now
from mock_emr.vendor_site import VendorSite

BY_EPIC = {
    "DEPLOYR_EMR_READS": "labs=epic,patient=epic-2019",
    "DEPLOYR_EMR_USER_ID": "bridge",
    "DEPLOYR_STORE": "memory",
}
SITES = [
    VendorSite(),
    VendorSite(names_components=False),
    VendorSite(zone=ZoneInfo("America/New_York")),
    VendorSite(zone=ZoneInfo("Asia/Kathmandu"), shows_instants=True),
]


async def packet_of(app):
    [packet] = await app.store.packets(model_id="hematocrit", after=None, limit=100)
    return packet


def zone_of(site):
    return {"DEPLOYR_TIME_ZONE": str(site.zone)}


@pytest.mark.parametrize("site", SITES, ids=["utc", "nameless", "new-york", "instants"])
async def test_the_vector_and_the_score_are_those_of_fhir(emr_of, app_of, chart_of, site):
    emr = await emr_of(
        *chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"),
        *chart_of("p2", "e2", "o2", "422", "lab2", value=41.0, birth="1960"),
        vendor_site=site,
    )
    by_fhir, by_epic = app_of(emr.url, **zone_of(site)), app_of(emr.url, **BY_EPIC, **zone_of(site))
    answers = [json.loads((await app.infer()).get_body()) for app in (by_fhir, by_epic)]
    assert [answer["score"] for answer in answers] == [0.75, 0.75]
    first, second = [(await packet_of(app)).outcome for app in (by_fhir, by_epic)]
    assert isinstance(first, Scored)
    assert first.vector == second.vector
    assert second.coverage["labs.results"] == 1


async def test_the_packet_says_which_facts_came_by_the_vendors_services(emr_of, app_of, chart_of):
    emr = await emr_of(*chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"))
    app = app_of(emr.url, **BY_EPIC)
    await app.infer()
    records = {record.name: record for record in (await packet_of(app)).fetches if record.via == "epic"}
    assert {name: (record.resource, record.requests) for name, record in records.items()} == {
        "identity": ("Identifiers", 1),
        "labs": ("ResultComponents", 1),
        "patient": ("Demographics", 1),
    }
    assert not [address for address in emr.addresses if "Observation" in address]


async def test_a_result_released_in_the_window_counts_though_it_was_drawn_before_it(emr_of, app_of, chart_of):
    chart = chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04")
    for resource in chart:
        if resource["id"] == "lab1-before":
            # The window of 30 days begins on 7 December at 20:55.
            resource |= {"effectiveDateTime": "2014-12-07T20:00:00Z", "issued": "2014-12-07T22:00:00Z"}
    emr = await emr_of(*chart)
    scores = [
        json.loads((await app.infer()).get_body())["score"] for app in (app_of(emr.url), app_of(emr.url, **BY_EPIC))
    ]
    assert scores == [0.25, 0.75]


def _vital(vital_id, taken, **elements):
    return {
        "resourceType": "Observation",
        "id": vital_id,
        "status": "final",
        "category": [{"coding": [{"code": "vital-signs"}]}],
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": taken,
        **elements,
    }


def _measured(code, value, unit):
    return {
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "valueQuantity": {"value": value, "unit": unit},
    }


async def test_vital_signs_by_flowsheets_give_the_vector_of_fhir(emr_of, app_of, chart_of, now):
    panel = {
        "code": {"coding": [{"system": LOINC, "code": "85354-9"}]},
        "component": [_measured("8480-6", 120, "mm[Hg]"), _measured("8462-4", 80.5, "mm[Hg]")],
    }
    emr = await emr_of(
        *chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"),
        _vital("v1", "2015-01-06T18:00:00Z", **_measured("8867-4", 72, "/min")),
        _vital("v2", "2015-01-06T19:00:00Z", **_measured("8867-4", 75, "/min")),
        _vital("v3", "2015-01-05T19:00:00Z", **_measured("8867-4", 140, "/min")),  # before the window
        _vital("v4", "2015-01-06T19:00:00Z", **panel),
    )
    tests = (("8867-4", "/min"), ("8480-6", "mm[Hg]"), ("8462-4", "mm[Hg]"))
    analytes = tuple(Analyte(system=LOINC, code=code, name=code, unit=unit) for code, unit in tests)
    statistics = tuple(statistic for statistic in Statistic if statistic is not Statistic.BINS)
    group = VitalGroup(name="vitals", analytes=analytes, statistics=statistics, lookback_days=1)
    spec = FeatureSpec(schema_version=1, groups=(group,))
    subject = Subject(patient_id="p1", encounter_id="e1", order_id="o1")
    vectors = []
    for settings in ({}, {**BY_EPIC, "DEPLOYR_EMR_READS": "vitals=epic"}):
        source = app_of(emr.url, **settings).application.services.source
        vectors.append(vectorize((await source.fetch(subject, spec, as_of=now)).facts, spec, now))
    assert vectors[0] == vectors[1]
    assert vectors[0].coverage["vitals.results"] == 4


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        (Rule(route="result-components", body="vendor-error"), Failed(reason="emr-bad-response", retryable=True)),
        (Rule(route="result-components", body="html"), Failed(reason="emr-bad-response", retryable=True)),
        (Rule(route="result-components", body="truncated"), Failed(reason="emr-bad-response", retryable=True)),
        (Rule(route="identifiers", body="foreign-subject"), Rejected(reason="wrong-patient")),
        (Rule(route="demographics", body="empty"), Failed(reason="emr-bad-response", retryable=True)),
    ],
)
async def test_what_the_vendor_answers_wrongly_is_never_scored(emr_of, app_of, chart_of, rule, outcome):
    emr = await emr_of(
        *chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"),
        *chart_of("p2", "e2", "o2", "422", "lab2", value=41.0, birth="1960"),
    )
    emr.parts.faults.put([rule])
    app = app_of(emr.url, **BY_EPIC)
    await app.infer()
    packet = await packet_of(app)
    assert packet.outcome == outcome
    assert outcome.reason in {record.error for record in packet.fetches if record.via == "epic"}
    assert emr.parts.scores.cells() == ()


async def test_a_model_that_the_vendors_services_cannot_feed_is_not_loaded(emr_of, app_of, chart_of, tmp_path):
    emr = await emr_of(*chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"))
    components = tmp_path / "components.json"
    components.write_text(json.dumps({"schema_version": 1, "components": [], "flowsheet_rows": []}))
    app = app_of(emr.url, **BY_EPIC, DEPLOYR_EMR_COMPONENTS=str(components))
    assert (await app.infer()).status_code == 503
    assert (await packet_of(app)).outcome.reason == "model-unavailable"


# -- a real chart


def _declaration(*lookbacks):
    tests = (
        ("4544-3", "%", (30.0, 36.0)),
        ("718-7", "g/dL", (8.0, 12.0)),
        ("2823-3", "mmol/L", (3.5, 5.0)),
        ("2160-0", "mg/dL", (1.0, 2.0)),
    )
    analytes = tuple(
        Analyte(system=LOINC, code=code, name=code, unit=unit, bins=EdgeBins(edges=edges))
        for code, unit, edges in tests
    )
    groups = tuple(
        LabGroup(name=f"labs_{days}d", analytes=analytes, statistics=tuple(Statistic), lookback_days=days)
        for days in lookbacks
    )
    return FeatureSpec(schema_version=1, groups=groups)


@pytest.fixture(scope="module")
def eicu_store():
    folder = Path(__file__).parents[3].parent / "shared" / "data" / "eicu-demo-paired" / "fhir"
    if not folder.is_dir():
        pytest.skip("the eICU demo extract is not beside the work tree")
    return load_folder(folder)


def _as_the_vendor_dates_it(lab):
    """Take out of a FHIR fact what the vendor does not tell: when it was drawn, and the seconds of its release."""
    minute = lab.known_at.replace(second=0, microsecond=0)
    return msgspec.structs.replace(lab, at=minute, known_at=minute + timedelta(minutes=1))


@pytest.mark.slow
async def test_real_charts_give_the_same_vectors_once_dated_alike(eicu_store, tmp_path):
    # By FHIR everything is fetched: what was drawn before a window may be released in it.
    spec, ever, counted = _declaration(2, 14), _declaration(3650), Counter()
    clock = EmrClock(real_now=real_now)
    (tmp_path / "bundles").mkdir()
    clock_file = tmp_path / "clock"
    clock_file.write_text("2015-01-06T20:55:00+00:00")
    site = VendorSite(zone=ZoneInfo("America/New_York"))
    orders = [json.loads(record.settled.body) for record in eicu_store.all_of("ServiceRequest")][::25]
    async with listening(
        lambda url: create_app(eicu_store, clock=clock, open_access=True, base_url=url, vendor_site=site)
    ) as url:
        settings = {
            "DEPLOYR_BUNDLES": str(tmp_path / "bundles"),
            "DEPLOYR_EMR_FHIR_BASE": f"{url}/api/FHIR/R4",
            "DEPLOYR_EMR_VENDOR_BASE": url,
            "DEPLOYR_CLOCK_FILE": str(clock_file),
            "DEPLOYR_TIME_ZONE": "America/New_York",
        }
        applications = [build(read_settings(settings)), build(read_settings({**settings, **BY_EPIC}))]
        try:
            for order in orders:
                as_of = datetime.fromisoformat(order["authoredOn"]).astimezone(UTC)
                clock.put(as_of)
                clock_file.write_text(as_of.isoformat())
                subject = Subject(patient_id=order["subject"]["reference"].rpartition("/")[2], order_id=order["id"])
                fhir, epic = [
                    (await application.services.source.fetch(subject, asked, as_of=as_of)).facts
                    for application, asked in zip(applications, (ever, spec), strict=True)
                ]
                dated_alike = msgspec.structs.replace(fhir, labs=tuple(map(_as_the_vendor_dates_it, fhir.labs)))
                wanted, got = vectorize(dated_alike, spec, as_of), vectorize(epic, spec, as_of)
                counted["orders"] += 1
                counted["with results"] += wanted.coverage["labs_14d.results"] > 0
                assert wanted == got
        finally:
            for application in applications:
                await application.aclose()
    assert counted["orders"] > 100
    assert counted["with results"] > counted["orders"] / 2
