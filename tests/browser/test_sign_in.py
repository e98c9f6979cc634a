"""Signing in to the dashboard by OpenID Connect, against a provider of our own on loopback."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from tests.browser.dashboard import rules_broken, seen, whole
from tests.browser.devtools import browser
from tests.browser.openid_provider import CLIENT, SECRET, Provider, provider
from tests.dashboard_process import serving
from tests.registry_app import app, says
from tests.registry_site import RegistrySite
from tests.unit.deployr_dash.made_up import packets, write_extract

pytest.importorskip("streamlit", reason="needs streamlit: deployr[dash] installs it")
pytest.importorskip("authlib", reason="needs Authlib: deployr[dash] installs it")
pytestmark = pytest.mark.slow

COOKIE_SECRET = "drawn-at-random-and-long-enough-"
SECRETS = """[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "{cookie_secret}"
client_id = "{client}"
client_secret = "{secret}"
server_metadata_url = "{provider}/.well-known/openid-configuration"
expose_tokens = ["access"]
client_kwargs = {{ scope = "openid profile email api://deployr/registry" }}
"""
ROLE = "Monitor.Read"


@pytest.fixture(scope="module")
def signing_in() -> Iterator[Provider]:
    with provider() as made:
        yield made


class Decider:
    """What stands for the app. ``answers``: to the next deeds, in turn; ``asked``: what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.address, self.asked = "", list[Any]()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        says(request, *self.answers.pop(0))


@pytest.fixture(scope="module")
def decider() -> Iterator[Decider]:
    made = Decider()
    with app(made.answer) as (made.address, made.asked):
        yield made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, bundle_files: Mapping[str, bytes]) -> RegistrySite:
    made = RegistrySite(tmp_path_factory.mktemp("sign-in"), bundle_files)
    asyncio.run(made.write())
    return made


@pytest.fixture(scope="module")
def address(signing_in: Provider, site: RegistrySite, decider: Decider) -> Iterator[str]:
    """Give the address of a dashboard that asks for a role, and sends deeds to the app."""
    folder = site.folder
    write_extract(folder / "extract", packets(50))
    (folder / ".streamlit").mkdir()
    text = SECRETS.format(cookie_secret=COOKIE_SECRET, client=CLIENT, secret=SECRET, provider=signing_in.address)
    (folder / ".streamlit" / "secrets.toml").write_text(text, encoding="utf-8")
    with serving(
        folder / "extract",
        "--sign-in=entra",
        "--settings=local.settings.json",
        folder=folder,
        DEPLOYR_DASH_ROLES=ROLE,
        DEPLOYR_DASH_APP=decider.address,
        DEPLOYR_DASH_APP_KEY="of-the-routes",
    ) as found:
        yield found


@pytest.fixture(autouse=True)
def right_claims(signing_in: Provider) -> None:
    signing_in.changes, signing_in.forged = {}, False


async def test_nobody_sees_anything_before_they_sign_in_with_a_role_nor_after_they_sign_out(
    address: str, signing_in: Provider, tmp_path: Path
) -> None:
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        pytest.skip("needs chromium: apt-get install chromium")
    async with browser(tmp_path) as page:
        await page.open(address)
        assert "Sign in with your work account" in await whole(page)
        assert "hematocrit" not in await page.js("document.body.innerText")

        signing_in.changes = {"roles": ["Another"]}
        await page.go(button("Sign in"))
        assert "You are signed in as Ada Lovelace, without the role Monitor.Read" in await whole(page)
        assert "hematocrit" not in await page.js("document.body.innerText")
        await page.go(button("Sign out"))

        signing_in.changes = {}
        await whole(page)
        await page.go(button("Sign in"))
        await page.until("document.querySelector('.d-glance')")
        words = await whole(page)
        assert "hematocrit" in words
        assert "Ada Lovelace" in words

        await page.go(button("Sign out"))
        assert "Sign in with your work account" in await whole(page)
        held = await page.ask("Network.getCookies")
        assert not [cookie["name"] for cookie in held["cookies"] if cookie["name"].startswith("_streamlit_user")]
    assert [told["client_id"] for told in signing_in.signed_out] == [CLIENT, CLIENT]


