"""`deployr up` as a person runs it, and the commands that the pages show against it: they say what the pages say."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from deployr_dash.loading import load_frame

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("first-calls.md", "bpa.md", "cds-hooks.md")
ENDS = "Ctrl-C stops all of it."

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine"),
]


def deployr(*arguments, cwd, **more):
    # As people call it. After `python -m` a signal that met Python in the middle of making a dataclass is remembered,
    # and ends the process by SIGINT although it was caught.
    command = [Path(sys.executable).with_name("deployr"), *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """Give what `deployr up` printed, where it runs, and the variables that it leaves for a shell."""
    folder = tmp_path_factory.mktemp("up")
    with deployr("up", "--port", "0", "--emr-port", "0", "--dash-port", "0", cwd=folder) as process:
        try:
            said = until_ready(process)
            written = (folder / ".deployr" / "up" / "env").read_text().splitlines()
            variables = dict(line.split("=", 1) for line in written)
            yield SimpleNamespace(said=said, folder=folder, variables=variables)
        finally:
            process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
        assert (process.returncode, rest.strip()) == (0, "Stopped.")


def until_ready(process):
    """Give what it prints until all processes run."""
    said = ""
    for line in process.stdout:
        said += line
        if ENDS in line:
            return said
    pytest.fail(f"it did not start: {said}")


def transcripts(page):
    """Give each command of a page with what it says."""
    for block in re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, said = part.partition("\n")
            yield command, said


def fits(shown, came):
    """Tell whether an answer is the one that is shown, in which ``…`` stands for anything."""
    match shown:
        case dict():
            named = {key: value for key, value in shown.items() if key != "…"}
            whole = "…" in shown or shown.keys() == came.keys()
            return whole and all(key in came and fits(value, came[key]) for key, value in named.items())
        case list():
            return len(shown) == len(came) and all(map(fits, shown, came))
        case str():
            return fnmatchcase(str(came), re.sub(r"([\[*?])", r"[\1]", shown).replace("…", "*"))
        case _:
            return shown == came


def read(text):
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def test_it_prints_where_it_answers_and_how_to_call_it(up):
    [shown] = [said for command, said in transcripts("first-calls.md") if command == "make up"]
    bridge, emr = up.variables["BRIDGE"], up.variables["EMR"]
    [dash] = re.findall(r"^Dashboard +(http[^\s,]+)", up.said, re.MULTILINE)
    for printed, real in (("7071", bridge), ("8090", emr), ("8501", dash)):
        shown = shown.replace(f"http://127.0.0.1:{printed}", real)
    assert fits(shown, up.said), up.said


@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_the_page_says_what_it_says_there(up, page):
    wrong = []
    for command, shown in transcripts(page):
        if command == "make up":
            continue
        came = subprocess.run(
            ["bash", "-c", command],
            cwd=up.folder,
            env={**os.environ, **up.variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout
        if not fits(read(shown), read(came)):
            wrong.append(f"$ {command}\n{came}")
    assert not wrong, "\n".join(wrong)


def test_the_commands_that_it_prints_are_ready_to_paste(up):
    pasted = [line for line in up.said.splitlines() if line.startswith("curl ")]
    for command, expected in zip(pasted, ('"status":"scored"', "<Outcome>advise</Outcome>", '"cards":[{'), strict=True):
        done = subprocess.run(["bash", "-c", command], cwd=up.folder, capture_output=True, text=True, check=True)
        assert expected in done.stdout


def test_the_dashboard_answers_and_follows_what_was_asked(up):
    [address] = re.findall(r"^Dashboard +(http[^\s,]+)", up.said, re.MULTILINE)
    with urlopen(address, timeout=60) as answer:
        assert answer.status == 200
    command = f"curl -s -H 'x-functions-key: {up.variables['KEY']}' --json @.deployr/up/order.json"
    subprocess.run(
        ["bash", "-c", f"{command} {up.variables['BRIDGE']}/api/models/hematocrit/infer"],
        cwd=up.folder,
        check=True,
        timeout=60,
    )
    extract = up.folder / ".deployr" / "up" / "monitor"
    for _ in range(600):
        if set(load_frame(extract)["model_id"]) >= {"hematocrit"}:
            break
        threading.Event().wait(0.1)  # another process writes it
    else:
        pytest.fail("expected the packet in the extract within a minute")


def test_what_it_leaves_for_a_shell_only_its_owner_can_read(up):
    assert (up.folder / ".deployr" / "up" / "env").stat().st_mode & 0o077 == 0


def test_a_port_that_is_taken_is_said_with_what_to_do(up, tmp_path):
    port = urlsplit(up.variables["BRIDGE"]).port
    with deployr("up", "--port", str(port), cwd=tmp_path) as second:
        said, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert said.splitlines() == [
        f"deployr: port {port} cannot be had (Address already in use): stop whoever has it, or choose another with "
        "--port PORT; 0 takes a free one"
    ]


def ports_and_children(process, *urls):
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [urlsplit(url).port for url in urls], [int(pid) for pid in children.stdout.split()]


def test_the_next_time_it_starts_at_once_and_ctrl_c_stops_it_cleanly(up):
    folder = up.folder / ".deployr" / "up"
    arguments = ("--port", "0", "--emr-port", "0", "--dash-port", "0", "--workspace", str(copied(folder)))
    with deployr("up", *arguments, cwd=up.folder) as process:
        said = until_ready(process)
        assert "Training" not in said, said
        urls = re.findall(r"^(?:Function host|Mock EMR|Dashboard) +(http[^\s,]+)", said, re.MULTILINE)
        ports, children = ports_and_children(process, *urls)
        assert len(ports) == len(children) == 3
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert (process.returncode, rest.strip()) == (0, "Stopped.")
    for port in ports:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def copied(folder):
    """Give a workspace like that one, for another of the same data and models at the same time."""
    other = folder.with_name(f"{folder.name}-again")
    if not other.exists():
        shutil.copytree(folder, other, ignore=shutil.ignore_patterns("packets*", "env", "timers", "*.log"))
    return other
