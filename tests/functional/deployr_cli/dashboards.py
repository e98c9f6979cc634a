"""What demo and trial leave for the dashboard."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from deployr_dash.loading import load_frame, load_models

STARTED = "Uvicorn server started"


def expect_dashboard(printed: str, workspace: Path, *, models: int, packets: int) -> None:
    """Expect an extract with labels, versions and retrospective figures, and a command that opens it as printed."""
    if find_spec("streamlit") is None:
        assert "deployr dash" not in printed
        return
    folder = workspace / "monitor"
    frame = load_frame(folder, columns=("version", "label_kind", "label_ripe_at", "sex", "latency_ms", "mode"))
    assert len(frame) == packets
    assert frame["label_kind"].isin(["observed", "censored"]).all()
    assert frame["label_ripe_at"].notna().all()
    assert frame["sex"].notna().all()
    # The clock was moved: no instants tell how long anything took.
    assert frame["latency_ms"].isna().all()
    known = load_models(folder)
    assert len(known) == models
    assert {each.manifest.version for each in known} == set(frame["version"])
    assert all("auroc" in each.manifest.evaluation.figures for each in known)

    command = re.search(r"deployr dash .*--settings \S+", printed)
    assert command is not None
    _, *arguments = shlex.split(command[0])
    assert arguments[:2] == ["dash", str(folder)]
    assert _starts(arguments)


def _starts(arguments: list[str]) -> bool:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "deployr_cli.main", *arguments, f"--port={port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        return any(STARTED in line for line in process.stdout)
    finally:
        process.terminate()
        process.communicate(timeout=30)
