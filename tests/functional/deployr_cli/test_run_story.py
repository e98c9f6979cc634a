"""The whole story, by the commands that people type: A is trained, approved and deployed; B is trained, scores in A's
shadow, is compared, approved and takes over while requests run; and A comes back.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from deployr_cli.asking import json_request
from deployr_cli.demo.events import OrderSigned, orders_signed, start_of_replay
from deployr_cli.demo.making import synthetic_hospital
from deployr_cli.demo.processes import Running, running, store_file
from deployr_cli.demo.replay import Driver
from deployr_cli.main import app
from deployr_core.packet import Scored
from deployr_core.registry.comparison import Rows, parse_comparison
from deployr_core.registry.run import COMPARISON_FILE, Run, parse_run
from deployr_dash.views import manifests_of
from deployr_dev.cohorts.tasks import shipped_task
from deployr_serve.adapters.models import LOOKS_AGAIN_S
from deployr_serve.adapters.sqlite_store import SqliteStore
from deployr_serve.core.decide import Why
from deployr_serve.core.registry_showing import HOLD_S
from deployr_serve.core.shadow import CHANNEL
from mock_emr.population.config import PopulationConfig

TASK = "hematocrit"
KEY = "0123456789abcdef0123456789abcdef"
WINDOW = timedelta(hours=73)


class Site:
    """A site's folders, its settings, and the command line with them."""

    def __init__(self, folder: Path, *, now: datetime) -> None:
        self.folder = folder
        self.bundles, self.shelf, self.deployments = (folder / name for name in ("bundles", "shelf", "deployments"))
        for each in (self.bundles, self.shelf, self.deployments):
            each.mkdir(parents=True)
        self.clock_file = folder / "now"
        self.clock_file.write_text(now.isoformat(), encoding="ascii")
        self.deployr("bundle", "keygen", str(folder / "site.pem"))
        self.settings = {
            "DEPLOYR_PROFILE": "dev",
            "DEPLOYR_SITE": "demo",
            "DEPLOYR_ENVIRONMENT": "DEMO",
            "DEPLOYR_BUNDLES": str(self.bundles),
            "DEPLOYR_BUNDLE_ARCHIVE": str(self.shelf),
            "DEPLOYR_DEPLOYMENTS": str(self.deployments),
            "DEPLOYR_TRUSTED_KEYS": str(folder / "site.pub.pem"),
            "DEPLOYR_REGISTRY": "required",
            "DEPLOYR_STORE": f"sqlite:{store_file(folder)}",
            "DEPLOYR_ID_KEY": KEY,
            "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:1/api/FHIR/R4",
            "DEPLOYR_CLOCK_FILE": str(self.clock_file),
        }
        self.file = folder / "site.settings.json"
        self.file.write_text(json.dumps({"IsEncrypted": False, "Values": self.settings}))
        self.deployr("store", "init", "--settings", str(self.file))

    def deployr(self, *arguments: str) -> str:
        """Run a command as it is typed; give what it said."""
        done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    def models(self, *arguments: str, by: str) -> str:
        return self.deployr("models", *arguments, "--by", by, "--settings", str(self.file))

    def trained(self, config: dict[str, object], *, by: str) -> tuple[Run, Path]:
        """Train a config, sign what came of it, and register it; give the run and its folder."""
        file = self.folder / f"{by}.yaml"
        file.write_text(yaml.safe_dump({"schema_version": 1, "task": TASK, **config}))
        runs = self.folder / by
        self.deployr(
            "run", str(file), "--source", str(self.folder / "hospital" / "omop"), "--out", str(runs), "--by", by
        )
        [folder] = runs.iterdir()
        self.deployr("bundle", "sign", str(folder / "bundle"), "--key", str(self.folder / "site.pem"))
        self.models("register", str(folder), by=by)
        return parse_run((folder / "run.json").read_bytes()), folder


async def replayed(site: Site, processes: Running, events: Sequence[OrderSigned]) -> Counter[int]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        driver = Driver(processes, site.clock_file, session)
        return (await driver.replay(events, model_id=TASK, tell=lambda _done, _of: None)).statuses


async def labelled(site: Site, processes: Running, *, now: datetime) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        driver = Driver(processes, site.clock_file, session)
        await driver.set_time(now)
        await driver.fire("extract_labels")


async def answering(site: Site, processes: Running, event: OrderSigned, *, wanted: str) -> int:
    """Ask about one order again and again until this bundle answers; give how often that was."""
    store = SqliteStore(store_file(site.folder))
    url, headers = f"{processes.host}/api/models/{TASK}/infer", {"x-functions-key": processes.function_key}
    try:
        async with aiohttp.ClientSession() as session:
            for number in range(1, 2_000):
                body = {**json_request(event), "idempotencyKey": f"{wanted[:8]}-{number}"}
                async with session.post(url, json=body, headers=headers) as response:
                    assert response.status == 200, "a request failed while bundles were swapped"
                    packet_id = response.headers["X-Packet-Id"]
                held = await store.read(packet_id)
                assert held is not None
                if held.packet.model.bundle_sha256 == wanted:
                    return number
    finally:
        await store.aclose()
    raise AssertionError("expected the other bundle to answer")


