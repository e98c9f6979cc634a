"""The mock EMR's screens in a real browser: by keyboard and pointer, at a desk and on a telephone, light and dark.

And the whole way of an order: signed on the screen, advised about by a real host, overridden, found in the packet.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from datetime import timedelta

import aiohttp
import pytest

from deployr_serve.adapters.sqlite_store import SqliteStore
from mock_emr.emr import FHIR_ROOT
from mock_emr.faults import rules_in
from mock_emr.scores import Feature, Score
from mock_emr.written import FlowsheetValue, Message
from tests.browser.devtools import browser
from tests.functional.deployr_serve.cds_parts import advise, hosted

pytestmark = pytest.mark.slow

WAYS = ("cds-hooks", "bpa")
CONTROL = """
trial:
  trial_id: t
  version: 1
  unit: patient
  arms: [{name: control, weight: 1, shows: false}, {name: other, weight: 1, shows: false}]
  method: {kind: keyed-hash}
"""
LOGIN = "alerts:a-password-of-some-length"
LOOK = """(() => {
  const found = {}, root = document.documentElement;
  const shown = (each) => each.checkVisibility({ visibilityProperty: true }) && !each.closest(".hidden, .skip");
  const all = [...document.body.querySelectorAll("*")].filter(shown);
  const name = (each) => `${each.tagName}.${each.getAttribute("class")}: ${each.textContent.trim().slice(0, 40)}`;
  const scrolls = (each) => each.parentElement.closest(".scroll, pre, .popover, dialog");
  found.page_width = root.scrollWidth;
  found.overflowing = all.filter((each) => !scrolls(each) && !each.closest("svg, datalist")
    && each.getBoundingClientRect().right > root.clientWidth + 0.5).map(name);
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => rgb(colour).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (each) => {
    for (let at = each; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgb(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const says = (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  found.faint = all.filter((each) => says(each) && !each.closest("svg, datalist")
    && contrast(getComputedStyle(each).color, ground(each)) < 4.5).map(name);
  const pressed = all.filter((each) => each.matches("button, input:not([type=hidden]), select, textarea, .button"));
  found.small = pressed.filter((each) => each.type !== "radio" && each.getBoundingClientRect().height < 24).map(name);
  found.faint_edges = pressed.filter((each) => each.type !== "radio"
    && contrast(getComputedStyle(each).borderTopColor, ground(each.parentElement)) < 3).map(name);
  found.fetched = performance.getEntriesByType("resource").map((each) => new URL(each.name).pathname).sort();
  return found;
})()"""
FOCUS = """(() => {
  const at = document.activeElement, style = getComputedStyle(at);
  return [at.textContent.trim().replace(/\\s+/g, " ") || at.name, style.outlineStyle !== "none" && style.outlineWidth];
})()"""


@pytest.fixture
async def tab(tmp_path):
    """Give the tab of a browser of its own."""
    async with browser(tmp_path / "profile") as page:
        await page.size(1280, 900)
        yield page
        assert page.complaints == []


@pytest.fixture
async def emr(emr_of, chart_of):
    """Give a mock EMR with one patient in hospital, two scores of theirs, and something on every screen."""
    made = await emr_of(*chart_of("p1", "e1", "o1", "42", "lab", value=30.0, birth="1950-03-04"))
    parts, now = made.parts, made.parts.clock.now()
    features = (
        Feature(name="Hemoglobin", contribution="0.81", values=("9.8",)),
        Feature(name="Age", contribution="-0.2", values=("64",)),
    )
    for hours, value in ((6, "25"), (0, "37")):
        score = Score(csn="42", name="HCT", value=value, features=features)
        at = now - timedelta(hours=hours)
        assert parts.scores.file(score, model_id="SHC.HCT_ABNORMAL@1", job_id=value, now=at)
        parts.written.flowsheet.append(
            FlowsheetValue(
                patient_id="p1", csn="42", row_id="90001", value=value, taken_at=at, comment="", written_at=at
            )
        )
    parts.written.messages.append(
        Message(
            message_id="m1",
            patient_id="p1",
            message_type="Staff Message",
            recipients=("pool",),
            lines=("Consider it.",),
            written_at=now,
        )
    )
    parts.faults.add(rules_in(b'[{"route": "Condition", "status": 503, "patient": "p1"}]'))
    return made


@pytest.fixture
async def bridged(emr, bundles_folder, tmp_path):
    """Give a function that starts a host of its own beside the EMR and tells the EMR of it."""
    emr.parts.faults.put(())
    (tmp_path / "clock").write_text(emr.parts.clock.now().isoformat())
    async with AsyncExitStack() as stack:

        async def start(*, way="cds-hooks", mode="live", more=""):
            settings = {
                "DEPLOYR_BUNDLES": str(bundles_folder),
                "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
                "DEPLOYR_EMR_FHIR_BASE": emr.url + FHIR_ROOT,
                "DEPLOYR_CLOCK_FILE": str(tmp_path / "clock"),
                "DEPLOYR_RELAY_SCHEDULE": "0 0 0 1 1 *",
                "DEPLOYR_LABEL_SCHEDULE": "0 0 0 1 1 *",
                "DEPLOYR_BPA_ID_ROOTS": ",".join(f"2.16.840.1.113883.19.{root}=FHIR" for root in (1, 3, 5)),
                "DEPLOYR_BPA_CALLERS": json.dumps(dict([LOGIN.split(":")])),
                **advise(tmp_path, "hematocrit", mode=mode),
            }
            file = tmp_path / "deployments" / "hematocrit.yaml"
            file.write_text(file.read_text() + more)
            address = await stack.enter_async_context(hosted(tmp_path, **settings))
            services = ["hematocrit"] if way == "bpa" else ["hematocrit-order-sign"]
            told = {"address": address, "way": way, "services": services, "login": LOGIN, "wait_s": 20}
            async with aiohttp.ClientSession() as session, session.put(f"{emr.url}/admin/bridge", json=told) as reply:
                assert reply.status == 200, await reply.text()

        yield start


async def walk(tab, steps):
    """Press Tab so often; give what had the focus each time, and whether it showed."""
    found = []
    for _ in range(steps):
        await tab.press("Tab")
        found.append(await tab.js(FOCUS))
    assert all(outline for _, outline in found), found
    return [words for words, _ in found]


async def tab_to(tab, words):
    """Press Tab until something with these words has the focus."""
    for _ in range(60):
        await tab.press("Tab")
        if words in (await tab.js(FOCUS))[0]:
            return
    raise AssertionError(f"expected to reach {words} by keyboard")


async def test_the_patient_list_is_walked_in_the_order_in_which_it_reads(tab, emr):
    await tab.open(f"{emr.url}/patients")
    assert await walk(tab, 13) == [
        "Skip to the content",
        *("Patients", "In Basket", "Operator", "Journal", "Wire"),
        "The clock of this EMR: 2015-01-06 20:55 UTC",
        *("words", "in hospital everybody", "Show"),
        "p1",
        "Hct abnormal: 37 ▲",
        "Order for p1",
    ]


@pytest.mark.parametrize("width", [1280, 400])
async def test_focus_shows_what_a_score_is_made_of_escape_hides_it_and_a_screen_reader_hears_it(tab, emr, width):
    await tab.size(width, 900)
    await tab.open(f"{emr.url}/patients")
    await tab_to(tab, "Hct abnormal")
    await tab.until("document.querySelector('.popover:popover-open')")
    shown = await tab.js("document.querySelector('.popover').innerText")
    for words in ("Hct abnormal", "Up by 12", "Hemoglobin", "9.8", "+0.81", "Age", "−0.20"):
        assert words in shown
    heard = await tab.names()
    assert ("button", "Hct abnormal: 37") in [(role, name.removesuffix(" ▲").strip()) for role, name in heard]
    assert ("image", "Trend. 2 scores, from 25 to 37") in [(r.replace("img", "image"), name) for r, name in heard]
    inside = "(() => { const r = document.querySelector('.popover').getBoundingClientRect(); return r.left >= 0 && "
    inside += "r.top >= 0 && r.right <= innerWidth && r.bottom <= innerHeight; })()"
    assert await tab.js(inside)
    await looked_at(tab, width)
    await tab.press("Escape")
    await tab.until("!document.querySelector('.popover:popover-open')")
    assert (await tab.js(FOCUS))[0].startswith("Hct abnormal")


async def test_the_pointer_shows_it_too_and_may_move_into_it(tab, emr):
    await tab.open(f"{emr.url}/patients")
    await tab.point(".score-button")
    await tab.until("document.querySelector('.popover:popover-open')")
    await tab.point(".popover")
    # Longer than the time in which it would have gone.
    await tab.js("new Promise((done) => setTimeout(done, 400))")
    assert await tab.js("document.querySelector('.popover').matches(':popover-open')")
    await tab.point_away()
    await tab.until("!document.querySelector('.popover:popover-open')")


SCREENS = ("/patients", "/patients/p1", "/patients/p1/order", "/in-basket", "/operator")
SCREENS += ("/operator/journal", "/operator/wire", "/patients/nobody")


async def looked_at(tab, width):
    found = await tab.js(LOOK)
    assert (found["overflowing"], found["page_width"]) == ([], width)
    assert (found["faint"], found["small"], found["faint_edges"]) == ([], [], [])
    assert found["fetched"] == ["/screens/screens.css", "/screens/screens.js"]
    unnamed = [
        role for role, name in await tab.names() if role in {"button", "link", "textbox", "combobox"} and not name
    ]
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
async def test_every_screen_can_be_read_and_used(tab, emr, width, scheme):
    await tab.size(width, 900)
    await tab.scheme(scheme)
    for screen in SCREENS:
        await tab.open(emr.url + screen)
        if screen == "/patients/nobody":
            tab.complaints.clear()  # Chromium notes the 404.
        await looked_at(tab, width)


async def sign_by_keyboard(tab, emr):
    await tab.open(f"{emr.url}/patients")
    await tab_to(tab, "Order for p1")
    await tab.press_and_go()
    await tab_to(tab, "Sign the order")
    await tab.press_and_go()


async def events_in(tmp_path):
    """Give what the one packet's events say: kind, reason, comment."""
    store = SqliteStore(tmp_path / "store.sqlite")
    try:
        [packet] = await store.packets(model_id="hematocrit", after=None, limit=10)
        return [(event.kind.value, event.reason) for event in await store.events(packet.packet_id)]
    finally:
        await store.aclose()


@pytest.mark.parametrize("way", WAYS)
async def test_an_order_is_advised_about_overridden_by_keyboard_and_the_reason_is_in_the_packet(
    tab, emr, bridged, tmp_path, way
):
    await bridged(way=way)
    await sign_by_keyboard(tab, emr)
    assert (await tab.js("location.pathname")).startswith("/advisories/")
    assert await tab.js("document.activeElement.id") == "advisory-title"
    assert ("alertdialog", "Advisory before signing 57021-8, p1") in await tab.names()
    said = await tab.js("document.querySelector('dialog').innerText")
    assert "Repeat of hematocrit is likely normal: 75 %" in said
    # The deployment's words hold a tag: it is shown, and does nothing.
    assert "<img src=x onerror=alert(1)>" in said
    await tab.press("Escape")
    assert await tab.js("document.querySelector('dialog').matches(':modal')")
    await looked_at(tab, 1280)
    while not await tab.js("document.activeElement.matches('input[type=radio]')"):
        await tab.press("Tab")
    await tab.press(" ")
    await tab_to(tab, "Override and sign")
    await tab.press_and_go()
    assert await tab.js("document.querySelector('[role=status]').textContent") == "The order is signed."
    kind = "overridden" if way == "cds-hooks" else "acknowledged"
    assert await events_in(tmp_path) == [("shown", None), (kind, "changed")]
    written = [one["status"] for one in emr.parts.written.resources() if one["resourceType"] == "ServiceRequest"]
    assert written == ["active"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("mode", "more"), [("silent", ""), ("trial", CONTROL)], ids=["silent", "control arm"])
async def test_in_silent_mode_and_in_a_control_arm_nothing_is_shown(tab, emr, bridged, tmp_path, way, mode, more):
    await bridged(way=way, mode=mode, more=more)
    await sign_by_keyboard(tab, emr)
    assert await tab.js("location.pathname") == "/patients/p1"
    assert await tab.js("document.querySelector('[role=status]').textContent") == "The order is signed."
    assert await tab.js("document.querySelector('dialog')") is None
    # It was scored all the same.
    assert await events_in(tmp_path) == []
