"""Two hosts as two processes, on one store file and one EMR: what both are asked at once is written once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import ExitStack
from types import SimpleNamespace

import aiohttp
import pytest

from deployr_core.packet import DeliveryState, Scored
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.batch_runs import RunState, all_runs
from tests.crash import site
from tests.crash.lane import address, process

REQUESTS = 50
WARD = tuple(f"p{n}" for n in range(10, 18))
MASTER = "master-key"
_POLL_S = 0.05


@pytest.fixture(scope="module")
def house(tmp_path_factory, bundle_files):
    """Give two hosts of the whole app, and the EMR that both read and write."""
    folder = tmp_path_factory.mktemp("two-processes")
    site.write_ndjson(
        folder / "chart" / "chart.ndjson", site.chart(*WARD) + site.chart("p1", "p2", "p3", location="ward")
    )
    (folder / "clock").write_text(site.NOW.isoformat())
    (folder / "settings.json").write_text('{"IsEncrypted": false, "Values": {}}')
    emr_log, logs = folder / "emr.log", [folder / f"host{number}.log" for number in (1, 2)]
    with ExitStack() as stack:
        of_emr = ("mock_emr", "--data", str(folder / "chart"), "--open", "--now", site.NOW.isoformat())
        url = address(stack.enter_context(process(*of_emr, log=emr_log)), log=emr_log)
        settings = {
            **site.write_site(folder, bundle_files, outputs="score-column,flowsheet", url=url),
            "DEPLOYR_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "DEPLOYR_CLOCK_FILE": str(folder / "clock"),
            "DEPLOYR_HOST_MASTER_KEY": MASTER,
            "DEPLOYR_HOST_FUNCTION_KEY": "function-key",
            "AzureWebJobsStorage": f"sqlite:{folder / 'queue.sqlite'}",
            "DEPLOYR_BPA_PER_SECOND": "1000",
        }
        of_host = ("deployr_serve.local_host", "--app", "function_app.py", "--port", "0")
        own = ("--settings", str(folder / "settings.json"), "--state")
        started = [
            stack.enter_context(process(*of_host, *own, str(log.with_suffix("")), log=log, **settings)) for log in logs
        ]
        hosts = [address(each, log=log) for each, log in zip(started, logs, strict=True)]
        yield SimpleNamespace(emr=url, hosts=hosts, store=folder / "store.sqlite", fhir_base=f"{url}/api/FHIR/R4")


@pytest.fixture
async def store(house):
    store = SqliteStore(house.store)
    yield store
    await store.aclose()


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def asked_of_both(house, session, ask):
    """Ask both hosts the same at once, half of the requests each; give status and body of each answer."""
    path, content_type, body = ask

    async def post(host):
        headers = {"Content-Type": content_type, "x-functions-key": "function-key"}
        async with session.post(host + path, data=body, headers=headers) as answer:
            return answer.status, await answer.read()

    return await asyncio.gather(*(post(house.hosts[n % 2]) for n in range(REQUESTS)))


async def written(house, session):
    """Give what the EMR was written: how often each patient's score column, and each patient's flowsheet row."""
    async with session.get(f"{house.emr}/admin/scores") as answer:
        scores = await answer.json()
    async with session.get(f"{house.emr}/admin/writes") as answer:
        writes = await answer.json()
    async with session.get(f"{house.emr}/admin/journal", params={"limit": "10000"}) as answer:
        entries = (await answer.json())["entries"]
    new = Counter(entry["write"]["job_id"] for entry in entries if entry["write"])
    assert set(new.values()) <= {1}, "a score was sent twice"
    column = Counter({cell["patientId"]: len(cell["rows"]) for cell in scores["scores"]})
    return column, Counter(value["patient_id"] for value in writes["flowsheet"])


@pytest.mark.parametrize(("channel", "patient_id"), [("json", "p1"), ("bpa", "p2"), ("cds", "p3")])
async def test_fifty_identical_requests_are_one_packet_one_write_and_one_answer(
    house, session, store, channel, patient_id
):
    asks = {
        "json": lambda: site.json_ask(patient_id, site.NOW),
        "bpa": lambda: site.bpa_ask(patient_id, site.NOW),
        "cds": lambda: site.cds_ask(patient_id, fhir_base=house.fhir_base),
    }
    answers = await asked_of_both(house, session, asks[channel]())
    [(status, body)] = set(answers)
    assert status == 200
    if channel == "json":
        assert json.loads(body)["score"] == 3 / 4
    else:
        assert b"Likely unchanged: 75 %" in body
    packets = await store.packets(model_id=site.MODEL, after=None, limit=1000)
    [packet] = [packet for packet in packets if packet.subject.patient_id == patient_id]
    assert isinstance(packet.outcome, Scored)
    for output in ("score-column", "flowsheet"):
        delivery = await store.read_delivery(f"{packet.packet_id}.{output}")
        assert (delivery.state, delivery.attempts) == (DeliveryState.SENT, 1)
    column, flowsheet = await written(house, session)
    assert (column[patient_id], flowsheet[patient_id]) == (1, 1)


async def test_a_slot_that_fires_in_both_processes_scores_and_writes_each_patient_once(house, session, store):
    async def fire(host):
        headers = {"x-functions-key": MASTER, "x-deployr-wait": "1"}
        url = f"{host}/admin/functions/batch_{site.BATCH}"
        async with session.post(url, json={"input": ""}, headers=headers) as answer:
            return answer.status

    fired = await asyncio.gather(*(fire(house.hosts[n % 2]) for n in range(6)))
    assert set(fired) == {200}
    async with asyncio.timeout(30):
        while (await all_runs(store, now=site.NOW))[0].is_open:  # noqa: ASYNC110
            # Another process ends it.
            await asyncio.sleep(_POLL_S)
    [run] = await all_runs(store, now=site.NOW)
    assert (run.state, run.slot, run.totals) == (RunState.COMPLETE, site.SLOT, {"scored": len(WARD)})
    packets = await store.packets(model_id=site.MODEL, after=None, limit=1000)
    scored = Counter(packet.subject.patient_id for packet in packets if packet.trigger.channel == "timer")
    assert scored == dict.fromkeys(WARD, 1)
    column, flowsheet = await written(house, session)
    assert {patient_id: (column[patient_id], flowsheet[patient_id]) for patient_id in WARD} == dict.fromkeys(
        WARD, (1, 1)
    )
