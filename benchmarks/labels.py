"""Labels of ten thousand packets: one read of the EMR per patient, against one call per packet."""

from __future__ import annotations

import asyncio
import gzip
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.hospital import Hospital, hospital
from benchmarks.measured import Measured, faster
from benchmarks.staging import NOW
from deployr_cli.demo.run import TASK
from deployr_core.codes import LOINC, Code
from deployr_core.label_rules import deciding_components, rule_name
from deployr_core.packet import InferencePacket, ModelRef, Scored, StoredVector, Subject, Trigger
from deployr_serve.adapters.fhir_facts import lab
from deployr_serve.adapters.fhir_outcomes import FhirOutcomes
from deployr_serve.adapters.fhir_plan import lab_search
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.fhir_wire import Observation
from deployr_serve.adapters.http import Request, Response, Transport
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.bootstrap import Application, build
from deployr_serve.core.infer import Services
from deployr_serve.core.outcome_source import OutcomeFacts
from deployr_serve.settings import read_settings
from label_extractors.changes import note
from label_extractors.collect import collect_labels
from label_extractors.rules import Asked, label_of

_PATIENTS, _ORDERS = 500, 20
_DELAY_MS = 20
_AT_ONCE = 8
_NAME = f"{_PATIENTS * _ORDERS:,} packets of {_PATIENTS} patients, calls of {_DELAY_MS} ms"


class _Counting:
    """Sends, and counts what is sent."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.calls = 0

    async def send(self, request: Request) -> Response:
        self.calls += 1
        return await self._transport.send(request)


def label_extraction() -> list[Measured]:
    """Extract 10,000 labels from an EMR whose every call takes 20 ms, into SQLite; then the simple way.

    The simple way searches for the results of each packet by itself, as many at once, and stores as ours does.
    """
    with hospital(_write_charts, emr_delay_ms=_DELAY_MS) as measured:
        ours_s, our_calls, ours = asyncio.run(_measured(measured, _per_patient))
        simple_s, their_calls, theirs = asyncio.run(_measured(measured, _per_packet))
    if ours != theirs or len(ours) != _PATIENTS * _ORDERS:
        raise RuntimeError(f"expected the same labels of all packets both ways, got {len(ours)} and {len(theirs)}")
    packets = _PATIENTS * _ORDERS
    return [
        faster(f"labels: {_NAME}, against one call a packet", ours_s, simple_s, at_least=2.0, unit="s"),
        faster("labels: EMR calls per packet", our_calls / packets, their_calls / packets, at_least=5.0, unit="calls"),
    ]


async def _measured(
    measured: Hospital, work: Callable[[Services, FhirClient], Awaitable[None]]
) -> tuple[float, int, dict[str, float]]:
    """Give the seconds, the calls, and the labels by packet."""
    made: list[_Counting] = []

    def counted(network: Transport) -> Transport:
        made.append(_Counting(network))
        return made[0]

    with tempfile.TemporaryDirectory() as folder:
        application = _application(measured, counted)
        store = SqliteStore(Path(folder) / "labels.sqlite")
        services = replace(application.services, store=store, records=store)
        try:
            await _store_packets(services)
            started = time.perf_counter()
            await work(services, application.fhir)
            seconds = time.perf_counter() - started
            rule = rule_name(services.models.bundle(TASK).manifest.task.rule)
            labels = await store.labels(model_id=TASK, rule=rule, after=None, limit=_PATIENTS * _ORDERS + 1)
            values = {label.packet_id: float(getattr(label.outcome, "value", -1.0)) for label in labels}
            return seconds, made[0].calls, values
        finally:
            await store.aclose()
            await application.aclose()


def _application(measured: Hospital, over: Callable[[Transport], Transport]) -> Application:
    settings = {
        "DEPLOYR_BUNDLES": str(measured.folder / "bundles"),
        "DEPLOYR_STORE": "memory",
        "DEPLOYR_EMR_FHIR_BASE": f"{measured.processes.emr}/api/FHIR/R4",
        "DEPLOYR_CLOCK_FILE": str(measured.folder / "now"),
        "DEPLOYR_DEADLINE_S": "60",
    }
    return build(read_settings(settings), over=over)


async def _per_patient(services: Services, client: FhirClient) -> None:
    await collect_labels(services, FhirOutcomes(client, clock=services.clock))


async def _per_packet(services: Services, client: FhirClient) -> None:
    """Do it the simple way: each packet's results by a search of its own, and nothing else looked at."""
    rule = services.models.bundle(TASK).manifest.task.rule
    codes = tuple(Code(LOINC, component) for component in deciding_components(rule))
    everything = _PATIENTS * _ORDERS
    packets = await services.store.unlabelled(model_id=TASK, rule=rule_name(rule), after=None, limit=everything)
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(packet: InferencePacket) -> None:
        async with places:
            patient_id, now = packet.subject.patient_id, services.clock.now()
            found = await client.search(lab_search(patient_id, codes, packet.as_of - timedelta(days=3)))
            read = (
                lab(each, fhir_base=client.base, zone=UTC, dropped=Counter())
                for each in found.resources
                if isinstance(each, Observation)
            )
            facts = OutcomeFacts(labs=tuple(each for each in read if each is not None))
            asked = Asked(rule=rule, subject=packet.subject, as_of=packet.as_of)
            outcome = label_of(asked, facts, now=now)
            await note(services.store, packet.packet_id, rule_name(rule), outcome, read_at=now, now=now)

    await asyncio.gather(*map(one, packets))


