"""The documentation site, as a reader opens it from disk: whole, found by words, and with nothing from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.dashboard import rules_broken
from tests.browser.devtools import browser

ROOT = Path(__file__).resolve().parents[2]
LOOKED_AT = ("index", "tutorial", "for-integration-engineers", "reference/commands", "reference/deployment")

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="needs deployr[docs]")
    folder: Path = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "tools.site.build", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    return folder


def test_every_page_is_built_and_none_fetches_anything_from_outside(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}

    assert pages <= {page.stem for page in site.glob("*.html")}
    fetched = [
        (file.name, found)
        for file in (*site.rglob("*.html"), *site.rglob("*.css"))
        for found in re.findall(
            r"""(?:<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=|url\(|@import )["']?((?:https?:)?//[^"')\s]+)""",
            file.read_text(encoding="utf-8"),
        )
    ]
    assert fetched == []


async def test_it_is_read_from_disk_wide_and_narrow_dark_and_light(site: Path, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        for name in LOOKED_AT:
            for width, scheme in ((1360, "light"), (400, "dark")):
                await page.size(width, 900)
                await page.scheme(scheme)
                await page.open(f"{(site / name).as_uri()}.html")
                assert await page.js("document.documentElement.scrollWidth <= innerWidth"), name
                assert await rules_broken(page) == [], f"{name}, {width}, {scheme}"


async def test_search_works_from_disk(site: Path, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await page.open(f"{(site / 'search').as_uri()}.html?q=kill+switch")
        await page.until("document.querySelectorAll('#search-results li a').length > 2")
        found = await page.js("[...document.querySelectorAll('#search-results li a')].map((each) => each.innerText)")
        assert "Operating" in found
        assert await rules_broken(page) == []
