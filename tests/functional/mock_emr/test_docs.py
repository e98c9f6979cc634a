"""docs/mock-emr.md is true: the mock started as it says answers each of its commands as it says, in their order."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mock_emr.faults import Body, rules_in_yaml
from mock_emr.timeline import KINDS
from tests.functional.test_transcripts import fits, read, transcripts

REPOSITORY = Path(__file__).parents[3]
PAGE = "mock-emr.md"
TEXT = (REPOSITORY / "docs" / PAGE).read_text(encoding="utf-8")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start the mock with the page's own command, on a free port; give the variables of its second shell."""
    (tmp_path / "docs").symlink_to(REPOSITORY / "docs")
    [command] = [command for command, _ in transcripts(PAGE) if "-m mock_emr" in command]
    arguments = shlex.split(command.replace("--port 8090", "--port 0"))[1:]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready, _, url = process.stdout.readline().strip().partition(" ")
            assert ready == "Ready"
            yield {**os.environ, "EMR": url}
        finally:
            process.terminate()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_each_command_of_the_page_says_what_it_says_there(shell: dict[str, str], tmp_path: Path) -> None:
    wrong = []
    for command, shown in transcripts(PAGE):
        if "-m mock_emr" in command:
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=shell, capture_output=True, text=True, timeout=60, check=False
        )
        if not fits(read(shown), read(done.stdout)):
            wrong.append(f"$ {command}\n{done.stdout}{done.stderr}")
    assert not wrong, "\n".join(wrong)


def test_the_page_names_every_kind_of_event_and_every_fault() -> None:
    for name in (*KINDS, *Body.__args__):  # type: ignore[attr-defined]
        assert f"`{name}`" in TEXT, name


def test_the_example_of_a_faults_file_can_be_loaded() -> None:
    rules = rules_in_yaml((REPOSITORY / "docs" / "examples" / "mock-emr" / "faults.yaml").read_text(encoding="utf-8"))
    assert [rule.name for rule in rules] == ["night-outage", "restricted-record", "lost-scores", "slow-results"]
