"""One order of a real patient, asked about as JSON, as a CDA document and over CDS Hooks, by a model that was trained.

All of it goes over HTTP between real processes: a mock EMR over de-identified intensive care, and the function host.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from lxml import etree

from deployr_cli.demo.events import orders_signed, start_of_replay
from deployr_cli.demo.processes import running, store_file
from deployr_cli.demo.replay import Driver
from deployr_dev.bundles import write_bundle
from deployr_dev.cohorts.tasks import shipped_task
from deployr_dev.declarations.shipped import shipped_declaration
from deployr_dev.estimators import EstimatorChoice
from deployr_dev.set_engine import SetEngine
from deployr_dev.sources.extract import Extract
from deployr_dev.training import TrainingOptions, train_bundle
from deployr_serve.adapters.sqlite_store import SqliteStore
from mock_emr.cds_client import CdsClient, Reply
from tests.cda import SETTINGS, cda, ii

pytestmark = pytest.mark.slow

EICU = Path(__file__).parents[3].parent / "shared" / "data" / "eicu-demo-paired"
ORDERS = 12
POLICY = """\
schema_version: 1
model: hematocrit
mode: live
threshold: 0.0
outputs: []
advisory:
  headline: "Abnormal: {score_percent}"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Give both processes running, with a model trained on what came before the orders, and those orders."""
    if not EICU.is_dir():
        pytest.skip("the eICU data (ODbL) is not beside this checkout")
    workspace = tmp_path_factory.mktemp("site")
    task = shipped_task("hematocrit")
    events = orders_signed(EICU / "fhir", panels=task.panels)
    before = start_of_replay(events)
    options = TrainingOptions(estimator=EstimatorChoice(parameters={"n_estimators": 30}))
    with Extract.open(EICU / "omop") as extract:
        declaration, engine = shipped_declaration(task.declaration), SetEngine(extract)
        trained = train_bundle(extract, task, declaration, before=before, options=options, engine=engine)
        write_bundle(trained, workspace / "bundles" / "hematocrit")
    (workspace / "deployments").mkdir()
    (workspace / "deployments" / "hematocrit.yaml").write_text(POLICY)
    later = [event for event in events if event.signed_at >= before and event.encounter_id]
    clock_file = workspace / "now"
    with running(
        workspace=workspace,
        fhir=EICU / "fhir",
        bundles=workspace / "bundles",
        now=later[0].signed_at,
        clock_file=clock_file,
        emr_is_open=True,
        settings={"DEPLOYR_DEPLOYMENTS": str(workspace / "deployments"), **SETTINGS},
    ) as processes:
        yield processes, clock_file, later[:: len(later) // ORDERS][:ORDERS], workspace


async def by_json(session, host, key, event):
    body = {
        "patientId": event.patient_id,
        "encounterId": event.encounter_id,
        "orderId": event.order_id,
        "eventTime": event.signed_at.isoformat(),
    }
    headers = {"x-functions-key": key}
    async with session.post(f"{host}/api/models/hematocrit/infer", json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["X-Packet-Id"], (await answer.json())["score"]


async def by_bpa(session, host, event):
    document = cda(
        patient=ii(1, event.patient_id),
        encounter=ii(3, event.encounter_id),
        order=ii(5, event.order_id),
        time=f'<effectiveTime value="{event.signed_at:%Y%m%d%H%M%S}+0000"/>',
    )
    headers = {"Content-Type": "application/xml"}
    async with session.post(f"{host}/api/bpa/hematocrit", data=document.encode(), headers=headers) as answer:
        root = etree.fromstring(await answer.read())
    reasons = [reason.text for reason in root.findall("{*}Reasons/{*}Reason")]
    return root.findtext("{*}PacketId"), float(root.findtext("{*}Score")), reasons


async def by_hook(session, processes, event, *, hands_over):
    """Sign the order in the EMR, which calls the service that it has discovered, and hands over what is asked for."""

    async def send(method, url, headers, body):
        async with session.request(method, url, headers=headers, data=body) as answer:
            said = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(status=answer.status, headers=said, body=await answer.read())

    async def search(query):
        async with session.get(f"{processes.emr}/api/FHIR/R4/{query}") as answer:
            return await answer.json(content_type=None)

    fhir_base = f"{processes.emr}/api/FHIR/R4"
    client = CdsClient(processes.host, fhir_base=fhir_base, send=send, now=lambda: datetime.now(UTC))
    listed = (await client.discover()).content["services"]
    [service] = [each for each in listed if each["id"] == "hematocrit-order-sign"]
    draft = {
        "resourceType": "ServiceRequest",
        "id": event.order_id,
        "status": "draft",
        "intent": "order",
        "subject": {"reference": f"Patient/{event.patient_id}"},
        "authoredOn": event.signed_at.isoformat(),
        "code": {"coding": [{"system": "http://loinc.org", "code": "57021-8"}]},
    }
    context = {
        "userId": "Practitioner/dr1",
        "patientId": event.patient_id,
        "encounterId": event.encounter_id,
        "draftOrders": {"resourceType": "Bundle", "entry": [{"resource": draft}]},
    }
    reply = await client.fire(service, context, search=search if hands_over else None)
    [card] = reply.content["cards"]
    return reply.headers["x-packet-id"], re.findall(r"^- (.*)$", card["detail"], re.MULTILINE)


async def test_an_order_has_the_same_features_score_and_reasons_in_all_three_channels(site):
    processes, clock_file, events, workspace = site
    store, scores = SqliteStore(store_file(workspace)), set()
    try:
        async with aiohttp.ClientSession() as session:
            driver = Driver(processes, clock_file, session)
            for number, event in enumerate(events):
                # Every channel calls a little after the signing, as it would.
                await driver.set_time(event.signed_at + timedelta(seconds=20))
                asked, score = await by_json(session, processes.host, processes.function_key, event)
                alerted, shown, reasons = await by_bpa(session, processes.host, event)
                hooked, on_card = await by_hook(session, processes, event, hands_over=number % 2 == 0)
                assert (alerted, shown) == (asked, score)
                assert hooked != asked
                assert on_card == reasons
                assert len(reasons) == 3
                one, other = [(await store.read(packet_id)).packet for packet_id in (asked, hooked)]
                assert (one.trigger.channel, other.trigger.channel) == ("json", "cds-hooks")
                assert one.as_of == other.as_of == event.signed_at
                assert one.model == other.model
                assert one.subject.patient_id == other.subject.patient_id == event.patient_id
                assert one.subject.encounter_id == other.subject.encounter_id == event.encounter_id
                assert (one.subject.order_id, other.subject.order_id) == (event.order_id, None)
                for name in ("score", "vector", "outputs", "contributions", "base", "explained", "decision"):
                    assert getattr(one.outcome, name) == getattr(other.outcome, name), name
                assert any(fetch.via == "prefetch" for fetch in other.fetches) == (number % 2 == 0)
                scores.add(score)
    finally:
        await store.aclose()
    assert len(events) == ORDERS
    assert len(scores) > ORDERS / 2
