"""`deployr sites`, and how every other command is told which of several sites is meant."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from deployr_cli.failures import CommandFailed
from deployr_cli.main import app
from deployr_cli.site_settings import settings_values
from deployr_cli.sites import run_sites
from deployr_serve.core.errors import SettingsInvalid


@pytest.fixture
def folder(tmp_path):
    """Give a folder of two sites that may start beside each other."""
    for site in ("north", "south"):
        (tmp_path / f"{site}.json").write_text(
            json.dumps({"callers": [{"name": "engine", "models": ["*"], "password": f"the engine of {site}"}]})
        )
        values = {
            "DEPLOYR_BUNDLES": str(tmp_path / site),
            "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir",
            "DEPLOYR_ID_KEY": f"the id key of {site}",
            "DEPLOYR_JSON_CALLERS": str(tmp_path / f"{site}.json"),
            "DEPLOYR_STORE": f"sqlite:{tmp_path / site}.sqlite",
        }
        (tmp_path / f"{site}.settings.json").write_text(json.dumps({"Values": values}))
    return tmp_path


def listed(environ, file=None):
    out = StringIO()
    return run_sites(file, environ, console=Console(file=out, width=120)), out.getvalue()


def test_the_sites_are_listed_with_where_they_are_served(folder):
    may_start, told = listed({"DEPLOYR_SITES": str(folder)})
    assert may_start
    assert [line.split("│")[1].strip() for line in told.splitlines() if "/sites/" in line] == ["north", "south"]
    assert "/sites/south/" in told


def test_what_two_of_them_share_is_said_and_no_secret(folder):
    secret = "SECRET-CANARY-for-ids"
    environ = {"DEPLOYR_SITES": str(folder), "NORTH__DEPLOYR_ID_KEY": secret, "SOUTH__DEPLOYR_ID_KEY": secret}
    may_start, told = listed(environ | {"DEPLOYR_STORE": "memory"})
    assert not may_start
    assert "north: settings: DEPLOYR_ID_KEY: expected a secret of its own, not that of south" in told
    assert "No site reads: DEPLOYR_STORE" in told
    assert "CANARY" not in told


def test_the_apps_settings_file_may_name_the_folder(folder):
    file = folder / "app" / "local.settings.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"Values": {"DEPLOYR_SITES": str(folder)}}))
    assert listed({}, file)[0]
    assert settings_values(file, {"DEPLOYR_AT": "south"})["DEPLOYR_SITE"] == "south"
    with pytest.raises(CommandFailed, match="DEPLOYR_SITES: expected the folder"):
        listed({})


def test_a_command_has_the_settings_of_the_site_that_is_named_and_no_others(folder):
    environ = {"DEPLOYR_SITES": str(folder), "DEPLOYR_ID_KEY": "SECRET-CANARY", "NORTH__DEPLOYR_ENVIRONMENT": "TEST"}
    values = settings_values(None, environ | {"DEPLOYR_AT": "north"})
    assert (values["DEPLOYR_ID_KEY"], values["DEPLOYR_ENVIRONMENT"]) == ("the id key of north", "TEST")
    assert "CANARY" not in str(values)
    with pytest.raises(CommandFailed, match="say which, as in deployr --at north COMMAND"):
        settings_values(None, environ)
    with pytest.raises(SettingsInvalid, match="expected one of north, south, got west"):
        settings_values(None, environ | {"DEPLOYR_AT": "west"})


@pytest.mark.parametrize("command", [["doctor"], ["store", "check"], ["alerts", "list"], ["batches", "list"]])
def test_every_command_asks_which_site_is_meant(folder, command):
    ran = CliRunner().invoke(app, command, env={"DEPLOYR_SITES": str(folder)})
    assert "say which, as in deployr --at north COMMAND" in str(ran.exception), ran.output


def test_the_name_that_is_given_holds_for_that_command_alone(folder, monkeypatch):
    monkeypatch.setenv("DEPLOYR_SITES", str(folder))
    for _ in range(2):
        ran = CliRunner().invoke(app, ["--at", "south", "store", "init"])
        assert ran.exit_code == 0, ran.exception
    assert (folder / "south.sqlite").is_file()
    assert not (folder / "north.sqlite").exists()
    assert "say which" in str(CliRunner().invoke(app, ["store", "check"]).exception)
