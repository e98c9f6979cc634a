"""The README's promises: the two commands are there, and each file and command that it names exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))


def test_readme_shows_both_commands_and_make_knows_them() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^  make {target} ", listed, re.MULTILINE)


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS], ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))

    missing = [link for link in links if "://" not in link and not leads_somewhere(page, link)]

    assert missing == []


def test_every_page_stands_on_the_map() -> None:
    named = re.findall(r"^- \[[^\]]+\]\(([^)#]+\.md)\)", prose(ROOT / "docs" / "index.md"), re.MULTILINE)

    assert sorted([*named, "index.md"]) == [page.name for page in DOCS]


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def prose(page: Path) -> str:
    """Give a page without its listings, in which brackets and # mean other things."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Give what a link may name on a page: its headings, in lower case, hyphens for blanks, without other signs."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
