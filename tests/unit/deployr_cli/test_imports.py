"""A command imports what it needs and no more: a rollback waits for nothing that it does not use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from deployr_cli.main import _LATER, app
from deployr_serve.adapters.sqlite_store import SqliteStore
from tests.registry_parts import DEV, PUBLIC, Site

ROOT = Path(__file__).parents[3]
SLOW = {
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "streamlit",
    "duckdb",
    "pyarrow",
    "treelite",
    "aiohttp",
    "azure",
    "mlflow",
    "deployr_dev",
    "deployr_dash",
    "deployr_plots",
    "label_extractors",
    "mock_emr",
}


def modules_of(*arguments):
    """Run a command in a fresh interpreter; give every module that it has imported by its end."""
    program = (
        "import sys, deployr_cli.main\n"
        f"sys.argv = ['deployr', *{[str(each) for each in arguments]!r}]\n"
        "try:\n    deployr_cli.main.run()\n"
        "except SystemExit as ended:\n    assert not ended.code, ended.code\n"
        "print('', *sorted(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(ended.stdout.splitlines()[-1].split())


def slow_ones(modules):
    return SLOW & {name.partition(".")[0] for name in modules}


def test_the_help_of_all_commands_imports_none_of_them():
    modules = modules_of("--help")
    assert slow_ones(modules) | {"numpy", "msgspec", "deployr_serve", "deployr_core"} & modules == set()


def test_the_help_of_a_rollback_imports_neither_another_command_nor_serving():
    modules = modules_of("models", "rollback", "--help")
    assert slow_ones(modules) == set()
    assert modules & {"deployr_cli.alerts", "deployr_cli.monitor", "deployr_cli.labels", "deployr_cli.run"} == set()
    assert {name.partition(".")[0] for name in modules} & {"numpy", "deployr_serve", "deployr_core"} == set()


async def test_a_rollback_imports_nothing_that_trains_draws_or_speaks_http(tmp_path, bundle_files, clock):
    store = SqliteStore(tmp_path / "store.sqlite")
    await store.init()
    site = Site(tmp_path, bundle_files, clock, store=store)
    for version in ("1.1.0", "1.2.0"):
        await site.deployed(version)
    await store.aclose()
    (tmp_path / "site.pub.pem").write_bytes(PUBLIC)
    values = {
        "DEPLOYR_BUNDLES": str(site.bundles),
        "DEPLOYR_BUNDLE_ARCHIVE": str(site.runs),
        "DEPLOYR_MODEL_PROOFS": str(tmp_path / "proofs.json"),
        "DEPLOYR_TRUSTED_KEYS": str(tmp_path / "site.pub.pem"),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_AUDIT": f"folder:{tmp_path / 'audit'}",
        "DEPLOYR_EMR_FHIR_BASE": "http://127.0.0.1:1/fhir",
    }
    file = tmp_path / "local.settings.json"
    file.write_text(json.dumps({"IsEncrypted": False, "Values": values}))
    modules = modules_of("models", "rollback", "hematocrit", "--why", "alarms", "--by", DEV.name, "--settings", file)
    assert site.serving() == "1.1.0"
    assert slow_ones(modules) == set()
    unneeded = {"rich.table", "deployr_serve.bootstrap", "deployr_serve.core.infer", "deployr_cli.with_app"}
    assert modules & unneeded == set()


@pytest.mark.parametrize(("panel", "name"), [(panel, name) for panel, says in _LATER.items() for name in says])
def test_the_help_of_all_commands_says_of_each_what_its_own_help_begins_with(panel, name):
    command = typer.main.get_command(app)
    command.bring(name)
    own = command.commands[name]
    assert (own.rich_help_panel, own.help.partition("\n\n")[0].replace("\n", " ")) == (panel, _LATER[panel][name])


def test_every_command_can_be_brought():
    command = typer.main.get_command(app)
    command.bring_all()
    assert {name for says in _LATER.values() for name in says} <= set(command.commands)
    assert {"rollback", "to-mlflow", "from-mlflow"} <= set(command.commands["models"].commands)
    assert "duplicates" in command.commands["deliveries"].commands
