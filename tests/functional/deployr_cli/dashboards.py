"""What demo and trial leave for the dashboard."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

from deployr_dash.loading import load_frame, load_models
from tests.dashboard_process import serving


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
    with serving(folder, *arguments[2:]):
        pass
