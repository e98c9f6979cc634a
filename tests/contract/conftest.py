"""A PostgreSQL of the tests' own, and a small synthetic hospital to put into it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mock_emr.population.config import PopulationConfig
from mock_emr.population.generate import generate
from mock_emr.population.omop import write_omop


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


@pytest.fixture
def server(postgres_folder: Path) -> Iterator[psycopg.Connection]:
    """Connect to it, with an empty schema ``cdm``."""
    with psycopg.connect(host=str(postgres_folder), user="deployr", dbname="postgres", autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS cdm CASCADE")
        connection.execute("CREATE SCHEMA cdm")
        yield connection


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write sixty made-up patients of four weeks as an OMOP extract."""
    folder = tmp_path_factory.mktemp("omop")
    write_omop(generate(PopulationConfig(patients=60, weeks=4)), folder)
    return folder


def _as_unprivileged(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: there, run it as the user that Debian's package makes."""
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, "postgres")
    return ["runuser", "-u", "postgres", "--"]
