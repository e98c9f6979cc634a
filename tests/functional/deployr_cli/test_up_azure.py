"""`deployr up --azure-like`: the same as `deployr up`, over stand-ins for Azure Cosmos DB and Azure Storage."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from datetime import datetime
from types import SimpleNamespace

import pytest

from deployr_cli.failures import CommandFailed
from deployr_cli.up_azure import missing, running_like_azure
from deployr_core.packet import Scored
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.core.batch_runs import RunState, all_runs
from deployr_serve.store_bootstrap import open_store
from deployr_serve.store_settings import InCosmos

_TRIES = 600

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """Give what it printed, and the variables that it leaves for a shell."""
    if (what := missing()) is not None:
        pytest.skip(what)
    folder = tmp_path_factory.mktemp("azure-like")
    command = [sys.executable, "-m", "deployr_cli.main", "up", "--azure-like", "--port", "0", "--emr-port", "0"]
    command += ["--dash-port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = ""
        try:
            for line in process.stdout:
                said += line
                if "Ctrl-C stops" in line:
                    break
            else:
                pytest.fail(f"it did not start: {said}")
            workspace = folder / ".deployr" / "up"
            lines = (workspace / "env").read_text().splitlines()
            variables = {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}
            yield SimpleNamespace(said=said, workspace=workspace, variables=variables)
        finally:
            process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
        assert (process.returncode, rest.strip()) == (0, "Stopped.")


def posted(up, path, body, key):
    request = urllib.request.Request(
        up.variables["BRIDGE"] + path,
        data=json.dumps(body).encode(),
        headers={"x-functions-key": up.variables[key], "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, answer.read()


def in_cosmos(up, read):
    """Give what a reader gives of the store, which is opened and closed for it."""
    variables = up.variables
    where = InCosmos(
        address=variables["DEPLOYR_STORE"].removeprefix("cosmos:"),
        database=variables["DEPLOYR_STORE_DATABASE"],
        key=variables["DEPLOYR_STORE_KEY"],
        blobs=variables["DEPLOYR_STORE_BLOBS"],
        identity=None,
    )

    async def run():
        store = open_store(where, clock=SystemClock(), deadline_s=60.0)
        try:
            return await read(store)
        finally:
            await store.aclose()

    return asyncio.run(run())


def test_an_order_is_scored_and_its_packet_is_in_the_cosmos_stand_in(up):
    assert re.search(r"^Cosmos DB +http://127\.0\.0\.1:\d+ \(a stand-in\)$", up.said, re.MULTILINE)
    order = json.loads((up.workspace / "order.json").read_text())

    _, answer = posted(up, "/api/models/hematocrit/infer", order, "KEY")

    said = json.loads(answer)
    packet = in_cosmos(up, lambda store: store.read(said["packetId"])).packet
    assert isinstance(packet.outcome, Scored)
    assert (said["status"], said["score"]) == ("scored", packet.outcome.score)
    assert not (up.workspace / "packets.sqlite").exists()


def test_the_batch_goes_over_the_storage_queue_and_scores_everybody_on_its_list(up):
    now = datetime.fromisoformat((up.workspace / "now").read_text())
    status, _ = posted(up, "/admin/functions/batch_ward", {"input": ""}, "MASTER")

    async def ended(store):
        for _ in range(_TRIES):
            runs = await all_runs(store, now=now)
            if runs and runs[0].state not in {RunState.LISTING, RunState.SCORING}:
                return runs[0]
            await SystemClock().sleep(0.1)
        pytest.fail("expected the batch to end within a minute")

    run = in_cosmos(up, ended)
    assert status == 202
    assert (run.state, run.totals) == (RunState.COMPLETE, {"scored": 2 * run.patients})
    assert run.patients > 1


@pytest.mark.skipif(shutil.which("node") is None, reason="expected Node, to leave it out of the path")
def test_without_node_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(CommandFailed, match=r"--azure-like: expected Node 20 or later .* npm ci in tests/emulators"):
        running_like_azure().__enter__()
