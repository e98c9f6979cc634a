"""A model's form in a real browser: on a desk and a telephone, readable, by keyboard, and allowed to fetch nothing."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from deployr_core.codes import LOINC, Code
from deployr_serve.core.form import Field, Form
from deployr_serve.triggers.form_page import HEADERS, Told, render_form

pytestmark = pytest.mark.slow

WIDTHS = (1280, 400)
FORM = Form(
    asks_age=True,
    asks_sex=True,
    fields=tuple(
        Field(
            name=f"test-{place}",
            label=label,
            code=Code(LOINC, str(place)),
            unit=unit,
            is_vital=is_vital,
            low=low,
            high=high,
        )
        for place, (label, unit, is_vital, low, high) in enumerate(
            [
                ("Hemoglobin", "g/dL", False, 2.0, 25.0),
                ("Aspartate aminotransferase, measured with pyridoxal phosphate", "U/L", False, None, None),
                ("Pulse", "/min", True, 10.0, 300.0),
            ]
        )
    ),
)

# The page runs no script of its own: a page around it, of the same origin, looks in.
PROBE = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe><pre id="found"></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement, found = {{}};
  const all = [...page.body.querySelectorAll("*")], shown = (each) => frame.contentWindow.getComputedStyle(each);
  const name = (each) => each.tagName + " " + each.textContent.trim().slice(0, 40);
  found.page_width = root.scrollWidth;
  found.overflowing = all.filter((each) => each.getBoundingClientRect().right > root.clientWidth + 0.5).map(name);
  const luminance = (colour) => {{
    const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  }};
  found.faint = all.filter((each) => 1.05 / (luminance(shown(each).color) + 0.05) < 4.5).map(name);
  const inputs = [...page.querySelectorAll("input, select, button")];
  found.faint_edges = inputs.filter((each) => 1.05 / (luminance(shown(each).borderTopColor) + 0.05) < 3).map(name);
  found.small = inputs.filter((each) => each.getBoundingClientRect().height < 24).map(name);
  found.reached = inputs.filter((each) => {{ each.focus(); return page.activeElement === each; }}).map((e) => e.name);
  found.out_of_turn = inputs.filter((each) => each.tabIndex !== 0).map(name);
  found.unlabelled = inputs.filter((e) => e.tagName !== "BUTTON" && !e.labels.length).map(name);
  found.undescribed = inputs.filter((e) => e.tagName !== "BUTTON" && !(e.getAttribute("aria-describedby") || "none")
    .split(" ").every((id) => page.getElementById(id))).map(name);
  found.styled = shown(page.body).maxWidth;
  found.fetched = frame.contentWindow.performance.getEntriesByType("resource").map((each) => each.name);
  document.querySelector("#found").textContent = JSON.stringify(found);
}};
</script>"""


def page_of(**changes: Any) -> str:
    """Give the page with its policy in it, as a file has no headers; a policy of that kind knows no frame-ancestors."""
    policy = HEADERS["Content-Security-Policy"].replace("; frame-ancestors 'none'", "")
    page = render_form(FORM, model_id="hematocrit", **changes).body.decode()
    told = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return page.replace("<title>", f"{told}<title>", 1)


PAGES = {
    "empty": page_of(),
    "wrong": page_of(
        status=422,
        given={"age": "200", "test-0": "x" * 30},
        problems={"age": "Enter completed years.", "test-0": "Enter a number from 2 to 25, or leave it empty."},
    ),
    "scored": page_of(given={"age": "70"}, told=Told(score="0.75", reasons=("Hemoglobin 9.5 g/dL (raises)",))),
    "abstained": page_of(told=Told(score=None, why_none="The model abstains: out-of-cohort.")),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_the_form_can_be_read_and_filled_in(chromium: Any, tmp_path: Path, page: str, width: int) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width, page=html.escape(PAGES[page])), encoding="utf-8")
    dumped = chromium("--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", probe.as_uri())
    written = re.search(r'<pre id="found">(.+?)</pre>', dumped.stdout, re.DOTALL)
    assert written is not None, dumped.stderr
    found = json.loads(html.unescape(written[1]))
    assert (found["overflowing"], found["page_width"]) == ([], width)
    assert (found["faint"], found["faint_edges"], found["small"]) == ([], [], [])
    assert found["reached"] == ["age", "sex", "test-0", "test-1", "test-2", ""]
    assert (found["out_of_turn"], found["unlabelled"], found["undescribed"]) == ([], [], [])
    assert found["styled"] == "704px"  # its own style passes its own policy
    assert found["fetched"] == []
    assert "CONSOLE" not in dumped.stderr
