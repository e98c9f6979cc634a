"""A PostgreSQL of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """Start a PostgreSQL of our own, reached through a socket in its folder."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) if Path("/usr/lib/postgresql").is_dir() else []
    found = shutil.which("initdb") or (str(programs[-1]) if programs else None)
    if found is None:
        pytest.skip("PostgreSQL's server (Debian: postgresql) is not on this machine")
    # Not under pytest's own folder: every session that starts closes that one to other users, PostgreSQL's among them.
    with tempfile.TemporaryDirectory(prefix="deployr-postgres-") as name:
        bin_folder, folder = Path(found).parent, Path(name)
        as_user = _as_unprivileged(folder)
        initdb = [*as_user, bin_folder / "initdb", "-D", folder / "data", "-U", "deployr", "-A", "trust"]
        subprocess.run(initdb, check=True, capture_output=True)
        control = [*as_user, bin_folder / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log"]
        subprocess.run(
            [*control, "-o", f"-k {folder} -c listen_addresses=''", "start"], check=True, capture_output=True
        )
        yield folder
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True)


def _as_unprivileged(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: there, run it as the user that Debian's package makes."""
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, "postgres")
    return ["runuser", "-u", "postgres", "--"]
