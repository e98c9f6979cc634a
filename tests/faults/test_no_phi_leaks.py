"""The canary test: nothing that identifies the patient, and no value, in any place that is not made for it.

A patient whose every identifier and value is a marked one goes through everything the app does, well and badly, with
all that the app says and sends kept: logs at DEBUG, standard output and error, addresses, errors with what stands
behind them, answers, ids, file names, representations.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import traceback
from contextlib import closing
from datetime import timedelta

import msgspec
import pytest

from deployr_core.packet import Failed, Rejected, Scored, Subject
from deployr_serve.adapters.epic import ScoreColumn
from deployr_serve.adapters.fhir_outcomes import FhirOutcomes
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.adapters.http import Request
from deployr_serve.core.errors import ServeError
from mock_emr.faults import Rule

CANARIES = {
    "patient id": "CanaryPatient7",
    "encounter id": "CanaryEncounter7",
    "order id": "CanaryOrder7",
    "contact serial number": "970031415926",
    "birth date": "1931-07-23",
    "lab value": "37.13579",
    "result id": "CanaryResult7",
}
CLINICIAN = {"clinician id": "Practitioner/CanaryClinician7"}
"""Stands in the audit, which is made to say who asked, and nowhere else: packets hold a keyed hash of it."""
ASKED = {
    "context": {"provider": CLINICIAN["clinician id"]},
    "patientId": CANARIES["patient id"],
    "encounterId": CANARIES["encounter id"],
    "orderId": CANARIES["order id"],
}


def leaks(canaries, surfaces):
    """Give each place and canary, by their names, where the one is in the other, whatever its case."""
    return [
        f"{name} in {place}"
        for place, text in surfaces.items()
        for name, canary in canaries.items()
        if canary.lower() in text.lower()
    ]


class KeepEverything(logging.Handler):
    def __init__(self):
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


@pytest.fixture
def logs():
    """Give all that any logger says, at DEBUG."""
    keeper = KeepEverything()
    names = ["", "aiohttp", "asyncio", "azure", "deployr_serve", "deployr_core", "label_extractors"]
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    loggers[0].addHandler(keeper)
    yield keeper.lines
    loggers[0].removeHandler(keeper)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
async def emr(emr_of, chart_of):
    return await emr_of(
        *chart_of(
            CANARIES["patient id"],
            CANARIES["encounter id"],
            CANARIES["order id"],
            CANARIES["contact serial number"],
            CANARIES["result id"],
            value=float(CANARIES["lab value"]),
            birth=CANARIES["birth date"],
        ),
        *chart_of("other-patient", "other-encounter", "other-order", "1", "other-result", value=30.0, birth="1960"),
    )


def everything_in_files(folder):
    """Give the store's columns but for the records themselves, and the names of all files."""
    said = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    with closing(sqlite3.connect(folder / "store.sqlite")) as db:
        for table in ("packets", "deliveries", "labels"):
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})") if name != "body"]
            said += map(str, db.execute(f"SELECT {', '.join(columns)} FROM {table}"))  # noqa: S608 names of our own
    return "\n".join(said)


@pytest.fixture
async def live(emr, app_of, logs, capfd, tmp_path, now, monkeypatch, feature_spec):
    """Give a function that lives through a day of the app, and gives what came to be seen where."""
    app = app_of(emr.url, DEPLOYR_AUDIT=f"folder:{tmp_path / 'audit'}")

    async def ask(**fields):
        response = await app.infer(**ASKED | fields)
        answers.append(f"{response.status_code} {dict(response.headers)} {response.get_body().decode()}")
        return response.status_code

    async def ask_under(*rules, **fields):
        emr.parts.faults.put(rules)
        status = await ask(**fields)
        emr.parts.faults.put(())
        return status

    answers, errors = [], []

    async def run():
        asyncio.get_running_loop().set_debug(True)
        statuses = [
            await ask(),
            await ask(),
            await ask(encounterId="other-encounter", orderId=None),
            await ask(patientId="other-patient", encounterId=None),
            await ask(encounterId="other-encounter", idempotencyKey="used"),
            await ask(idempotencyKey="used"),
            await ask(patientId=CANARIES["patient id"] + "/x"),
            await ask(eventTime=CANARIES["birth date"]),
            await ask(body=str(CANARIES).encode()),
            await ask(eventTime="2015-01-09T00:00:00Z"),
        ]
        spoilt = (
            {"body": "html"},
            {"body": "truncated"},
            {"status": 500},
            {"status": 403},
            {"body": "foreign-subject"},
        )
        for number, fault in enumerate(spoilt):
            # Another instant each time: what was fetched for the same one a moment ago would be used again.
            spoilt_at = f"2015-01-06T20:5{number}:00Z"
            statuses.append(await ask_under(Rule(route="Observation", **fault), eventTime=spoilt_at))
        statuses.append(await ask_under(Rule(route="score", status=503, times=1), idempotencyKey="late-score"))
        for fault in spoilt:
            emr.parts.faults.put((Rule(route="Observation", **fault),))
            try:
                subject = Subject(patient_id=ASKED["patientId"], order_id=ASKED["orderId"])
                await app.application.services.source.fetch(subject, feature_spec, as_of=now)
            except ServeError as error:
                errors.append("".join(traceback.format_exception(error)) + repr(error))
        emr.parts.faults.put(())
        with monkeypatch.context() as patched:

            async def fail(*_, **__):
                raise RuntimeError(f"a bug about {CANARIES}")

            patched.setattr(FhirSource, "fetch", fail)
            statuses.append(await ask(eventTime="2015-01-06T20:49:00Z"))
            patched.undo()
            patched.setattr(app.store, "create", fail)
            statuses.append(await ask(idempotencyKey="bug-in-store"))
            patched.undo()
            patched.setattr(ScoreColumn, "send", fail)
            statuses.append(await ask(idempotencyKey="bug-in-output"))
            patched.undo()
            patched.setattr(FhirOutcomes, "outcomes", fail)
            await app.fire("extract_labels")
        app.set_clock(now + timedelta(days=1))
        emr.parts.clock.put(now + timedelta(days=1))
        await app.fire("relay_deliveries")
        await app.fire("extract_labels")
        await app.fire("watch_alerts")
        answers.extend([(await app.get(name)).get_body().decode() for name in ("health_live", "health_ready")])
        out, err = capfd.readouterr()
        packets = await app.store.packets(model_id="hematocrit", after=None, limit=1000)
        labels = await app.store.labels(model_id="hematocrit", rule="lab-component", after=None, limit=10)
        return (
            statuses,
            packets,
            labels,
            {
                "logs": "\n".join(logs),
                "standard output": out,
                "standard error": err,
                "addresses": "\n".join(emr.addresses),
                "answers": "\n".join(answers),
                "errors": "\n".join(errors),
                "ids and file names": everything_in_files(tmp_path),
                "audit": "".join(file.read_text() for file in (tmp_path / "audit").glob("*.ndjson")),
                "representations": repr((packets, labels, [packet.outcome for packet in packets])),
            },
        )

    return run


