"""The transcripts of docs/cds-hooks.md are what happens."""

from __future__ import annotations

import json
import re
import shlex
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.functional.deployr_serve.cds_parts import advise

PAGE = Path(__file__).parents[3] / "docs" / "cds-hooks.md"
TRANSCRIPTS = re.findall(r"```console\n\$ (curl .*?)\n((?:\{|\d).*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


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
            return fnmatchcase(came, re.sub(r"([\[*?])", r"[\1]", shown).replace("…", "*"))
        case _:
            return shown == came


@pytest.fixture
async def asked(app_of, emr_of, chart_of, tmp_path):
    """Give a function that does what a curl command does, and gives status and body."""
    emr = await emr_of(*chart_of("p1", "e1", "o1", "42", "lab", value=30.0, birth="1950-03-04"))
    app = app_of(emr.url, **advise(tmp_path, "hematocrit", "anemia"))

    async def ask(command, card=""):
        words = shlex.split(command.replace("$CARD", card))
        body = words[words.index("-d") + 1].encode() if "-d" in words else b""
        [url] = [word for word in words if word.startswith("http://localhost:7071/cds-services")]
        path = url.partition("/cds-services")[2].removeprefix("/")
        headers = {"Content-Type": "application/json"} if "Content-Type: application/json" in words else {}
        answer = await app.cds("POST" if body else "GET", path, headers=headers, body=body)
        return answer.status_code, answer.get_body()

    return ask


async def test_the_transcripts_are_what_happens(asked):
    (discovery, services), (call, cards), (feedback, status) = TRANSCRIPTS
    assert fits(json.loads(services), json.loads((await asked(discovery))[1]))
    came = json.loads((await asked(call))[1])
    assert fits(json.loads(cards), came)
    assert (await asked(feedback, came["cards"][0]["uuid"]))[0] == int(status)
