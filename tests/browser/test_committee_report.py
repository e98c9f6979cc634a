"""The committee's report in a real Chromium: on a desk and a telephone, in light and dark, printed, by keyboard."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deployr_dash.panels.panel import Panel
from deployr_dash.report import Chapter, drawings_of
from deployr_dash.report_html import report_html
from tests.browser.dashboard import rules_broken
from tests.browser.devtools import browser
from tests.browser.test_dashboard import FAINT
from tests.unit.deployr_dash.test_report import chapter, report_of

pytestmark = pytest.mark.slow

TOO_WIDE = """[...document.body.querySelectorAll('*:not(svg *)')]
  .filter((each) => !each.closest('.r-skip'))
  .filter((each) => each.matches('.d-scroll, figure') || !each.closest('.d-scroll, figure'))
  .filter((each) => each.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map((each) => each.tagName + '.' + each.getAttribute('class'))"""
SMALLEST = """Math.min(...[...document.querySelectorAll('svg text')].map((each) =>
  parseFloat(getComputedStyle(each).fontSize) * Math.hypot(each.getScreenCTM().a, each.getScreenCTM().b)))"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the address of a report of two models that are alike."""
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        pytest.skip("needs chromium: apt-get install chromium")
    one = chapter()
    made = report_of(one, again(one))
    drawn = drawings_of(report_of(one))
    twice = {name.replace("model-1", "model-2"): svg.replace("model-1", "model-2") for name, svg in drawn.items()}
    file: Path = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(report_html(made, {**drawn, **twice}), encoding="utf-8")
    return file.as_uri()


def again(one: Chapter) -> Chapter:
    """Give the chapter as a second one."""

    def renamed(panel: Panel) -> Panel:
        figures = tuple(replace(each, name=each.name.replace("model-1", "model-2")) for each in panel.figures)
        return replace(panel, name=panel.name.replace("model-1", "model-2"), figures=figures)

    sections = tuple(replace(each, panels=tuple(map(renamed, each.panels))) for each in one.sections)
    return replace(one, anchor="model-2", title="another", sections=sections)


@pytest.mark.proof
async def test_it_fits_desk_and_telephone_and_can_be_read_in_light_and_dark(address: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        for scheme in ("light", "dark"):
            for width in (1280, 400):
                await page.scheme(scheme)
                await page.size(width, 1000)
                await page.open(address)
                assert await page.js(TOO_WIDE) == []
                assert await page.js("document.documentElement.scrollWidth") == width
                assert await page.js(SMALLEST) >= 9
                assert await page.js(FAINT) == []
                # Each scheme and each width once: going through all the figures takes a quarter of a minute.
                if (scheme, width) in {("light", 1280), ("dark", 400)}:
                    assert await rules_broken(page) == []
        assert await page.js("performance.getEntriesByType('resource').length") == 0
        assert page.complaints == []


async def test_a_screen_reader_is_told_of_figures_tables_and_headings_and_the_keyboard_reaches_them(
    address: str, tmp_path: Path
) -> None:
    async with browser(tmp_path) as page:
        await page.open(address)
        told = await page.names()
        assert any(role in {"image", "img"} and name.startswith("ROC curve") for role, name in told)
        assert ("heading", "Subgroups") in told
        assert any(role == "table" and name == "Performance with 95 % intervals" for role, name in told)
        assert ("navigation", "Contents") in told
        await page.press("Tab")
        assert await page.js("document.activeElement.textContent") == "Skip to the report"
        await page.press("Enter")
        reached = set()
        for _ in range(12):
            await page.press("Tab")
            reached.add(await page.js("document.activeElement.ariaLabel || document.activeElement.textContent"))
        assert any(str(each).startswith("Numbers of") for each in reached)


async def test_printed_it_is_light_and_each_chapter_begins_a_page(address: str, tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf", reason="needs pypdf: deployr[dev] installs it")
    async with browser(tmp_path) as page:
        await page.scheme("dark")
        await page.open(address)
        said = await page.ask("Page.printToPDF", preferCSSPageSize=True)
    file = tmp_path / "printed.pdf"
    file.write_bytes(base64.b64decode(said["data"]))
    texts = [" ".join(each.extract_text().split()) for each in pypdf.PdfReader(file).pages]
    begin = [text.removeprefix(f"{number} / {len(texts)} ") for number, text in enumerate(texts, start=1)]
    assert begin[0].startswith("deployr Monitoring report")
    assert any(text.startswith("hematocrit Predicts") for text in begin)
    assert any(text.startswith("Methods and limits") for text in begin)
    assert not any("Numbers of" in text for text in texts)
