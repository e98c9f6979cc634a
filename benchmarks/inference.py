"""One inference against an EMR that takes 50 ms for every call: how much is left beside waiting for it."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from benchmarks.measured import Measured, against
from benchmarks.staging import ENCOUNTER, NOW, PATIENT, write_model, write_patient
from deployr_cli.demo.processes import Running, running
from deployr_cli.demo.run import TASK
from deployr_core.features import FeatureSpec
from deployr_core.packet import Subject
from deployr_serve.adapters.fhir_source import plan
from deployr_serve.adapters.models import read_bundle

_DELAY_MS = 50
_ROUNDS = 15


def one_inference() -> list[Measured]:
    """Measure with a warm host, a patient of 500 resources, and every round another order.

    The slowest chain of calls that depend on each other is one search, then the write of the score. The sequential
    baseline makes the same searches one after the other, then the write.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder, trees=100)
        write_patient(folder / "fhir", orders=_ROUNDS + 3)
        spec = read_bundle(folder / "bundles" / TASK).spec
        with running(
            workspace=folder,
            fhir=folder / "fhir",
            bundles=folder / "bundles",
            now=NOW,
            clock_file=folder / "now",
            emr_delay_ms=_DELAY_MS,
            emr_is_open=True,
        ) as processes:
            ours, chain, sequential = asyncio.run(_measure(processes, spec))
    return [
        against("one inference, EMR at 50 ms a call, against its slowest chain", ours, chain, unit="ms", at_most=2.0),
        against("one inference against the same calls in sequence", ours, sequential, unit="ms", at_most=1.0),
    ]


async def _measure(processes: Running, spec: FeatureSpec) -> tuple[float, float, float]:
    async with aiohttp.ClientSession() as session:
        searches = _searches(spec)

        async def search(resource_type: str, form: dict[str, str]) -> None:
            url = f"{processes.emr}/api/FHIR/R4/{resource_type}/_search"
            async with session.post(url, data=form) as response:
                response.raise_for_status()
                await response.read()

        async def write(number: int) -> None:
            path = "api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"
            url = f"{processes.emr}/{path}?modelId=bench&jobId=bench-{number}"
            async with session.post(url, json={}) as response:
                await response.read()

        async def infer(number: int) -> None:
            body = {
                "patientId": PATIENT,
                "encounterId": ENCOUNTER,
                "orderId": f"bench-order-{number}",
                "eventTime": NOW.isoformat(),
            }
            headers = {"x-functions-key": processes.function_key}
            url = f"{processes.host}/api/models/{TASK}/infer"
            async with session.post(url, json=body, headers=headers) as response:
                answer = await response.json()
                if answer.get("status") != "scored":
                    raise RuntimeError(f"expected a score, got status {response.status}")

        async def chain(number: int) -> None:
            await search(*searches[0])
            await write(number)

        async def sequence(number: int) -> None:
            for resource_type, form in searches:
                await search(resource_type, form)
            await write(number)

        for number in range(3):
            await infer(_ROUNDS + number)
        samples: dict[str, list[float]] = {"infer": [], "chain": [], "sequence": []}
        for number in range(_ROUNDS):
            for name, step in (("infer", infer), ("chain", chain), ("sequence", sequence)):
                samples[name].append(await _milliseconds(step, number))
        medians = {name: statistics.median(values) for name, values in samples.items()}
        return medians["infer"], medians["chain"], medians["sequence"]


def _searches(spec: FeatureSpec) -> list[tuple[str, dict[str, str]]]:
    """Give the searches that one inference makes, the largest first."""
    planned = plan(spec, patient_id=PATIENT, as_of=NOW)
    subject = Subject(patient_id=PATIENT, encounter_id=ENCOUNTER, order_id="bench-order-0")
    reads = (("Patient", subject.patient_id), ("Encounter", subject.encounter_id), ("ServiceRequest", subject.order_id))
    searches = [(search.resource_type, {**dict(search.parameters), "_count": "1000"}) for search in planned.values()]
    return searches + [(resource_type, {"_id": identity or ""}) for resource_type, identity in reads]


async def _milliseconds(step: Callable[[int], Awaitable[None]], number: int) -> float:
    started = time.perf_counter()
    await step(number)
    return (time.perf_counter() - started) * 1000
