"""The linter's list holds: clock, environment, chance and bare network calls stay at the edges, and nobody sleeps."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruff import find_ruff_bin

ROOT = Path(__file__).parents[1]

BANNED = {
    "the time": "import datetime\n\nprinted = datetime.datetime.now(datetime.UTC)\n",
    "the time, by another way": "from datetime import UTC, datetime\n\nprinted = datetime.now(UTC)\n",
    "the naive time": "import datetime\n\nprinted = datetime.datetime.utcnow()\n",
    "the day": "import datetime\n\nprinted = datetime.date.today()\n",
    "seconds": "import time\n\nstarted = time.time()\n",
    "seconds, by another way": "from time import time\n\nstarted = time()\n",
    "nanoseconds": "import time\n\nstarted = time.time_ns()\n",
    "a steady clock": "import time\n\nstarted = time.monotonic()\n",
    "a stopwatch": "import time\n\nstarted = time.perf_counter()\n",
    "sleep": "import time\n\ntime.sleep(1)\n",
    "the environment": 'import os\n\nkey = os.environ["KEY"]\n',
    "the environment, by another way": "from os import environ\n\nkey = environ\n",
    "one variable": 'import os\n\nkey = os.getenv("KEY")\n',
    "chance": "import random\n\ndraw = random.random()\n",
    "chance, by another way": "from random import choice\n\ndraw = choice\n",
    "secret chance": "import secrets\n\nkey = secrets.token_hex()\n",
    "an id by chance": "import uuid\n\nkey = uuid.uuid4()\n",
    "an id by clock": "import uuid\n\nkey = uuid.uuid1()\n",
    "hidden chance": "import numpy as np\n\nnp.random.seed(1)\n",
    "a GET without limits": 'import requests\n\nanswer = requests.get("https://emr.example/", timeout=1)\n',
    "a POST without limits": 'import requests\n\nanswer = requests.post("https://emr.example/", timeout=1)\n',
    "a session without limits": "import requests\n\nsession = requests.Session()\n",
    "a pickle": "import pickle\n\nmodel = pickle.loads\n",
    "a pickle, by another way": "from pickle import loads\n\nmodel = loads\n",
}
INNER = "deployr_core/x.py"
EDGE = "deployr_serve/adapters/x.py"


def banned_lines(snippet: str, file: str) -> list[int]:
    """Give the lines on which ruff, with the project's settings, finds a banned API."""
    command = [find_ruff_bin(), "check", "--config", "pyproject.toml", "--no-cache", "--quiet"]
    finished = subprocess.run(
        [*command, "--output-format", "json", "--stdin-filename", file, "-"],
        input=snippet,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode in {0, 1}, finished.stderr
    return [found["location"]["row"] for found in json.loads(finished.stdout) if found["code"] == "TID251"]


@pytest.mark.parametrize("what", BANNED)
def test_an_inner_module_must_not_use(what: str) -> None:
    assert banned_lines(BANNED[what], INNER)


@pytest.mark.parametrize("what", BANNED)
def test_an_adapter_may_use(what: str) -> None:
    assert banned_lines(BANNED[what], EDGE) == []


@pytest.mark.parametrize(
    "file",
    [
        "deployr_dev/x.py",
        "deployr_serve/core/x.py",
        "deployr_serve/triggers/x.py",
        "deployr_serve/outputs/x.py",
        "deployr_serve/bootstrap.py",
        "deployr_serve/blueprint.py",
        "deployr_serve/settings.py",
        "label_extractors/x.py",
        "deployr_dash/x.py",
    ],
)
def test_the_ban_holds_in(file: str) -> None:
    assert banned_lines("".join(BANNED.values()), file)


def test_what_is_pure_is_not_banned() -> None:
    pure = "import numpy as np\n\nrng = np.random.default_rng(1)\n"
    assert banned_lines(pure, INNER) == []


# Tests may read the clock, so ruff lets them sleep too: this does not.

SLEEPERS = {("time", "sleep"), ("asyncio", "sleep")}


def sleeps(source: str) -> list[int]:
    """Give the lines that call ``time.sleep`` or ``asyncio.sleep``, by whatever name, with a positive literal."""
    if "sleep" not in source:
        return []  # Whatever the call is named here, its import says the word.
    tree = ast.parse(source)
    names = set(_names_of_sleep(tree))
    return sorted(
        node.lineno
        for node in (ast.walk(tree) if names else ())
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in names
        and any(_is_positive_literal(each) for each in [*node.args, *(each.value for each in node.keywords)])
    )


def _names_of_sleep(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (f"{a.asname or a.name}.sleep" for a in node.names if (a.name, "sleep") in SLEEPERS)
            case ast.ImportFrom():
                yield from (a.asname or a.name for a in node.names if (node.module, a.name) in SLEEPERS)


def _is_positive_literal(node: ast.expr) -> bool:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return False
    return isinstance(value, int | float) and value > 0


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import time\ntime.sleep(1)", [2]),
        ("import time as t\nt.sleep(0.01)", [2]),
        ("from time import sleep\nsleep(1)", [2]),
        ("from asyncio import sleep as rest\nasync def f():\n    await rest(delay=1)", [3]),
        ("import asyncio\nasync def f():\n    await asyncio.sleep(0.1)", [3]),
        ("import asyncio\nasync def f():\n    await asyncio.sleep(0)", []),
        ("import asyncio\nasync def f(s):\n    await asyncio.sleep(s)", []),
        ("async def f(clock):\n    await clock.sleep(1)", []),
    ],
)
def test_a_sleep_is_found_by_whatever_name(source: str, lines: list[int]) -> None:
    assert sleeps(source) == lines


def test_neither_the_product_nor_its_tests_sleep() -> None:
    """Adapters may: there a clock that is real is what it is about. So may the mock EMR, which plays a slow one."""
    adapters = ROOT / "deployr_serve" / "adapters"
    tops = ("deployr_*", "label_extractors", "benchmarks", "tests")
    files = [file for top in tops for folder in ROOT.glob(top) for file in folder.rglob("*.py")]
    files = [file for file in files if not file.is_relative_to(adapters)]
    found = [f"{file.relative_to(ROOT)}:{line}" for file in files for line in sleeps(file.read_text(encoding="utf-8"))]
    assert len(files) > 20
    assert found == []
