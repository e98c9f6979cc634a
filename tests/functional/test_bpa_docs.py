"""The commands of docs/bpa.md, run by a shell against the app, say what the page says that they say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from mock_emr.hosting import listening
from tests.cda import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "bpa.md"
LOGIN = "epic:correct horse battery"
DEPLOYMENT = """\
schema_version: 1
model: hematocrit
mode: live
threshold: 0.5
advisory:
  headline: "Hematocrit is likely to stay abnormal: {score_percent}"
  detail: "The last result may stand; consider whether to repeat it today."
  acknowledge_reasons: [{code: sicker, display: The patient's state has changed}]
"""


def transcripts(text):
    """Give each command of the page with what it says."""
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, said = part.partition("\n")
            yield command, said


async def shell(command, **variables):
    running = await asyncio.create_subprocess_shell(
        command, cwd=ROOT, env={**os.environ, **variables}, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await running.communicate()
    return said.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
async def test_the_commands_of_the_page_say_what_it_says(emr_of, chart_of, app_of, tmp_path):
    emr = await emr_of(*chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04"))
    (tmp_path / "hematocrit.yaml").write_text(DEPLOYMENT)
    user, _, password = LOGIN.partition(":")
    app = app_of(
        emr.url,
        **SETTINGS,
        DEPLOYR_DEPLOYMENTS=str(tmp_path),
        DEPLOYR_BPA_CALLERS=json.dumps({user: password}),
    )

    async def answer(request):
        got = await app.bpa(await request.body(), model=request.path_params["name"], headers=dict(request.headers))
        return Response(got.get_body(), status_code=got.status_code, headers=dict(got.headers), media_type=got.mimetype)

    text, shown = PAGE.read_text(encoding="utf-8"), []
    async with listening(lambda _: Starlette(routes=[Route("/api/bpa/{name}", answer, methods=["POST"])])) as url:
        for command, expected in transcripts(text):
            said = await shell(command, BRIDGE=url, LOGIN=LOGIN)
            shown.append((command, said if said.endswith("\n") else f"{said}\n", expected))
    assert len(shown) == 5
    if "DEPLOYR_WRITE_SNAPSHOTS" in os.environ:
        for command, said, expected in shown:
            text = text.replace(f"$ {command}\n{expected}", f"$ {command}\n{said}")
        PAGE.write_text(text, encoding="utf-8")
    assert [said for _, said, _ in shown] == [expected for _, _, expected in shown]
