"""A CDS client that is a page: real Chromium calls the services across origins, shows the card and posts feedback."""

from __future__ import annotations

import asyncio
import html
import json
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from deployr_serve.adapters.sqlite_store import SqliteStore
from mock_emr.emr import FHIR_ROOT
from mock_emr.hosting import listening
from tests.functional.deployr_serve.cds_parts import (
    PUBLIC,
    advise,
    draft,
    hosted,
    let_in,
    order_sign,
    signer,
    validated,
)

pytestmark = pytest.mark.slow

PAGE = Path(__file__).with_name("cds_client.html").read_text(encoding="utf-8")
SERVICE = "hematocrit-order-sign"


@pytest.fixture
async def browse(chromium, emr_of, chart_of, bundles_folder, tmp_path):
    """Give a function that has Chromium open the page while the app runs, and gives what the page found."""
    emr = await emr_of(*chart_of("p1", "e1", "o1", "42", "lab", value=30.0, birth="1950-03-04"))
    (tmp_path / "clock").write_text("2015-01-06T20:55:00+00:00")
    settings = {
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_EMR_FHIR_BASE": emr.url + FHIR_ROOT,
        "DEPLOYR_CLOCK_FILE": str(tmp_path / "clock"),
        "DEPLOYR_RELAY_SCHEDULE": "0 0 0 1 1 *",
        "DEPLOYR_LABEL_SCHEDULE": "0 0 0 1 1 *",
        **let_in(tmp_path),
        **advise(tmp_path, "hematocrit"),
    }

    async def run(*, allowed=True):
        now, base = datetime.now(UTC), f"{PUBLIC}/cds-services"
        audiences = {
            "discovery": base,
            "service": f"{base}/{SERVICE}",
            "feedback": f"{base}/{SERVICE}/feedback",
            "malformed": f"{base}/{SERVICE}",
            "nowhere": f"{base}/nobody-order-sign",
        }
        asked = {
            "service": SERVICE,
            "at": now.isoformat(),
            "tokens": {name: signer().token(audience=each, now=now) for name, each in audiences.items()},
            "call": {"hook": "order-sign", "hookInstance": str(uuid.uuid4()), "context": order_sign(draft())},
        }

        async def page(_):
            return HTMLResponse(PAGE.replace("ASKED", json.dumps(asked)))

        async with listening(lambda _: Starlette(routes=[Route("/", page)])) as origin:
            named = origin if allowed else "https://elsewhere.example"
            async with hosted(tmp_path, host={"CORS": named}, **settings) as asked["base"]:
                dumped = await asyncio.to_thread(chromium, "--virtual-time-budget=20000", "--dump-dom", origin)
        written = re.search(r'<pre id="found">(.+?)</pre>', dumped.stdout, re.DOTALL)
        assert written is not None, dumped.stderr
        return json.loads(html.unescape(written[1]))

    return run


async def events_in(tmp_path):
    store = SqliteStore(tmp_path / "store.sqlite")
    try:
        [packet] = await store.packets(model_id="hematocrit", after=None, limit=10)
        return [(event.kind.value, event.reason) for event in await store.events(packet.packet_id)]
    finally:
        await store.aclose()


async def test_a_page_of_a_configured_origin_discovers_calls_shows_reports_and_can_read_errors(browse, tmp_path):
    found = await browse()
    assert [found[name]["status"] for name in ("discovery", "cards", "feedback")] == [200, 200, 200]
    validated(found["discovery"]["content"], "discovery")
    [card] = validated(found["cards"]["content"], "response")["cards"]
    assert card["summary"] in found["shown"]
    for text in ("Do not repeat it", "Laboratory stewardship", "The patient's state has changed"):
        assert text in found["shown"]
    # The deployment's words hold a tag: it is shown, and does nothing.
    assert found["script"] is None
    assert await events_in(tmp_path) == [("shown", None), ("overridden", "changed")]
    # A token is good for one call; what is refused is an answer too, and no network error.
    assert (found["replayed"]["status"], found["replayed"]["content"]) == (401, None)
    assert (found["malformed"]["status"], found["nowhere"]["status"]) == (400, 404)
    assert found["malformed"]["content"]["resourceType"] == found["nowhere"]["content"]["resourceType"]


async def test_a_page_of_any_other_origin_is_kept_from_all_of_it(browse, tmp_path):
    found = await browse(allowed=False)
    blocked = {"blocked": "TypeError"}
    assert [found[name] for name in ("discovery", "cards", "malformed", "nowhere")] == [blocked] * 4
    assert found["shown"] == ""
    store = SqliteStore(tmp_path / "store.sqlite")
    try:
        assert await store.packets(model_id="hematocrit", after=None, limit=10) == ()
    finally:
        await store.aclose()
