"""Which code trains: named so that a model can be traced to it, the same wherever the same sources are installed."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable

from deployr_core.bundle import CodeVersion

PACKAGES = ("deployr_core", "deployr_dev")
_ENDINGS = (".py", ".json", ".yaml", ".csv")


@lru_cache(maxsize=1)
def code_version() -> CodeVersion:
    """Give the package's version and the SHA-256 over the installed sources of the core and of training.

    Computed once in a process: what was imported does not change when a file is edited under it.
    """
    digest = hashlib.sha256()
    for package in PACKAGES:
        for name, content in sorted(_sources(files(package), package)):
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    return CodeVersion(package=version("deployr"), sources_sha256=digest.hexdigest())


def _sources(folder: Traversable, name: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _sources(entry, f"{name}/{entry.name}")
        elif entry.name.endswith(_ENDINGS):
            # A checkout on Windows may end lines otherwise; it is the same code.
            found.append((f"{name}/{entry.name}", entry.read_bytes().replace(b"\r\n", b"\n")))
    return found
