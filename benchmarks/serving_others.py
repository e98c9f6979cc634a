"""The same forest behind FastAPI and behind BentoML, each in one process of an environment of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_APPS = _HERE / "others"
_LOCK = _APPS / "requirements.txt"
_VENV = _HERE.parent / ".deployr" / "bench-venv"
_START_S, _STOP_S, _POLL_S = 60.0, 10.0, 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Bare:
    """One of them: its port, and its first process, whose children may do the work."""

    port: int
    pid: int

    def processor_s(self) -> float:
        """Give the seconds of processor time that its processes have used, in user and system mode."""
        stats = {}
        for process in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = process.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                stats[int(process.parent.name)] = (int(fields[1]), int(fields[11]) + int(fields[12]))
        family = {self.pid}
        while more := {pid for pid, (parent, _) in stats.items() if parent in family} - family:
            family |= more
        return sum(stats[pid][1] for pid in family if pid in stats) / os.sysconf("SC_CLK_TCK")


class NotInstalled(Exception):
    """The environment cannot be built here; the message says why."""


def installed() -> Path:
    """Give the folder of the environment's commands, built from its own hash-pinned list if it is not there.

    Raises:
        NotInstalled: there is no registry to install from, or none that holds what is pinned.
    """
    commands, done = _VENV / "bin", _VENV / "installed.txt"
    if done.is_file() and done.read_bytes() == _LOCK.read_bytes():
        return commands
    venv.create(_VENV, clear=True, with_pip=True, symlinks=True)
    pip = [str(commands / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([*pip, "--require-hashes", "-r", str(_LOCK)], check=True, capture_output=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().rpartition("\n")[2]
        raise NotInstalled(f"FastAPI and BentoML could not be installed: {said}") from None
    done.write_bytes(_LOCK.read_bytes())
    return commands


@contextmanager
def others(forest: Path, commands: Path, *, workspace: Path) -> Iterator[Mapping[str, Bare]]:
    """Start both, and give where they answer, by name; their words go to the workspace."""
    listens = ["--host", "127.0.0.1", "--port"]
    uvicorn = [str(commands / "uvicorn"), "fastapi_app:app", "--no-access-log", "--log-level", "warning"]
    bentoml = [str(commands / "bentoml"), "serve", "bento_service:Forest"]
    environment = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ.get('PATH', '')}",
        "FOREST": str(forest),
        "BENTOML_HOME": str(workspace / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    with ExitStack() as running:
        found = {}
        for name, command, ready in (("FastAPI", uvicorn, "docs"), ("BentoML", bentoml, "readyz")):
            port, log = _free_port(), workspace / f"{name}.log"
            pid = running.enter_context(_process([*command, *listens, str(port)], environment, log=log))
            _wait_for(f"http://127.0.0.1:{port}/{ready}", log)
            found[name] = Bare(port=port, pid=pid)
        yield found


@contextmanager
def _process(command: Sequence[str], environment: Mapping[str, str], *, log: Path) -> Iterator[int]:
    with log.open("wb") as words:
        # A session of its own: BentoML has children, which end with it.
        process = subprocess.Popen(  # noqa: S603 our own environment
            command, cwd=_APPS, env=environment, stdout=words, stderr=words, start_new_session=True
        )
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_for(url: str, log: Path) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=_START_S):  # noqa: S310 our own loopback address
                return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() >= until:
                last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"{log.stem} did not start: {' '.join(last) or 'it said nothing'}") from None
            time.sleep(_POLL_S)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.stdout.write(f"{installed()}\n")
