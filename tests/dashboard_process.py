"""The dashboard as a process of its own: started, waited for as long as it lives, and ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

_LOOK_EVERY_S = 0.2
_MOST_LOOKS = 3000
"""Ten minutes at the least: only of one that lives and never answers."""


class NotStarted(Exception):
    """The dashboard's process ended, or never answered; the message is what it said."""


@contextlib.contextmanager
def serving(extract: Path, *arguments: str, folder: Path | None = None, **environment: str) -> Iterator[str]:
    """Start `deployr dash` on a free port, in a folder if one is given, and give its address once it answers.

    Raises:
        NotStarted: it did not.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from deployr_cli.main import run; run()", "dash", str(extract), f"--port={port}"]
    address = f"http://127.0.0.1:{port}/"
    # Into a file: a pipe that nobody reads fills up, and one that a child of its holds open never ends.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **environment},
        )
        try:
            if not _has_started(process, address):
                said.seek(0)
                raise NotStarted(said.read())
            yield address
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _has_started(process: subprocess.Popen[bytes], address: str) -> bool:
    for _ in range(_MOST_LOOKS):
        try:
            process.wait(timeout=_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            if _answers(address):
                return True
        else:
            return False
    return False


def _answers(address: str) -> bool:
    try:
        with urlopen(f"{address}_stcore/health", timeout=30):
            return True
    except HTTPError:
        return True
    except (OSError, HTTPException):
        return False