async def test_a_deed_goes_to_the_app_under_the_signed_in_persons_own_token(
    address: str, site: RegistrySite, decider: Decider, tmp_path: Path
) -> None:
    run = site.challenger.run_id
    refused = {"reason": "own-run", "said": f"{run} was trained by ada: somebody else has to approve it"}
    done = {"entry": {"who": "ada", "role": "approver", "number": 13}, "note": ""}
    decider.answers[:] = [(403, refused), (200, done)]
    async with browser(tmp_path) as page:
        await page.open(address)
        await whole(page)
        await page.go(button("Sign in"))
        await page.until("document.querySelector('.d-glance')")
        words = await seen(page, f"{address}decide?model=hematocrit&run={run}&deed=approve", name="decide-light")
        assert "You are signed in as Ada Lovelace; the app decides whether you may." in words
        await page.js(button(f"Approve {run}"))
        await page.until("document.querySelector('.d-alarm')")
        assert "takes a reason in words" in await whole(page)
        assert decider.asked == []

        await page.js("document.querySelector('textarea').focus()")
        await page.write("as good, and newer")
        await page.js("document.querySelector('[type=checkbox]').click()")
        await page.js(button(f"Approve {run}"))
        await page.until("document.querySelector('.d-alarm').innerText.includes('second pair of eyes')")
        assert "somebody else has to approve it." in await whole(page, name="refused-light")
        assert await rules_broken(page) == []

        await page.js(button(f"Approve {run}"))
        await page.until("document.querySelector('.d-help')")
        assert "Done, by ada as approver: entry 13 of the journal." in await whole(page)
        assert await page.js("document.querySelectorAll('textarea').length") == 0
    first, second = decider.asked
    assert first[0] == f"/api/registry/models/hematocrit/runs/{run}/approve"
    # What the provider gave: its answer's access token, to nobody else.
    assert (first[1]["Authorization"], first[1]["x-functions-key"]) == ("Bearer a", "of-the-routes")
    assert (second[2]["why"], second[2]["despite_failed"]) == ("as good, and newer", True)
    assert "parity" in {each["item"] for each in second[2]["checklist"]}


def button(name: str) -> str:
    """Give the script that presses a button."""
    buttons = "[...document.querySelectorAll('button')]"
    return f"{buttons}.find((each) => each.innerText.trim() === '{name}').click()"


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "another-app"},
        {"aud": "another-app", "azp": "another-app"},
        {"iss": "https://login.elsewhere.example"},
        {"exp": 1_700_000_000},
        {"nonce": "of-another-visit"},
        {"forged": True},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_us_or_not_true_signs_nobody_in(
    address: str, signing_in: Provider, wrong: dict[str, Any]
) -> None:
    signing_in.forged = bool(wrong.get("forged"))
    signing_in.changes = {name: value for name, value in wrong.items() if name != "forged"}
    assert "_streamlit_user" not in await cookies_after(address)


async def test_a_token_that_is_right_signs_in(address: str) -> None:
    assert "_streamlit_user" in await cookies_after(address)


async def cookies_after(address: str) -> set[str]:
    """Give the names of the cookies that somebody has after signing in."""
    # What a click on the page asks for: Streamlit signs which provider it is.
    asked = jwt.encode({"provider": "default", "exp": time.time() + 60}, COOKIE_SECRET, algorithm="HS256")
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        aiohttp.ClientSession(cookie_jar=jar) as session,
        session.get(f"{address}auth/login", params={"provider": asked}) as answer,
    ):
        assert answer.status == 200
        assert [each.url.path for each in answer.history] == ["/auth/login", "/authorize", "/oauth2callback"]
    return {cookie.key for cookie in jar if cookie.value}
