"""The dashboard beside the mock EMR and the function host, over an extract that follows their store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from deployr_cli.demo.monitoring import EXTRACT
from deployr_cli.demo.processes import SETTINGS_FILE
from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_serve.settings import read_settings

LOG = "dashboard.log"
_HEALTH = "/_stcore/health"
_TRIES, _BETWEEN_TRIES_S = 600, 0.1
_STOP_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Dashboard:
    """A dashboard that runs. ``has_ended``: by itself; ``follow`` brings its extract up to date with the store."""

    address: str
    has_ended: Callable[[], bool]
    follow: Callable[[], None]


@contextmanager
def dashboard_of(workspace: Path, *, port: int) -> Iterator[Dashboard | None]:
    """Start the dashboard of a workspace whose settings are written, wait until it answers, and stop it at the end.

    Gives None where no dashboard is installed.

    Raises:
        CommandFailed: it did not start.
    """
    if find_spec("streamlit") is None:
        yield None
        return
    settings, extract, log = workspace / SETTINGS_FILE, workspace / EXTRACT, workspace / LOG
    command = [sys.executable, "-m", "deployr_cli.main", "dash", str(extract)]
    command += ["--settings", str(settings), "--port", str(port)]
    with log.open("w", encoding="utf-8") as words:
        process = subprocess.Popen(  # noqa: S603 our own interpreter and module
            command,
            stdout=words,
            stderr=words,
            stdin=subprocess.DEVNULL,
            # Ctrl-C is for us alone: we stop it in turn.
            process_group=0,
        )
        try:
            _wait_until_healthy(process, port, log)
            yield Dashboard(
                address=f"http://127.0.0.1:{port}",
                has_ended=lambda: process.poll() is not None,
                follow=lambda: _follow(settings, extract),
            )
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _follow(settings: Path, extract: Path) -> None:
    from deployr_cli.monitor import brought_up_to_date
    from deployr_dash.codes import ExtractBusy

    site = read_settings(settings_values(settings, os.environ))
    # Nothing asked yet, or somebody else at it: the next time is soon.
    with suppress(CommandFailed, ExtractBusy):
        brought_up_to_date(site, extract, console=Console(quiet=True))


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(_TRIES):
        if process.poll() is not None:
            break
        asked = HTTPConnection("127.0.0.1", port, timeout=5)
        with closing(asked), suppress(OSError, HTTPException):
            asked.request("GET", _HEALTH)
            if asked.getresponse().status == 200:
                return
        # It may listen before it is ready, and says so by another status.
        threading.Event().wait(_BETWEEN_TRIES_S)
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise CommandFailed(f"the dashboard did not start: {' '.join(last) or 'it said nothing'}; see {log}")