async def test_no_canary_is_seen_anywhere(live):
    statuses, packets, labels, surfaces = await live()
    # All that was to happen did happen; otherwise there was nothing to leak.
    assert statuses == [200, 200, 422, 422, 422, 409, 400, 400, 400, 422, 503, 503, 503, 503, 422, 200, 500, 500, 200]
    kinds = [type(packet.outcome) for packet in packets]
    assert (kinds.count(Scored), kinds.count(Rejected), kinds.count(Failed)) == (3, 4, 5)
    assert [label.outcome.value for label in labels] == [0.0] * 3  # 37.13579 is within 35 to 47
    assert surfaces["logs"].count("deployr_serve.blueprint infer:") == len(statuses)
    assert "failed:unexpected=3" in surfaces["logs"]
    assert surfaces["errors"].count("Traceback") >= 5
    assert len(surfaces["addresses"].splitlines()) > 50
    assert surfaces["ids and file names"].count(".score-column") == 3
    assert surfaces["audit"].count('"code":"infer"') == len(statuses)
    assert leaks(CANARIES, surfaces) == []
    assert all(packet.clinician_hash for packet in packets)
    assert leaks(CLINICIAN, {**surfaces, "packets": msgspec.json.encode(packets).decode()}) == ["clinician id in audit"]


async def test_a_planted_leak_into_a_log_is_found_by_place_and_name(live, monkeypatch):
    fetch = FhirSource.fetch

    async def chatty_fetch(self, subject, spec, **asked):
        logging.getLogger("deployr_serve.adapters.fhir_source").debug("fetching %s", subject.patient_id)
        return await fetch(self, subject, spec, **asked)

    monkeypatch.setattr(FhirSource, "fetch", chatty_fetch)
    *_, surfaces = await live()
    assert leaks(CANARIES, surfaces) == ["patient id in logs"]


async def test_a_planted_leak_into_an_address_is_found_by_place_and_name(live, monkeypatch):
    send = ScoreColumn.send

    async def send_with_csn_in_query(self, packet, bundle, *, delivery_id, budget=None):
        query = f"ContactID={packet.outcome.entity_id}&OrderID={packet.subject.order_id}"
        await self._writer._transport.send(Request(method="GET", url=f"{self._writer._base}/scores?{query}"))
        await send(self, packet, bundle, delivery_id=delivery_id)

    monkeypatch.setattr(ScoreColumn, "send", send_with_csn_in_query)
    *_, surfaces = await live()
    assert leaks(CANARIES, surfaces) == ["order id in addresses", "contact serial number in addresses"]


async def test_a_planted_leak_onto_standard_output_is_found_by_place_and_name(live, monkeypatch):
    fetch = FhirSource.fetch

    async def printing_fetch(self, subject, spec, **asked):
        fetched = await fetch(self, subject, spec, **asked)
        print([lab.value for lab in fetched.facts.labs])  # noqa: T201 the leak
        return fetched

    monkeypatch.setattr(FhirSource, "fetch", printing_fetch)
    *_, surfaces = await live()
    assert leaks(CANARIES, surfaces) == ["lab value in standard output"]


async def test_a_planted_leak_into_an_id_is_found_by_place_and_name(live, monkeypatch):
    from deployr_serve.core import infer

    def readable_id(*_, model_id, request_key, **__):
        return f"{model_id}-{CANARIES['order id']}-{request_key}"

    monkeypatch.setattr(infer, "derive_packet_id", readable_id)
    *_, surfaces = await live()
    assert leaks(CANARIES, surfaces) == [
        "order id in answers",
        "order id in ids and file names",
        "order id in audit",
    ]


def test_the_checker_names_every_place_and_canary_whatever_its_case():
    surfaces = {"a": "nothing", "b": "x canarypatient7 y", "c": "CanaryOrder7/1931-07-23"}
    assert leaks(CANARIES, surfaces) == ["patient id in b", "order id in c", "birth date in c"]
