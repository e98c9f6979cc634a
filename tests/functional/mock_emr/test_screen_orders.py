"""An order that is signed on the screen gets its results as the clock moves on, and so a label."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deployr_core.codes import LOINC, Code
from deployr_core.labels import Answered, Unanswered, label_of_results
from deployr_dev.cohorts.tasks import shipped_task
from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.fhir_outcomes import FhirOutcomes
from deployr_serve.adapters.fhir_search import FhirClient
from deployr_serve.adapters.http import AiohttpTransport
from deployr_serve.core.outcome_source import OutcomeNeeds
from mock_emr.clock import EmrClock
from mock_emr.emr import FHIR_ROOT
from mock_emr.hosting import listening
from mock_emr.population.config import PopulationConfig
from mock_emr.population.fhir import write_fhir
from mock_emr.population.generate import generate
from mock_emr.serve import create_app

NOW = datetime(2025, 1, 20, 15, tzinfo=UTC)
CBC = "58410-2"


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a ward of sixty patients as FHIR."""
    folder = tmp_path_factory.mktemp("ward")
    write_fhir(generate(PopulationConfig(patients=60, weeks=6)), folder)
    return folder


async def no_card(_: Request) -> JSONResponse:
    return JSONResponse({"cards": []})


@pytest.mark.parametrize("way", [None, "cds-hooks"], ids=["nobody is asked", "asked over CDS Hooks"])
async def test_an_order_signed_on_the_screen_gets_a_label(ward: Path, way: str | None) -> None:
    rule = shipped_task("hematocrit").lab_rule
    clock = EmrClock(real_now=lambda: NOW, now=NOW)
    created: list[Any] = []

    def make(url: str) -> Starlette:
        created.append(create_app(ward, clock=clock, open_access=True, base_url=url))
        return created[0]

    async with (
        listening(make) as emr,
        listening(lambda _: Starlette(routes=[Route("/{rest:path}", no_card, methods=["POST"])])) as bridge,
        aiohttp.ClientSession() as session,
    ):
        parts = created[0].state.emr
        if way is not None:
            asked = {"address": bridge, "way": way, "services": ["cbc-order-sign"]}
            async with session.put(f"{emr}/admin/bridge", data=msgspec.json.encode(asked)) as told:
                assert told.status == 200
        stay = next(
            msgspec.json.decode(form.body)
            for record in parts.store.all_of("Encounter")
            if (form := record.at(NOW)) is not None and (None, "in-progress") in form.terms["status"]
        )
        patient_id = stay["subject"]["reference"].partition("/")[2]
        async with session.post(
            f"{emr}/patients/{patient_id}/order",
            data=urlencode({"test": f"{LOINC}|{CBC}", "stay": stay["id"]}),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": emr},
            allow_redirects=False,
        ) as signed:
            assert signed.headers["location"].endswith("said=signed")
        [order] = [one for one in parts.written.resources() if one["resourceType"] == "ServiceRequest"]
        # Over CDS Hooks a packet knows no order's id.
        order_id = order["id"] if way is None else None

        async def label() -> Answered | Unanswered:
            transport = AiohttpTransport(timeout_s=30.0, clock=SystemClock())
            client = FhirClient(
                base=emr + FHIR_ROOT, transport=transport, credentials=NoCredentials(), clock=SystemClock()
            )
            codes = tuple(Code(LOINC, component) for component in rule.components)
            needs = OutcomeNeeds(codes=codes, since=NOW - timedelta(hours=rule.window_hours))
            try:
                found = await FhirOutcomes(client, clock=SystemClock(), zone=UTC).outcomes(patient_id, needs)
            finally:
                await transport.aclose()
            return label_of_results(rule, found.labs, as_of=NOW, order_id=order_id)

        assert await label() is Unanswered.NO_RESULT
        clock.put(NOW + timedelta(hours=rule.window_hours))
        answered = await label()
        assert isinstance(answered, Answered)
        assert answered.value in {0.0, 1.0}
        assert NOW < answered.at <= answered.known_at < NOW + timedelta(hours=12)
        [order] = [one for one in parts.written.resources() if one["resourceType"] == "ServiceRequest"]
        assert order["status"] == "completed"
        async with session.get(f"{emr}/patients/{patient_id}?span=2+days") as chart:
            assert chart.status == 200
