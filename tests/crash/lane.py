"""One lane of schedules: an EMR and a warmed process to fork workers from, both of which outlive every crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.crash import site

ROOT = Path(__file__).parents[2]


@contextmanager
def process(*arguments: str, log: Path, stdin: int | None = None, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run a module in a process of its own, from the repository; it is killed at the end."""
    with (
        log.open("ab") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, **site.PROCESS, **settings},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as started,
    ):
        try:
            yield started
        finally:
            started.kill()


def address(started: subprocess.Popen[str], *, log: Path) -> str:
    """Give the address that the process says once it answers."""
    assert started.stdout is not None
    line = started.stdout.readline()
    assert line.startswith("Ready http://127.0.0.1:"), log.read_text()
    return line.removeprefix("Ready ").strip()


@dataclass(frozen=True, kw_only=True)
class Lane:
    """See the module. ``emr``: its address."""

    emr: str
    folder: Path
    workers: subprocess.Popen[str]

    def tell_emr(self, what: str, **query: str) -> dict[str, Any]:
        """Tell the EMR something; give all that was written to it."""
        with urlopen(f"{self.emr}/crash/{what}?{urlencode(query)}", timeout=30) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def run(self, *workers: Mapping[str, Any]) -> list[str]:
        """Run workers at the same time, to their ends, and say what those were."""
        return self._tell_workers("run", *workers)

    def put_to_sleep(self, worker: Mapping[str, Any]) -> str:
        """Run a worker until it is stopped at its gate; give ``done`` if it never came there."""
        return self._tell_workers("put to sleep", worker)[0]

    def wake(self) -> list[str]:
        """Let what sleeps go on to its end."""
        return self._tell_workers("wake")

    def _tell_workers(self, what: str, *workers: Mapping[str, Any]) -> list[str]:
        assert self.workers.stdin is not None
        assert self.workers.stdout is not None
        self.workers.stdin.write(json.dumps({"do": what, "workers": workers}) + "\n")
        self.workers.stdin.flush()
        return json.loads(self.workers.stdout.readline())  # type: ignore[no-any-return]


@contextmanager
def lane(folder: Path) -> Iterator[Lane]:
    """Start one, over the ward of the schedules."""
    site.write_ndjson(
        folder / "chart" / "chart.ndjson", site.chart(*site.WARD) + site.chart(*site.AT_HOME, location="x")
    )
    with ExitStack() as stack:
        workers = stack.enter_context(process("tests.crash.worker", log=folder / "workers.log", stdin=subprocess.PIPE))
        emr = stack.enter_context(process("tests.crash.emr", str(folder / "chart"), log=folder / "emr.log"))
        yield Lane(emr=address(emr, log=folder / "emr.log"), folder=folder, workers=workers)
