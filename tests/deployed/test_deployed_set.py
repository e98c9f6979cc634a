"""What is deployed is whole: nothing in it imports what stays at home, and it runs with its own packages alone."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.deployed.packaging import ROOT, deployed_files, write_package
from tests.test_layering import OURS

SUPPORTED = ("3.11", "3.12", "3.13")
INVOKE = Path(__file__).with_name("invoke.py")


def _imports(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] in OURS}


def _reached(files: set[Path]) -> tuple[set[Path], list[str]]:
    """Give the modules that are reached from the app, and each import that leads out of what is deployed."""
    at_home: list[str] = []
    waiting, seen = [Path("function_app.py")], set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in sorted(_imports((ROOT / file).read_text())):
            path = Path(*name.split("."))
            found = next(
                (each for each in (path.with_suffix(".py"), path / "__init__.py") if (ROOT / each).is_file()), None
            )
            if found is None:
                continue
            if found in files:
                waiting.append(found)
            else:
                at_home.append(f"{file}: {name}")
    return seen, at_home


def test_nothing_that_the_app_reaches_stays_at_home():
    reached, at_home = _reached(set(deployed_files()))
    assert at_home == []
    # Those that are imported only where a site asks for them are followed, too.
    for late in ("deployr_serve/batch_bootstrap.py", "deployr_serve/adapters/cosmos_store.py"):
        assert Path(late) in reached


def test_what_is_not_the_apps_is_not_deployed():
    tops = {file.parts[0] for file in deployed_files()}
    assert {"function_app.py", "host.json", "requirements.txt", "deployr_core", "deployr_serve"} <= tops
    assert tops.isdisjoint(
        {"tests", "docs", "infra", "deployr_dev", "mock_emr", "local.settings.json", ".git", ".venv"}
    )
    assert not any(part.startswith(".") for file in deployed_files() for part in file.parts)


def test_the_same_files_make_the_same_package(tmp_path):
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    number = write_package(first)
    write_package(second)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as package:
        assert len(package.namelist()) == number == len(deployed_files())


def _interpreter(version: str) -> str | None:
    """Give an interpreter of that version: what is on PATH, or what pyenv has and does not put there."""
    found = [str(Path(folder) / f"python{version}") for folder in os.environ["PATH"].split(os.pathsep)]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, timeout=60, check=False).stdout.strip()
        found += map(str, sorted(Path(root).glob(f"versions/{version}.*/bin/python{version}")))
    return next((each for each in found if shutil.which(each) and _is(each, version)), None)


def _is(interpreter: str, version: str) -> bool:
    # A shim stands there for a version that it will not run.
    says = "import sys; print('%d.%d' % sys.version_info[:2])"
    told = subprocess.run([interpreter, "-c", says], capture_output=True, text=True, timeout=60, check=False)
    return told.stdout.strip() == version


@pytest.mark.proof
@pytest.mark.long
@pytest.mark.parametrize("version", SUPPORTED)
async def test_the_app_answers_from_its_package_with_its_packages_alone(
    version, tmp_path, emr_of, chart_of, bundles_folder
):
    interpreter = _interpreter(version)
    if interpreter is None:
        pytest.skip(f"no python{version} on PATH, and none of pyenv's")
    folder, environment = tmp_path / "wwwroot", tmp_path / "environment"
    write_package(tmp_path / "package.zip")
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        package.extractall(folder)
    await _run(interpreter, "-m", "venv", str(environment))
    python = environment / "bin" / "python"
    requirements = str(folder / "requirements.txt")
    # As the remote build does, and nothing is compiled.
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:")
    await _run(str(python), *install, "--require-hashes", "-r", requirements)
    emr = await emr_of(*chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"))
    came = await _run(str(python), "-I", str(INVOKE), str(folder), env=_settings(emr.url, tmp_path, bundles_folder))
    said = json.loads(came.splitlines()[-1])
    assert (said["python"], said["status"], said["answer"]["status"]) == (version, 200, "scored")
    # With one result in the window: 3 of 4 training rows were positive.
    assert said["answer"]["score"] == 3 / 4
    assert said["ready"] == "ready"
    assert {"infer", "infer_group", "health_ready", "relay_deliveries", "extract_labels"} <= set(said["functions"])
    assert Path(said["from"]).parent == folder
    assert said["forbidden"] == []


def _settings(url: str, tmp_path: Path, bundles_folder: Path) -> dict[str, str]:
    clock = tmp_path / "now"
    clock.write_text("2015-01-06T20:55:00+00:00")
    return {
        "PATH": os.environ["PATH"],
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_MODEL_PROOFS": str(tmp_path / "proofs.json"),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_SPOOL": f"sqlite:{tmp_path / 'spool.sqlite'}",
        "DEPLOYR_EMR_FHIR_BASE": f"{url}/api/FHIR/R4",
        "DEPLOYR_CLOCK_FILE": str(clock),
        # Nobody listens there: that must not be anybody's trouble.
        "DEPLOYR_TELEMETRY": "otlp:http://127.0.0.1:9",
    }


async def _run(*command: str, env: dict[str, str] | None = None) -> str:
    def run() -> str:
        finished = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    # The EMR answers meanwhile, in this process.
    return await asyncio.to_thread(run)
