"""The tutorial as a person follows it: every command in its order, in one shell, says what the page says."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
MARK = "\x01"

pytestmark = [
    pytest.mark.proof,
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine"),
]


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
        return port


def test_every_command_of_the_tutorial_says_what_it_says_there(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8").replace("../../function_app.py", str(ROOT / "function_app.py"))
    for port in ("8090", "7071"):
        page = page.replace(port, str(free_port()))
    script, shown = ["exec 2>&1", "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"], []
    for name, content, transcript in re.findall(
        r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```|^```console\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE
    ):
        if name:
            script.append(f"cat > {name} <<'END'\n{content}END")
        for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
            command, _, said = part.partition("\n")
            script += [f"printf '\\001'\n{command}"]
            shown.append((command, said))
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1_200,
        check=False,
    )

    came = done.stdout.split(MARK)[1:]
    wrong = [
        f"$ {command}\n{answer}"
        for (command, said), answer in zip(shown, came, strict=True)
        if not fnmatchcase(answer.strip(), re.sub(r"([\[*?])", r"[\1]", said.strip()).replace("…", "*"))
    ]
    assert not wrong, "\n".join(wrong)
