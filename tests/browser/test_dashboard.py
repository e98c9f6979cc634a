"""The dashboard in a real Chromium: every page is looked at, by eye, by keyboard and as a screen reader is told."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import pytest

from deployr_dash.parts import INDEX_FILE
from deployr_dash.references import reference_file
from deployr_serve.adapters.sqlite_store import SqliteStore
from tests.browser.dashboard import AXE, rules_broken, seen
from tests.browser.devtools import browser
from tests.browser.naming_proxy import naming_proxy
from tests.dashboard_process import serving
from tests.registry_site import RegistrySite
from tests.unit.deployr_dash.made_up import DIGEST, packets, write_extract

pytest.importorskip("streamlit", reason="needs streamlit: deployr[dash] installs it")
pytestmark = pytest.mark.slow

PLAN = """model: hematocrit
watched:
  - metric: AUROC, prospective beside retrospective
    cadence: monthly
    owner: Clinical AI team
    action: Below the retrospective interval twice in a row, pause the advisory and call the committee.
    panel: performance
utilities: {true_positive: 30, false_positive: -5, false_negative: 0, true_negative: 0, unit: minutes}
trial: {begins: 2015-02-15, units: 1200, units_per_day: 10, detectable: 0.08}
"""
WINDOW = "from=2015-02-15&to=2015-03-31"
CAPTIONED = """[...document.querySelectorAll('.stMain img')].filter((each) => (each.alt || '').length < 20).length
 + [...document.querySelectorAll('.d-table')]
     .filter((each) => !each.caption || !each.querySelector('th[scope]')).length"""
FAINT = """(() => {
  const parts = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const paper = (each) => { for (let at = each; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if ((parts(colour)[3] ?? 1) > 0) return colour;
  } return 'rgb(255,255,255)'; };
  return [...document.querySelectorAll('[class^="d-"], [class^="d-"] *')].filter((each) => {
    if (![...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) return false;
    const both = [light(getComputedStyle(each).color), light(paper(each))];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05) < 4.5;
  }).map((each) => each.textContent.slice(0, 40));
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, bundle_files: Mapping[str, bytes]) -> RegistrySite:
    """Give a site with a registry, whose champion of one of the models has a shadow."""
    made = RegistrySite(tmp_path_factory.mktemp("dashboard"), bundle_files)
    asyncio.run(made.write())
    return made


@pytest.fixture(scope="module")
def address(site: RegistrySite) -> Iterator[str]:
    """Give the address of a dashboard over three models and a shadow."""
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        pytest.skip("needs chromium: apt-get install chromium")
    folder, served = site.folder, packets(3000).assign(bundle_sha256=site.champion.bundle_sha256)
    write_extract(
        folder / "extract",
        served,
        site.shadow_of(served.iloc[-150:]),
        packets(1800, model_id="potassium", seed=5, trial=False),
        packets(400, model_id="magnesium", seed=9, days=60, trial=False),
    )
    (folder / "plans" / "hematocrit").mkdir(parents=True)
    (folder / "plans" / "hematocrit" / "monitoring_plan.yaml").write_text(PLAN, encoding="utf-8")
    with serving(Path("extract"), "--plans=plans", "--settings=local.settings.json", folder=folder) as found:
        yield found


IMPACT = (
    "Usefulness",
    "minutes a packet",
    "Effect, as assigned",
    "planned information",
    "planned units",
    "Monitoring plan",
)
PAGES = {
    "models": ("", ("4 models", "hematocrit", "silent for", "held-out rows")),
    "integrity": (f"model?model=hematocrit&tab=integrity&{WINDOW}", ("Volume", "Latency", "Drift", "Single packets")),
    "performance": (f"model?model=hematocrit&{WINDOW}", ("Prospective beside", "Subgroups", "Missing labels")),
    "impact": (f"model?model=hematocrit&tab=impact&{WINDOW}", IMPACT),
    "packet": (f"packet?id=p{2999:031x}", ("Timeline", "sex/female", "deployr replay")),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
async def test_every_page_is_whole_readable_and_described(address: str, tmp_path: Path, name: str, scheme: str) -> None:
    where, expected = PAGES[name]
    async with browser(tmp_path) as page:
        words = await seen(page, f"{address}{where}", name=f"{name}-{scheme}", scheme=scheme)
        assert [each for each in expected if each not in words] == []
        assert "Traceback" not in words
        assert await page.js(CAPTIONED) == 0
        assert await page.js(FAINT) == []
        assert await page.js("document.querySelectorAll('h1').length") == 1
        assert await rules_broken(page) == []


REGISTRY = {
    "registry": ("registry", ("3 models, 2 runs waiting", "entry 2: expected", "for approval", "champion, last")),
    "registry-model": ("registry?model=hematocrit", ("approved by grace", "a rollback brings it back", "Roll back")),
    "run": (
        "run?model=hematocrit&run={run}",
        ("8 rows of 8 patients", "signed by the site’s key", "No go", "CHAI", "own-run"),
    ),
    "compare": ("compare?model=hematocrit", ("better by 0.024", "65 and over", "as a shadow")),
    "history": ("history?model=hematocrit", ("The chain of digests holds", "in place of", "Trained on the wrong")),
    "broken": ("history?model=magnesium", ("The journal is not what was written", "2 not to be trusted")),
    "approve": (
        "decide?model=hematocrit&run={run}&deed=approve",
        ("approver, but not ada or dev", "compared with the champion", "deployr models approve hematocrit", "Reason"),
    ),
}
MISSING = {
    "registry?model=troponin": "Models with a journal: hematocrit, magnesium, potassium.",
    "run?model=hematocrit&run=hematocrit-0": "No such run in this journal",
    "compare?model=potassium": "There is no champion to compare with",
    "compare?model=hematocrit&run={champion}": "{challenger} (challenger) beside the champion",
    "decide?model=hematocrit&run={champion}&deed=approve": "This cannot be done now",
    "run?model=potassium&run={first}": "not signed by anybody whom this site trusts",
}


IN_DARK = ("registry", "compare", "approve")
"""These hold everything that the others are made of."""


async def test_every_page_of_the_registry_is_whole_readable_and_described(
    address: str, site: RegistrySite, tmp_path: Path
) -> None:
    async with browser(tmp_path) as page:
        for name, (where, expected) in REGISTRY.items():
            at = f"{address}{where.format(run=site.challenger.run_id)}"
            words = await seen(page, at, name=f"{name}-light")
            assert [each for each in expected if each not in words] == [], name
            assert "Traceback" not in words
            assert await page.js(CAPTIONED) == 0
            assert await page.js("document.querySelectorAll('h1').length") == 1
            assert await page.js(FAINT) == []
            assert await rules_broken(page) == [], name
            if name in IN_DARK:
                await seen(page, at, name=f"{name}-dark", scheme="dark")
                assert await page.js(FAINT) == [], name


async def test_the_registry_helps_where_it_has_little_puts_a_reason_into_the_command_and_saves_papers(
    address: str, site: RegistrySite, tmp_path: Path
) -> None:
    run, saved = site.challenger.run_id, tmp_path / "saved"
    saved.mkdir()
    runs = {"champion": site.champion.run_id, "challenger": run, "first": site.first.run_id}
    async with browser(tmp_path / "profile") as page:
        for where, expected in MISSING.items():
            assert expected.format(**runs) in await seen(page, f"{address}{where.format(**runs)}"), where

        await seen(page, f"{address}decide?model=hematocrit&run={run}&deed=reject", width=420)
        assert await page.js("document.documentElement.scrollWidth") == 420
        assert await rules_broken(page) == []
        reached = set()
        while not await page.js("document.activeElement.tagName === 'TEXTAREA'"):
            await page.press("Tab")
            reached.add(await page.js("document.activeElement.textContent.slice(0, 30)"))
        assert {"Registry", "History", run} <= reached
        await page.write("it's too old")
        await page.press("Tab")
        await page.until("document.querySelector('.stCode').innerText.includes(`--why 'it'\"'\"'s too old'`)")

        await seen(page, f"{address}run?model=hematocrit&run={run}")
        await page.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(saved))
        button = (
            "[...document.querySelectorAll('button')].find((each) => each.innerText.trim().startsWith('Model card'))"
        )
        await page.js(f"{button}.click()")
        file = saved / f"{run}.html"
        for _ in range(300):
            if file.is_file():
                break
            await page.js("new Promise((done) => setTimeout(done, 50))")
        assert file.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm ci in tests/browser")
async def test_a_rule_that_is_broken_is_found(tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await page.open("data:text/html,<html lang=en><title>T</title><main><h1>T</h1><img src=x></main>")
        [found] = await rules_broken(page)
        assert found.startswith("image-alt: ")


async def test_a_telephone_can_read_a_page_without_scrolling_it_sideways(address: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await seen(page, f"{address}{PAGES['performance'][0]}", name="telephone", width=420, scheme="dark")
        assert await page.js("document.documentElement.scrollWidth") == 420
        assert await rules_broken(page) == []


async def test_a_screen_reader_is_told_what_every_figure_shows(address: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await seen(page, f"{address}{PAGES['performance'][0]}")
        told = await page.names()
        pictures = [name for role, name in told if role in {"image", "img"}]
        assert any(name.startswith("ROC curve. Area under the curve 0.") for name in pictures)
        assert ("heading", "Subgroups") in told
        assert any(role == "table" and name == "Performance with 95 % intervals" for role, name in told)


async def test_tabs_and_tables_are_reached_by_keyboard(address: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await seen(page, f"{address}{PAGES['performance'][0]}")
        reached = set()
        for _ in range(40):
            await page.press("Tab")
            reached.add(
                await page.js("document.activeElement.textContent.slice(0, 30) || document.activeElement.ariaLabel")
            )
        assert {"System integrity", "Impact", "All models"} <= reached
        assert any(str(each).startswith("Numbers of") for each in reached)


async def test_the_filters_stand_in_the_address_and_come_from_it(address: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        women = await seen(
            page, f"{address}model?model=hematocrit&tab=integrity&sex=female&version=3d4e5f&labels=all&{WINDOW}"
        )
        everybody = await seen(page, f"{address}model?model=hematocrit&tab=integrity&{WINDOW}")
        assert women.split("packets:")[0] != everybody.split("packets:")[0]
        await page.until("location.search.includes('tab=integrity')")
        link = await page.js("document.querySelector('.d-tabs a').getAttribute('href')")
        assert "from=2015-02-15" in link


async def test_the_panel_that_an_alert_leads_to_stands_first(address: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await seen(page, f"{address}model?model=hematocrit&panel=calibration&{WINDOW}")
        assert await page.js("document.querySelector('.d-panel h2').textContent") == "Calibration"


async def test_figures_are_saved_as_png_svg_and_csv(address: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await seen(page, f"{address}model?model=hematocrit&panel=calibration&{WINDOW}")
        saved = tmp_path / "saved"
        saved.mkdir()
        await page.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(saved))
        await page.js("document.querySelector('[data-testid=stPopover] button').click()")
        begins = {"png": b"\x89PNG", "svg": b"<svg", "csv": b"series,What the model said"}
        for kind, beginning in begins.items():
            button = (
                f"[...document.querySelectorAll('button')].find((each) => each.innerText.trim() === '{kind.upper()}')"
            )
            await page.until(button)
            await page.js(f"{button}.click()")
            file = saved / f"calibration.{kind}"
            for _ in range(300):
                if file.is_file():
                    break
                await page.js("new Promise((done) => setTimeout(done, 50))")
            assert file.read_bytes().startswith(beginning)


async def test_nothing_is_reported_to_anybody(address: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await seen(page, address)
        hosts = await page.js(
            "[...new Set(performance.getEntriesByType('resource').map((each) => new URL(each.name).host))].join(' ')"
        )
        assert [host for host in hosts.split() if not host.startswith("127.0.0.1")] == []


def one_class(season: pd.DataFrame) -> pd.DataFrame:
    """Give packets of which every label says the same."""
    labels = season["label_value"]
    return season.assign(label_value=labels.where(labels.isna(), 1.0))


def of_an_older_version(folder: Path) -> None:
    """Make the extract one that an earlier version of deployr wrote."""
    index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    (folder / INDEX_FILE).write_text(json.dumps({**index, "layout": 0}), encoding="utf-8")


async def test_where_there_is_little_or_nothing_a_page_helps(tmp_path: Path) -> None:
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        pytest.skip("needs chromium: apt-get install chromium")
    folder, settings = tmp_path / "extract", tmp_path / "settings.json"
    settings.write_text(json.dumps({"IsEncrypted": False, "Values": settings_of(tmp_path)}), encoding="utf-8")
    integrity, one = "model?model=hematocrit&tab=integrity", f"packet?id=p{0:031x}"
    states: tuple[tuple[str, tuple[pd.DataFrame, ...] | None, str, str], ...] = (
        ("missing", None, "", "There is no extract yet"),
        ("empty", (), "", "No packets yet"),
        ("one-packet", (packets(1),), integrity, "1 packet: 1 scored"),
        (
            "one-packet-performance",
            (packets(1),),
            "model?model=hematocrit",
            "expected rows of both classes",
        ),
        ("one-packet-impact", (packets(1),), "model?model=hematocrit&tab=impact", "Nothing to show here yet"),
        ("one-class", (one_class(packets(300)),), "model?model=hematocrit", "all of them with the outcome"),
        ("store-down", (packets(300),), one, "The store does not answer"),
        ("no-such-packet", (packets(300),), "packet?id=p1", "No such packet"),
        ("no-such-model", (packets(300),), "model?model=troponin", "No such model"),
        ("other-days", (packets(300),), f"{integrity}&from=2014-01-01&to=2014-01-31", "No packets here"),
        ("registry-down", (packets(1),), "registry", "The registry cannot be read"),
        ("registry-empty", (packets(1),), "registry", "No model is in the registry yet"),
        ("bad-reference", (packets(300),), integrity, "deployr monitor reference hematocrit"),
        ("bad-plan", (packets(300),), "model?model=hematocrit", "hematocrit/monitoring_plan.yaml: "),
        ("older", (packets(1),), "", "The extract cannot be used"),
    )
    async with browser(tmp_path / "profile") as page:
        plan = tmp_path / "plans" / "hematocrit" / "monitoring_plan.yaml"
        plan.parent.mkdir(parents=True)
        with serving(folder, "--settings", str(settings), "--plans", str(tmp_path / "plans")) as at:
            for generation, (name, frames, where, expected) in enumerate(states, start=1):
                if frames is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    write_extract(folder, *frames, generation=generation)
                if name == "bad-reference":
                    reference_file(folder, DIGEST).parent.mkdir()
                    reference_file(folder, DIGEST).write_bytes(b"{")
                if name == "bad-plan":
                    plan.write_text("modle: hematocrit\n", encoding="utf-8")
                if name == "registry-empty":
                    await empty_store(tmp_path / "gone")
                if name == "older":
                    of_an_older_version(folder)
                words = await seen(page, f"{at}{where}", name=f"little-{name}")
                assert expected in words, name
                assert "Traceback" not in words
                assert await page.js("document.querySelectorAll('[role=dialog]').length") == 0
                assert await page.js("document.querySelectorAll('h1').length") == 1


async def empty_store(folder: Path) -> None:
    """Make the store that was not there."""
    store = SqliteStore(folder / "store.sqlite")
    await store.init()
    await store.aclose()


def settings_of(folder: Path) -> dict[str, str]:
    """Give the settings of a site whose store is not there."""
    for name in ("bundles", "gone"):
        (folder / name).mkdir()
    return {
        "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:9/fhir",
        "DEPLOYR_BUNDLES": str(folder / "bundles"),
        "DEPLOYR_STORE": f"sqlite:{folder / 'gone' / 'store.sqlite'}",
        "DEPLOYR_ID_KEY": "k" * 32,
    }


async def test_whoever_the_proxy_does_not_name_sees_nothing(tmp_path: Path) -> None:
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        pytest.skip("needs chromium: apt-get install chromium")
    write_extract(tmp_path / "extract", packets(50))
    with serving(tmp_path / "extract", "--sign-in=proxy", DEPLOYR_PROFILE="prod") as at:
        async with naming_proxy(at) as proxy, browser(tmp_path / "profile") as page:
            refused = await seen(page, proxy.address)
            assert "The proxy did not say who you are" in refused
            assert "hematocrit" not in refused
            proxy.named = "ada"
            words = await seen(page, proxy.address)
            assert "hematocrit" in words
            assert "ada" in words
            assert "deployr dash --settings" in await seen(page, f"{proxy.address}registry")


def test_in_production_it_does_not_start_without_a_sign_in(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from deployr_cli.main import run; run()", "dash", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "DEPLOYR_PROFILE": "prod"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "--sign-in proxy or --sign-in entra" in " ".join((done.stdout + done.stderr).split())
