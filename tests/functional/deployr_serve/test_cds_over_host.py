"""The routes as the local host serves them from function_app.py: at the root, with 405 and 404 where they belong."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.functional.deployr_serve.cds_parts import validated

APP = Path(__file__).parents[3] / "function_app.py"


@asynccontextmanager
async def hosted(tmp_path, **settings):
    """Run the app in a process of its own, and give its address."""
    arguments = ("--app", str(APP), "--port", "0", "--state", str(tmp_path), "--settings", str(tmp_path / "none.json"))
    (tmp_path / "none.json").write_text('{"IsEncrypted": false, "Values": {}}')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deployr_serve.local_host", *arguments),
        env={**os.environ, **settings},
        cwd=APP.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async for line in process.stdout:
            _, found, rest = line.decode().partition("http://127.0.0.1:")
            if found:
                yield f"http://127.0.0.1:{rest.split()[0].strip('/')}"
                break
    finally:
        process.terminate()
        await process.communicate()


async def test_the_routes_are_served_at_the_root(bundles_folder, tmp_path):
    settings = {
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_STORE": "memory",
        "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:9/fhir",
        # No timer of the app is of interest here.
        "DEPLOYR_RELAY_SCHEDULE": "0 0 0 1 1 *",
    }
    async with hosted(tmp_path, **settings) as base, aiohttp.ClientSession() as session:
        async with session.get(f"{base}/cds-services") as answer:
            assert answer.status == 200
            listed = validated(await answer.json(), "discovery")["services"]
        assert {service["id"] for service in listed} >= {"hematocrit-order-sign", "anemia-order-select"}
        for method, path, status, allowed in (
            ("GET", "/cds-services/hematocrit-order-sign", 405, "POST"),
            ("TRACE", "/cds-services/hematocrit-order-sign", 405, "POST"),
            ("POST", "/cds-services", 405, "GET"),
            ("POST", "/cds-services/nobody-order-sign", 404, None),
            ("GET", "/api/cds-services", 404, None),
        ):
            async with session.request(method, base + path, json={}) as answer:
                assert (method, path, answer.status) == (method, path, status)
                assert allowed is None or allowed in answer.headers["Allow"]
