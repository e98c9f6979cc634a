from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.request import Request, urlopen

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from mock_emr.__main__ import main
from mock_emr.assertion import keys_in
from mock_emr.hosting import LOOPBACK, bound_socket

REPOSITORY = Path(__file__).parents[3]
PATIENT = '{"resourceType":"Patient","id":"p1"}\n'


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "mock_emr", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Patient.ndjson").write_text(PATIENT)
    return tmp_path


def get(url: str) -> Any:
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)


def public_key_file(folder: Path) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "k"}
    path = folder / "keys.json"
    path.write_text(json.dumps({"keys": [jwk]}))
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_where_it_listens_and_ends_cleanly_on_a_signal(folder: Path, number: int) -> None:
    options = ["--data", str(folder), "--open", "--now", "2015-01-06T12:00:00-05:00"]
    with process(*options, "--client", f"bridge={public_key_file(folder)}") as emr:
        assert emr.stdout is not None
        ready, _, url = emr.stdout.readline().strip().partition(" ")
        assert ready == "Ready"
        assert url.startswith("http://127.0.0.1:")
        assert get(f"{url}/api/FHIR/R4/Patient/p1")["id"] == "p1"
        assert get(f"{url}/admin/clock")["now"] == "2015-01-06T17:00:00Z"
        assert get(f"{url}/api/FHIR/R4/metadata")["implementation"]["url"] == f"{url}/api/FHIR/R4"
        emr.send_signal(number)
        out, err = emr.communicate(timeout=10)
        assert (emr.returncode, out, err) == (0, "", "")


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Give a function that runs the command in this process, and gives why it did not start."""

    def run(*arguments: str) -> str:
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        return err

    return run


def test_a_missing_folder_is_named_in_one_line(tmp_path: Path) -> None:
    with process("--data", str(tmp_path / "nowhere")) as emr:
        out, err = emr.communicate(timeout=30)
    assert (emr.returncode, out) == (2, "")
    assert err.count("\n") == 1
    assert "nowhere: expected a folder" in err


def test_a_bad_line_is_named_by_file_and_number_in_one_line(folder: Path, refused: Refused) -> None:
    (folder / "Patient.ndjson").write_text(PATIENT + "{\n")
    err = refused("--data", str(folder))
    assert err.count("\n") == 1
    assert "Patient.ndjson: line 2: expected one JSON object" in err


def test_a_key_file_that_cannot_be_used_is_named_in_one_line(folder: Path, refused: Refused) -> None:
    (folder / "keys.json").write_text("{}")
    for option in ("bridge", f"bridge={folder}/keys.json", f"bridge={folder}/none.json"):
        assert refused("--data", str(folder), "--client", option).count("\n") == 1


@pytest.mark.parametrize("option", [("--now", "2015-01-06"), ("--now", "noon"), ("--delay-ms", "-1")])
def test_an_option_that_cannot_be_read_is_named(folder: Path, option: tuple[str, str], refused: Refused) -> None:
    assert option[0] in refused("--data", str(folder), *option)


def test_the_clock_file_and_the_faults_hold_from_the_start(folder: Path) -> None:
    (folder / "faults.yaml").write_text("- {name: down, route: Patient, status: 503}")
    options = ["--data", str(folder), "--open", "--now", "2015-01-06T12:00:00Z", "--clock-file", str(folder / "now")]
    with process(*options, "--faults", str(folder / "faults.yaml")) as emr:
        assert emr.stdout is not None
        url = emr.stdout.readline().strip().partition(" ")[2]
        assert (folder / "now").read_text() == "2015-01-06T12:00:00+00:00"
        assert [rule["name"] for rule in get(f"{url}/admin/faults")] == ["down"]
        emr.send_signal(signal.SIGTERM)
        assert emr.communicate(timeout=10) == ("", "")


def test_a_running_clock_takes_its_file_along_though_nobody_asks_it(folder: Path) -> None:
    file = folder / "now"
    options = ["--data", str(folder), "--open", "--now", "2015-01-06T12:00:00Z", "--clock-file", str(file)]
    with process(*options) as emr:
        assert emr.stdout is not None
        url = emr.stdout.readline().strip().partition(" ")[2]
        run = Request(f"{url}/admin/clock/run", b'{"rate": 100000, "until": "2015-01-06T13:00:00Z"}', method="POST")
        with urlopen(run, timeout=10) as answer:
            assert answer.status == 200
        deadline = monotonic() + 10
        while file.read_text() != "2015-01-06T13:00:00+00:00" and monotonic() < deadline:
            emr.poll()
        assert file.read_text() == "2015-01-06T13:00:00+00:00"


def test_a_faults_or_clock_file_that_cannot_be_used_is_named_in_one_line(folder: Path, refused: Refused) -> None:
    data = ("--data", str(folder))
    (folder / "faults.yaml").write_text("- {route: Patient}")
    assert "faults.yaml: fault rule [0]: expected at least one of" in refused(
        *data, "--faults", f"{folder}/faults.yaml"
    )
    assert "none.yaml" in refused(*data, "--faults", f"{folder}/none.yaml")
    assert "expected --now too" in refused(*data, "--clock-file", f"{folder}/now")
    assert "nowhere" in refused(*data, "--now", "2015-01-06T12:00:00Z", "--clock-file", f"{folder}/nowhere/now")


def test_a_users_password_comes_from_a_file(folder: Path, refused: Refused) -> None:
    (folder / "password").write_text("secret\n")
    with process("--data", str(folder), "--user", f"bridge={folder}/password") as emr:
        assert emr.stdout is not None
        url = emr.stdout.readline().strip().partition(" ")[2]
        pair = base64.b64encode(b"EMP$bridge:secret").decode()
        headers = {"Authorization": f"Basic {pair}", "Epic-Client-ID": "c-1"}
        with urlopen(Request(f"{url}/api/FHIR/R4/Patient/p1", headers=headers), timeout=10) as answer:
            assert answer.status == 200
    for option in ("bridge", f"bridge={folder}/none"):
        assert refused("--data", str(folder), "--user", option).count("\n") == 1


def test_a_port_that_is_taken_is_named(folder: Path, refused: Refused) -> None:
    with process("--data", str(folder), "--open") as first:
        assert first.stdout is not None
        port = first.stdout.readline().strip().rpartition(":")[2]
        assert f"port {port}" in refused("--data", str(folder), "--port", port)


def test_the_socket_names_its_protocol_so_that_answers_are_sent_at_once() -> None:
    with bound_socket() as sock:
        assert sock.proto == socket.IPPROTO_TCP
        assert sock.getsockname()[0] == LOOPBACK


def test_the_signing_key_is_not_kept_when_a_private_key_is_registered(folder: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = {**RSAAlgorithm.to_jwk(key, as_dict=True), "kid": "k"}
    (held,) = keys_in(json.dumps({"keys": [jwk]}).encode())
    assert not isinstance(held.public, rsa.RSAPrivateKey)
    assert jwt.PyJWK(jwk).key_type == held.key_type
