"""The report in a real browser: it opens without a fault, fetches nothing, and fits a desk and a telephone."""

from __future__ import annotations

import html
import json
import re
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

WIDTHS = (1280, 400)

# The page runs no script of its own: a page around it, of the same origin, looks in.
PROBE = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe><pre id="found"></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement, found = {{}};
  const scrolls = (each) => each.closest(".scroll") && !each.matches(".scroll");
  const name = (each) => each.tagName + "." + each.getAttribute("class") + ": " + each.textContent.trim().slice(0, 40);
  const inside = [...page.body.querySelectorAll("*:not(svg *)")]
    .filter((each) => !each.closest(".skip") && !scrolls(each));
  found.page_width = root.scrollWidth;
  found.overflowing = inside.filter((each) => each.getBoundingClientRect().right > root.clientWidth + 0.5).map(name);
  const words = [...page.querySelectorAll("svg text")];
  found.cut = words.filter((each) => {{
    const own = each.getBoundingClientRect(), whole = each.ownerSVGElement.getBoundingClientRect();
    return own.left < whole.left - 1 || own.right > whole.right + 1
      || own.top < whole.top - 1 || own.bottom > whole.bottom + 1;
  }}).map((each) => each.textContent);
  found.smallest_text = Math.min(...words.map((each) =>
    parseFloat(frame.contentWindow.getComputedStyle(each).fontSize)
    * Math.hypot(each.getScreenCTM().a, each.getScreenCTM().b)));
  found.scrollable = [...page.querySelectorAll(".scroll")].map((each) => each.tabIndex);
  found.headings = [...page.querySelectorAll("h1, h2")].map((each) => each.textContent);
  found.tables = [...page.querySelectorAll("table")].map((each) => each.caption.textContent);
  found.pictures = [...page.querySelectorAll("svg")].map((each) =>
    [each.querySelector("title")?.textContent, each.querySelector("desc")?.textContent.length, each.clientWidth > 0]);
  const luminance = (colour) => {{
    const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  }};
  found.faint = [...page.body.querySelectorAll("*:not(svg *)"), ...words].filter((each) => {{
    const style = frame.contentWindow.getComputedStyle(each);
    const colour = each.ownerSVGElement ? style.fill : style.color;
    return each.textContent.trim() && 1.05 / (luminance(colour) + 0.05) < 4.5;
  }}).map(name);
  found.fetched = frame.contentWindow.performance.getEntriesByType("resource").map((each) => each.name);
  document.querySelector("#found").textContent = JSON.stringify(found);
}};
</script>"""

Look = Callable[[int], dict[str, Any]]


def laid_out(chromium: Any, report: Path, folder: Path, width: int) -> dict[str, Any]:
    """Lay a page out at a width and give what was found."""
    probe = folder / f"{width}.html"
    page = html.escape(report.read_text(encoding="utf-8"))
    probe.write_text(PROBE.format(width=width, page=page), encoding="utf-8")
    dumped = chromium("--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", probe.as_uri())
    written = re.search(r'<pre id="found">(.+?)</pre>', dumped.stdout, re.DOTALL)
    assert written is not None, dumped.stderr
    found: dict[str, Any] = json.loads(html.unescape(written[1]))
    return found


@pytest.fixture(scope="module")
def look(chromium: Any, report: Path, tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Give a function that lays the report out at a width, once, and gives what was found."""
    folder = tmp_path_factory.mktemp("probe")
    return cache(lambda width: laid_out(chromium, report, folder, width))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_reports_of_other_targets_can_be_read_at_a_desk_and_on_a_telephone(
    chromium: Any, plain_report: Path, tmp_path: Path, width: int
) -> None:
    found = laid_out(chromium, plain_report, tmp_path, width)
    assert (found["overflowing"], found["page_width"]) == ([], width)
    assert (found["cut"], found["faint"], found["fetched"]) == ([], [], [])
    assert found["smallest_text"] >= 9
    assert found["headings"][1] == "What is predicted, and on whom this was measured"
    assert found["pictures"]
    assert all(described > 20 and drawn for _, described, drawn in found["pictures"])
    assert found["tables"]
    assert all(found["tables"])


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_the_page(look: Look, width: int) -> None:
    found = look(width)
    assert found["overflowing"] == []
    assert found["page_width"] == width


@pytest.mark.parametrize("width", WIDTHS)
def test_no_words_of_a_picture_are_cut_off_or_too_small_to_read(look: Look, width: int) -> None:
    found = look(width)
    assert found["cut"] == []
    assert found["smallest_text"] >= 9


@pytest.mark.parametrize("width", WIDTHS)
def test_all_words_have_the_contrast_that_wcag_aa_asks_for(look: Look, width: int) -> None:
    assert look(width)["faint"] == []


def test_the_page_fetches_nothing(look: Look) -> None:
    assert look(1280)["fetched"] == []


def test_the_sections_that_a_committee_asks_for_are_there(look: Look) -> None:
    assert look(1280)["headings"] == [
        "hematocrit",
        "In short",
        "What is predicted, and on whom this was measured",
        "How well it does",
        "At which thresholds",
        "For whom it does well, and for whom not",
        "With how much known about the patient",
        "How the model was made",
        "How these figures were made, and what they do not say",
    ]


def test_every_table_has_a_caption_and_can_be_scrolled_by_keyboard(look: Look) -> None:
    found = look(400)
    assert len(found["tables"]) == 7
    assert all(found["tables"])
    assert found["scrollable"] == [0] * 7


def test_every_picture_is_drawn_and_described(look: Look) -> None:
    pictures = look(400)["pictures"]
    assert [title for title, _, _ in pictures] == [
        "ROC curve",
        "Precision-recall curve",
        "Calibration curve",
        "Spread of the scores",
        "AUROC by sex",
        "AUROC by age",
        "AUROC by race",
        "AUROC by ethnicity",
        "AUROC by number of available features",
    ]
    assert all(described > 20 and drawn for _, described, drawn in pictures)


def test_the_file_itself_opens_without_a_complaint(chromium: Any, report: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    opened = chromium("--window-size=1280,2000", f"--screenshot={picture}", report.as_uri())
    assert "CONSOLE" not in opened.stderr
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1280, 2000)


def test_the_probe_would_find_a_complaint_in_the_console(chromium: Any, tmp_path: Path) -> None:
    page = tmp_path / "faulty.html"
    page.write_text("<!doctype html><title>x</title><script>throw new Error('marked')</script>", encoding="utf-8")
    opened = chromium("--virtual-time-budget=1000", "--dump-dom", page.as_uri())
    assert re.search("CONSOLE.*marked", opened.stderr)
