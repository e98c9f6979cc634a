"""`deployr up`: a mock EMR, the function host with trained models and the dashboard, until they are told to stop."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from rich.console import Console
from rich.text import Text

from deployr_cli.asking import ID_ROOTS
from deployr_cli.demo.events import OrderSigned, orders_signed, start_of_replay
from deployr_cli.demo.making import synthetic_hospital, trained_model
from deployr_cli.demo.monitoring import EXTRACT
from deployr_cli.demo.processes import Running, running, store_file
from deployr_cli.failures import CommandFailed
from deployr_cli.up_azure import running_like_azure
from deployr_cli.up_dash import LOG, Dashboard, dashboard_of
from deployr_cli.up_requests import BATCH, write_batch, write_deployment, write_requests
from deployr_dev.cohorts.tasks import shipped_task

_MODELS = {"hematocrit": None, "hemoglobin": "bedside"}
"""What is trained: each task with its own declaration or another. The second sees no more than a person can type."""
_AFTER_SIGNING = timedelta(seconds=20)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CALLER = "alerts"
_FOLLOWS_EACH_S = 10
"""How far, in seconds, the dashboard is behind the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """What is kept from one time to the next."""

    fhir: Path
    bundles: Path
    event: OrderSigned


def run_up(
    *,
    data: Path | None,
    host_port: int,
    emr_port: int,
    dash_port: int,
    workspace: Path,
    azure_like: bool = False,
    console: Console | None = None,
) -> None:
    """Make what is missing, start the processes, show how to call them, and wait for a signal.

    All that was started is stopped, and its ports free again, when this returns or raises.

    Args:
        data: a folder with ``omop/`` and ``fhir/``; None makes a synthetic hospital.
        host_port: the function host's; 0 takes a free one.
        emr_port: the mock EMR's; 0 takes a free one.
        dash_port: the dashboard's; 0 takes a free one.
        workspace: where everything is kept.
        azure_like: keep packets, blobs and queues in stand-ins for Azure Cosmos DB and Azure Storage, and run a batch.
        console: where to print; None prints on standard output.

    Raises:
        CommandFailed: a port is taken, or one of the processes did not start or has ended by itself.
    """
    console = console or Console()
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        _insist_free(host_port, "--port")
        _insist_free(emr_port, "--emr-port")
        dash_port = _insist_free(dash_port, "--dash-port")
        workspace.mkdir(parents=True, exist_ok=True)
        made = _made(workspace.resolve(), data, console)
        for model, declaration in _MODELS.items():
            write_deployment(workspace / "deployments", model=model, form=declaration is not None)
        write_requests(workspace, made.event, panel=shipped_task("hematocrit").panels[0])
        stand_ins: AbstractContextManager[dict[str, str]] = running_like_azure() if azure_like else nullcontext({})
        with stand_ins as azure:
            ports = _Ports(host=host_port, emr=emr_port, dash=dash_port)
            _run(made, workspace, azure=azure, ports=ports, console=console)
    except KeyboardInterrupt:
        console.print("Stopped.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ports:
    host: int
    emr: int
    dash: int


def _run(made: _Made, workspace: Path, *, azure: dict[str, str], ports: _Ports, console: Console) -> None:
    now, password = made.event.signed_at + _AFTER_SIGNING, token_urlsafe(24)
    store_file(workspace).unlink(missing_ok=True)
    shutil.rmtree(workspace / EXTRACT, ignore_errors=True)
    if azure:
        write_batch(workspace / "batches", models=tuple(_MODELS))
        azure = {**azure, "DEPLOYR_BATCHES": str(workspace.resolve() / "batches")}
    running_processes = running(
        workspace=workspace.resolve(),
        fhir=made.fhir,
        bundles=made.bundles,
        now=now,
        clock_file=workspace.resolve() / "now",
        emr_port=ports.emr,
        host_port=ports.host,
        emr_keeps_clock=True,
        settings={
            "DEPLOYR_DEPLOYMENTS": str(workspace.resolve() / "deployments"),
            "DEPLOYR_BPA_ID_ROOTS": ID_ROOTS,
            "DEPLOYR_BPA_CALLERS": json.dumps({_CALLER: password}),
            **azure,
        },
    )
    with running_processes as processes, dashboard_of(workspace.resolve(), port=ports.dash) as dashboard:
        login = f"{_CALLER}:{password}"
        _introduce(processes, login=login)
        _tell(processes, dashboard, workspace, now=now, login=login, azure=azure, console=console)
        for passed_s in count():
            if (name := processes.ended()) is not None:
                raise CommandFailed(f"the {name} has ended by itself; see {workspace / name}.log")
            if dashboard is not None:
                if dashboard.has_ended():
                    raise CommandFailed(f"the dashboard has ended by itself; see {workspace / LOG}")
                if passed_s % _FOLLOWS_EACH_S == 0:
                    dashboard.follow()
            threading.Event().wait(1.0)


def _interrupt(*_: Any) -> None:
    # One signal is enough: what comes while both are being stopped must not leave one of them behind.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _insist_free(port: int, option: str) -> int:
    """Give the port, or a free one in place of 0."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
            taken: int = tried.getsockname()[1]
        except OSError as error:
            raise CommandFailed(
                f"port {port} cannot be had ({error.strerror}): stop whoever has it, or choose another with "
                f"{option} PORT; 0 takes a free one"
            ) from None
    return taken


def _made(workspace: Path, data: Path | None, console: Console) -> _Made:
    """Give the data and the models, made the first time and whenever it is other data."""
    marker = workspace / "made.json"
    wanted = json.dumps({"data": str(data.resolve()) if data else None, "models": _MODELS})
    task = shipped_task("hematocrit")
    is_made = marker.is_file() and marker.read_text(encoding="utf-8") == wanted
    if not is_made:
        marker.unlink(missing_ok=True)
        for stale in ("hospital", "bundles"):
            shutil.rmtree(workspace / stale, ignore_errors=True)
    folder = data or workspace / "hospital"
    if data is None and not is_made:
        synthetic_hospital(folder, console=console)
    for part in (folder / "omop", folder / "fhir"):
        if not part.is_dir():
            raise CommandFailed(f"{part}: expected the folder {part.name}/ in {folder}")
    events = orders_signed(folder / "fhir", panels=task.panels)
    before = start_of_replay(events)
    if not is_made:
        for name, declaration in _MODELS.items():
            trained_model(
                folder / "omop",
                workspace / "bundles" / name,
                task=shipped_task(name),
                before=before,
                console=console,
                declaration=declaration,
            )
        marker.write_text(wanted, encoding="utf-8")
    event = next((each for each in events if each.signed_at >= before and each.encounter_id), None)
    if event is None:
        raise CommandFailed(f"{folder / 'fhir'}: expected an order of an encounter among those that were held out")
    return _Made(fhir=folder / "fhir", bundles=workspace / "bundles", event=event)


def _introduce(processes: Running, *, login: str) -> None:
    """Tell the EMR whom to ask when an order is signed on its screen.

    Raises:
        CommandFailed: it does not want to know.
    """
    asked = {"address": processes.host, "way": "cds-hooks", "services": ["cbc-order-sign"], "login": login}
    emr = HTTPConnection(processes.emr.removeprefix("http://"), timeout=10)
    try:
        emr.request("PUT", "/admin/bridge", json.dumps(asked))
        status = emr.getresponse().status
    finally:
        emr.close()
    if status != 200:
        raise CommandFailed(f"expected the mock EMR to take the bridge's address, and it answered {status}")


def _tell(
    processes: Running,
    dashboard: Dashboard | None,
    workspace: Path,
    *,
    now: datetime,
    login: str,
    azure: dict[str, str],
    console: Console,
) -> None:
    """Print where they answer and how to call them; leave the same for a shell in the workspace."""
    variables = {
        "BRIDGE": processes.host,
        "EMR": processes.emr,
        "KEY": processes.function_key,
        "LOGIN": login,
    }
    if azure:
        variables |= {"MASTER": processes.master_key} | {name: f"'{value}'" for name, value in azure.items()}
    file = workspace / "env"
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()), encoding="ascii")
    key, bridge = f"x-functions-key: {processes.function_key}", processes.host
    commands = {
        "as JSON": f"curl -s -H '{key}' --json @{workspace}/order.json {bridge}/api/models/hematocrit/infer",
        "as an alert that sends CDA": (
            f"curl -s -u '{login}' -H 'Content-Type: application/xml' --data-binary @{workspace}/order.xml "
            f"{bridge}/api/bpa/hematocrit"
        ),
        "as a CDS Hooks client": (
            f"curl -s --json @{workspace}/order-sign.json {bridge}/cds-services/hematocrit-order-sign"
        ),
    }
    if azure:
        commands["start the hourly batch now, over the storage queue"] = (
            f"curl -s -H 'x-functions-key: {processes.master_key}' --json '{{\"input\": \"\"}}' "
            f"{bridge}/admin/functions/batch_{BATCH}"
        )
    where = [f"Cosmos DB      {azure['DEPLOYR_STORE'].removeprefix('cosmos:')} (a stand-in)"] if azure else []
    seen = "needs deployr[dash]" if dashboard is None else f"{dashboard.address}, {_FOLLOWS_EACH_S} s behind"
    lines = [
        "",
        f"Function host  {processes.host}",
        f"Mock EMR       {processes.emr}",
        f"Its screens    {processes.emr}/patients",
        f"Dashboard      {seen}",
        *where,
        f"The clock of all stands at {now:%Y-%m-%d %H:%M:%S} UTC, just after an order was signed. Ask about it:",
    ]
    for how, command in commands.items():
        lines += ["", f"# {how}", command]
    lines += [
        "",
        f"More in docs/first-calls.md; in your shell first:  . {file}",
        f"Logs: {workspace}/*.log. Ctrl-C stops all of it.",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