async def both(
    site: Site, processes: Running, events: Sequence[OrderSigned], again: OrderSigned, run: Run
) -> tuple[Counter[int], int]:
    """Replay orders, and ask about another one until the run's bundle answers, at the same time."""
    return await asyncio.gather(
        replayed(site, processes, events), answering(site, processes, again, wanted=run.bundle_sha256)
    )


async def packets_of(site: Site, model: str) -> list:
    store = SqliteStore(store_file(site.folder))
    try:
        return list(await store.packets(model_id=model, after=None, limit=100_000))
    finally:
        await store.aclose()


@pytest.mark.proof
def test_from_run_to_champion_in_the_shadow_of_another_and_back(tmp_path: Path) -> None:
    synthetic_hospital(
        tmp_path / "hospital", console=Console(quiet=True), config=PopulationConfig(patients=250, weeks=8)
    )
    events = orders_signed(tmp_path / "hospital" / "fhir", panels=shipped_task(TASK).panels)
    before = start_of_replay(events)
    site = Site(tmp_path, now=before)
    small = {"labels": {"known_before": before.isoformat()}, "evidence": {"patients": 10, "positives": 5}}

    a, a_folder = site.trained({**small, "estimator": {"parameters": {"n_estimators": 20}}}, by="ada")
    refused = CliRunner().invoke(
        app, ["models", "approve", TASK, a.run_id, "--why", "mine", "--by", "ada", "--settings", str(site.file)]
    )
    assert refused.exit_code != 0
    site.models("approve", TASK, a.run_id, "--why", "the first one", by="grace")
    site.models("deploy", TASK, a.run_id, by="ada")

    b, b_folder = site.trained({**small, "seed": 1, "estimator": {"parameters": {"n_estimators": 40}}}, by="bob")
    policy = {"schema_version": 1, "model": TASK, "mode": "live", "threshold": 0.6, "shadows": [b.run_id]}
    (site.deployments / f"{TASK}.yaml").write_text(yaml.safe_dump(policy))

    asked = [event for event in events if event.signed_at >= before]
    first = asked[: len(asked) // 3]
    ripe = first[-1].signed_at + WINDOW
    rest = [event for event in asked if event.signed_at > ripe]
    assert min(len(first), len(rest)) > 50
    with running(
        workspace=tmp_path,
        fhir=tmp_path / "hospital" / "fhir",
        bundles=site.bundles,
        now=before,
        clock_file=site.clock_file,
        settings={name: site.settings[name] for name in site.settings if "FHIR" not in name},
    ) as processes:
        statuses = asyncio.run(replayed(site, processes, first))
        assert statuses == {200: len(first)}
        asyncio.run(labelled(site, processes, now=ripe))

        # Every answer of the champion has its shadow's beside it: about the same instant, silent, from the same facts.
        champions = {each.packet_id: each for each in asyncio.run(packets_of(site, TASK))}
        shadows = asyncio.run(packets_of(site, b.run_id))
        assert {each.shadow_of for each in shadows} == set(champions)
        assert {each.model.bundle_sha256 for each in shadows} == {b.bundle_sha256}
        assert {each.trigger.channel for each in shadows} == {CHANNEL}
        assert {each.outcome.decision.why for each in shadows if isinstance(each.outcome, Scored)} == {Why.SILENT}
        assert all(each.as_of == champions[each.shadow_of].as_of for each in shadows)
        assert sum(len(each.fetches) for each in shadows) == 0

        # What speaks for B: on held-out rows, and on what both were asked.
        source = str(tmp_path / "hospital" / "omop")
        site.deployr("run", "compare", str(a_folder), str(b_folder), "--source", source, "--threshold", "0.6")
        held_out = parse_comparison((b_folder / COMPARISON_FILE).read_bytes())
        assert (held_out.rows_are, held_out.champion.name) == (Rows.HELD_OUT, a.run_id)
        extract = str(tmp_path / "monitor")
        site.deployr("monitor", "extract", extract, "--settings", str(site.file))
        assert set(manifests_of(Path(extract))) == {TASK, b.run_id}
        site.deployr("run", "compare-live", TASK, b.run_id, extract, "--settings", str(site.file))
        live = parse_comparison((site.shelf / TASK / b.run_id / COMPARISON_FILE).read_bytes())
        assert (live.rows_are, live.champion.name, live.challenger.name) == (Rows.LIVE, a.run_id, b.run_id)
        assert (live.unpaired_rows, live.threshold) == (0, 0.6)
        assert 0 < live.rows <= len(first)
        site.models("compare", TASK, b.run_id, "--record", by="bob")
        site.models("approve", TASK, b.run_id, "--why", "as good, and newer", by="grace")

        # B takes over while requests run, and none of them fails.
        past = first[-1]
        under_load: list[tuple[Counter[int], int]] = []
        load = threading.Thread(target=lambda: under_load.append(asyncio.run(both(site, processes, rest, past, b))))
        load.start()
        site.models("deploy", TASK, b.run_id, by="bob")
        load.join()
        [(statuses, tries)] = under_load
        assert statuses == {200: len(rest)}
        assert tries >= 1

        # Both waits of a worker lie within 5 s; here it is only shown that A comes back.
        site.models("rollback", TASK, "--why", "to show it", by="grace")
        assert LOOKS_AGAIN_S + HOLD_S <= 5.0
        asyncio.run(answering(site, processes, past, wanted=a.bundle_sha256))
    said = site.deployr("models", "verify", TASK, "--settings", str(site.file))
    assert TASK in said
