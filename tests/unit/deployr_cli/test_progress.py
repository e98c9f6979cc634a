"""Progress of long work where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from deployr_cli import progress


def shown(steps: int) -> list[str]:
    file = io.StringIO()
    with progress.bar(Console(file=file, width=120), "Asking") as tell:
        for done in range(1, steps + 1):
            tell(done * 1_000, 3_000)
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_work_that_is_soon_done_takes_one_line() -> None:
    assert [line.split()[:3] for line in shown(3)] == [["✓", "Asking", "3,000"]]


def test_work_that_takes_longer_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SAY_EVERY_S", 0.0)

    said = shown(2)

    assert [line.split()[1 if line.startswith("✓") else 0] for line in said] == ["Asking"] * 3
    assert [line.split()[1] for line in said[:2]] == ["1,000", "2,000"]
    assert all(line.endswith("of 3,000") for line in said[:2])
