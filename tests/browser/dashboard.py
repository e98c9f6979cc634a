"""The dashboard's pages as they are seen."""

from __future__ import annotations

import os
from pathlib import Path

from tests.browser.devtools import Page

SHOT_FOLDER = "DASHBOARD_SCREENSHOTS"
"""Where the pages are saved as PNG, where somebody wants them: docs/screens has some."""
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
"""The rules that pages are held against; `npm ci` in this folder brings it."""


async def seen(page: Page, address: str, *, name: str = "", scheme: str = "light", width: int = 1360) -> str:
    """Open a page, wait until it is whole, and give its words; with a name it is saved where somebody wants that."""
    await page.scheme(scheme)
    await page.size(width, 1000)
    await page.open(address)
    return await whole(page, name=name, width=width)


async def whole(page: Page, *, name: str = "", width: int = 1360) -> str:
    """Wait until the page is whole, and give its words."""
    await page.until("document.querySelector('.d-end, .d-help')")
    await page.until("[...document.images].every((each) => each.complete)")
    # A field's own script is loaded when there is a field; a bar stands in its place until then.
    await page.until("!document.querySelector('[data-testid=stSkeleton]')")
    await page.until(
        "!document.querySelector('[data-testid=stApp][data-test-script-state=running], [data-stale=true]')"
    )
    if name and (folder := os.environ.get(SHOT_FOLDER)):
        tall = "Math.ceil(document.querySelector('[data-testid=stMainBlockContainer]').getBoundingClientRect().height)"
        await page.size(width, min(await page.js(tall), 2400))
        await page.until("[...document.images].every((each) => each.naturalWidth > 0)")
        (Path(folder) / f"dashboard-{name}.png").write_bytes(await page.picture())
    words: str = await page.js("document.querySelector('.stMain').innerText")
    return words


async def rules_broken(page: Page) -> list[str]:
    """Give the rules of accessibility that the page breaks, each with the first place; none where axe-core is not here.

    Source: axe-core's rules of WCAG 2.1 A and AA and its best practices.
    """
    if not AXE.is_file():
        return []
    await page.js(AXE.read_text(encoding="utf-8"))
    found: list[str] = await page.js(
        "axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations.map((rule) =>"
        " `${rule.id}: ${rule.help}: ${rule.nodes[0].target}`))"
    )
    return found