async def _store_packets(services: Services) -> None:
    manifest = services.models.bundle(TASK).manifest
    made = (_packet(patient, order, manifest.version) for patient in range(_PATIENTS) for order in range(_ORDERS))
    await asyncio.gather(*map(services.store.create, made))


def _packet(patient: int, order: int, version: str) -> InferencePacket:
    as_of = NOW - timedelta(days=30, hours=-6 * order)
    return InferencePacket(
        packet_id=f"p{(patient * 7919 + order * 104729) % (1 << 32):08x}{patient:04x}{order:04x}",
        site="bench",
        environment="BENCH",
        model=ModelRef(model_id=TASK, version=version, bundle_sha256="0" * 64),
        trigger=Trigger(
            channel="json", correlation_id="bench", request_sha256="0" * 64, received_at=as_of, event_time=as_of
        ),
        subject=Subject(patient_id=f"label-{patient}", encounter_id=None, order_id=f"order-{patient}-{order}"),
        as_of=as_of,
        outcome=Scored(
            score=0.5,
            vector=StoredVector(spec_sha256="0" * 64, size=1, indices=(), values=()),
            coverage={},
            entity_id=None,
        ),
        started_at=as_of,
        updated_at=as_of,
    )


def _write_charts(folder: Path) -> None:
    """Write patients whose orders each have one result, three hours later."""
    folder.mkdir(parents=True)
    lines: defaultdict[str, list[bytes]] = defaultdict(list)
    for patient in range(_PATIENTS):
        for resource in _resources(patient):
            lines[resource["resourceType"]].append(msgspec.json.encode(resource))
    for kind, held in lines.items():
        with gzip.open(folder / f"{kind}.ndjson.gz", "wb", compresslevel=1) as file:
            file.write(b"\n".join(held))


def _resources(patient: int) -> Iterator[dict[str, Any]]:
    subject = {"reference": f"Patient/label-{patient}"}
    yield {"resourceType": "Patient", "id": f"label-{patient}", "gender": "female", "birthDate": "1950-05-01"}
    for order in range(_ORDERS):
        signed = NOW - timedelta(days=30, hours=-6 * order)
        order_id = f"order-{patient}-{order}"
        yield {
            "resourceType": "ServiceRequest",
            "id": order_id,
            "status": "completed",
            "intent": "order",
            "code": {"coding": [{"system": LOINC, "code": "58410-2"}]},
            "subject": subject,
            "authoredOn": signed.isoformat(),
        }
        yield {
            "resourceType": "Observation",
            "id": f"lab-{patient}-{order}",
            "status": "final",
            "basedOn": [{"reference": f"ServiceRequest/{order_id}"}],
            "category": [{"coding": [{"code": "laboratory"}]}],
            "code": {"coding": [{"system": LOINC, "code": "4544-3"}]},
            "subject": subject,
            "effectiveDateTime": (signed + timedelta(hours=1)).isoformat(),
            "issued": (signed + timedelta(hours=3)).isoformat(),
            "valueQuantity": {"value": 30 + order, "unit": "%"},
            "referenceRange": [{"low": {"value": 35, "unit": "%"}, "high": {"value": 47, "unit": "%"}}],
        }
