"""Builds the documentation site: docs/ and the reference, as pages that need nothing from outside.

`docs/index.md` is the map: each of its sections is a part of the navigation, each item's first link a page in it.

Run from the repository's root: ``python -m tools.site.build [FOLDER]``.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

from tools.reference import write_reference

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).resolve().parent


def navigation(index: str) -> dict[str, list[str]]:
    """Give the pages of each section of the map: the first link of every item that leads to a page."""
    parts = {}
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        parts[title.strip()] = re.findall(r"^- \[[^\]]*\]\(([\w-]+)\.md\)", text, flags=re.MULTILINE)
    return {title: pages for title, pages in parts.items() if pages}


def gather(pages: Path) -> None:
    """Lay out what the site is made of: the pages, the files outside docs/ that they link to, and the reference."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages)
    for page in pages.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for link in set(re.findall(r"\]\(\.\./([^)#\s]+)\)", text)):
            kept = pages / "files" / link
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / link, kept)
            text = text.replace(f"](../{link})", f"](files/{link})")
        # Drawings stay as they are written: what draws them is a script of some megabytes. A box to tick is a sign.
        page.write_text(text.replace("```mermaid", "```text").replace("- [ ] ", "- ☐ "), encoding="utf-8")
    reference = [f"reference/{name}" for name in write_reference(pages / "reference")]
    index = pages / "index.md"
    text = index.read_text(encoding="utf-8")
    for title, names in {**navigation(text), "Reference": reference}.items():
        text += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(names) + "\n```\n"
    index.write_text(text, encoding="utf-8")


def main(folder: Path) -> int:
    """Build the site into a folder; anything that Sphinx would only warn of fails it."""
    pages = folder.with_name(f"{folder.name}-pages")
    gather(pages)
    shutil.rmtree(folder, ignore_errors=True)
    return build_main(["-b", "html", "-q", "-W", "--keep-going", "-c", str(SITE), str(pages), str(folder)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/site").resolve()))
