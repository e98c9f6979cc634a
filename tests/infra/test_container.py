"""The container image, as far as its file tells: what goes in, who runs it, what it asks itself."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from deployr_serve.settings import _ELSEWHERE, Profile, read_settings
from tests.deployed.packaging import deployed_files

ROOT = Path(__file__).parents[2]


def _instructions():
    """Give each instruction with its arguments; lines that go on are one."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, rest.strip()


def _last(word):
    return [rest for each, rest in _instructions() if each == word][-1]


def test_it_runs_as_nobody_with_rights_and_what_it_changes_is_a_volume():
    assert _last("USER") == "10001:10001"
    assert json.loads(_last("VOLUME")) == ["/data"]
    written = [value for name, value in _environment().items() if "/data/" in value]
    assert len(written) == 7


def test_the_base_and_the_packages_are_pinned():
    assert all("slim-bookworm" in rest for word, rest in _instructions() if word == "FROM")
    [install] = [rest for word, rest in _instructions() if word == "RUN" and "pip install" in rest]
    assert "--require-hashes" in install
    assert "--only-binary :all:" in install


def test_the_images_packages_are_those_of_the_deployed_app_and_the_hosts():
    def pins(name):
        lines = (ROOT / name).read_text().splitlines()
        return {line.split(" ")[0].split(";")[0].strip() for line in lines if re.match(r"[a-zA-Z0-9]", line)}

    deployed, image = pins("requirements.txt"), pins("requirements-host.txt")
    assert deployed <= image
    assert {pin.split("==")[0] for pin in image - deployed} >= {"apscheduler", "httptools", "starlette", "uvicorn"}


def test_what_is_copied_is_there_is_let_in_and_is_all_that_is_deployed():
    copied = [source for word, rest in _instructions() if word == "COPY" for source in shlex.split(rest)[:-1]]
    sources = {source for source in copied if not source.startswith(("--", "/"))}
    assert all((ROOT / source).exists() for source in sources)
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == sources
    tops = {file.parts[0] for file in deployed_files() if file.suffix == ".py" or file.name == "host.json"}
    assert tops <= sources


def test_it_asks_itself_by_a_route_that_there_is():
    path = re.search(r"http://127\.0\.0\.1:8080/([\w/]+)", _last("HEALTHCHECK"))[1]
    assert f'route("{path}"' in (ROOT / "deployr_serve" / "blueprint.py").read_text()
    started = json.loads(_last("ENTRYPOINT"))
    assert started[:5] == ["python", "-m", "deployr_serve.local_host", "--app", "/app"]
    assert started[started.index("--port") + 1] == "8080"


def test_its_settings_are_those_that_there_are_and_leave_to_the_site_what_is_the_sites(tmp_path):
    callers = {"callers": [{"name": "engine", "models": ["*"], "password": "a-password-of-enough-length"}]}
    (tmp_path / "callers.json").write_text(json.dumps(callers))
    people = {"people": [{"name": "ada", "login": "ada", "roles": ["approver"]}]}
    (tmp_path / "people.json").write_text(json.dumps(people))
    image = {name: value.replace("/hospital/", f"{tmp_path}/") for name, value in _environment().items()}
    assert not [name for name in image if name.startswith(_ELSEWHERE)]
    site = {
        "DEPLOYR_ID_KEY": "a key of the site's own",
        "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir",
        "DEPLOYR_EMR_AUTH": "basic",
        "DEPLOYR_EMR_BASIC_USER": "bridge",
        "DEPLOYR_EMR_BASIC_PASSWORD": "secret",
    }
    assert read_settings(image | site).profile is Profile.PROD


def _environment():
    return {
        name: value
        for name, value in (each.split("=", 1) for each in shlex.split(_last("ENV")))
        if name.startswith(("DEPLOYR_", "AzureWebJobsStorage"))
    }
