"""From nothing to the first answer, and how much memory that takes."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.measured import Measured, against
from benchmarks.staging import ENCOUNTER, NOW, PATIENT, write_model, write_patient
from deployr_cli.demo.processes import function_app, running
from deployr_cli.demo.run import TASK

_ROUNDS = 7
_MOST_MB = 120.0


def fresh_process() -> list[Measured]:
    """Measure in turn our app and the same app with scikit-learn and pandas imported, each in a fresh process.

    The time is from starting the host's process to its first score; the EMR runs already and answers at once.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder, trees=100)
        write_patient(folder / "fhir", orders=1)
        heavy = folder / "heavy"
        heavy.mkdir()
        (heavy / "host.json").write_bytes((function_app().parent / "host.json").read_bytes())
        imports = "import pandas, sklearn.ensemble\n"
        (heavy / "function_app.py").write_text(imports + function_app().read_text(encoding="utf-8"), encoding="utf-8")
        ours, theirs = [], []
        for number in range(_ROUNDS + 1):
            ours.append(_first_answer(folder / f"ours-{number}", folder, app=function_app()))
            theirs.append(_first_answer(folder / f"theirs-{number}", folder, app=heavy / "function_app.py"))
    seconds = statistics.median(sample[0] for sample in ours[1:])
    baseline = statistics.median(sample[0] for sample in theirs[1:])
    memory = max(sample[1] for sample in ours)
    memory_baseline = max(sample[1] for sample in theirs)
    return [
        against(
            "fresh process to first answer, against the same app with scikit-learn and pandas",
            seconds,
            baseline,
            unit="s",
            at_most=0.5,
        ),
        Measured(
            name="peak memory with one 100-tree model, against the same",
            value=round(memory, 1),
            unit="MB",
            baseline=round(memory_baseline, 1),
            ratio=round(memory / memory_baseline, 3),
            goal=f"value <= {_MOST_MB:g} MB",
            met=memory <= _MOST_MB,
        ),
    ]


def _first_answer(workspace: Path, folder: Path, *, app: Path) -> tuple[float, float]:
    """Give seconds to the first score and the process's peak resident memory in MB."""
    workspace.mkdir()
    with running(
        workspace=workspace,
        fhir=folder / "fhir",
        bundles=folder / "bundles",
        now=NOW,
        clock_file=workspace / "now",
        app=app,
    ) as processes:
        body = {
            "patientId": PATIENT,
            "encounterId": ENCOUNTER,
            "orderId": "bench-order-0",
            "eventTime": NOW.isoformat(),
        }
        request = urllib.request.Request(  # noqa: S310 our own process on loopback
            f"{processes.host}/api/models/{TASK}/infer",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "x-functions-key": processes.function_key},
        )
        with urllib.request.urlopen(request) as response:  # noqa: S310 our own process on loopback
            if json.loads(response.read())["status"] != "scored":
                raise RuntimeError("expected a score")
        elapsed = time.perf_counter() - processes.host_started
        return elapsed, _peak_memory_mb(processes.host_pid)


def _peak_memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("expected a kernel that tells a process's peak memory in /proc")
