"""Signing in to the dashboard by OpenID Connect, against a provider of our own on loopback."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from tests.browser.dashboard import serving, whole
from tests.browser.devtools import browser
from tests.browser.openid_provider import CLIENT, SECRET, Provider, provider
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
"""
ROLE = "Monitor.Read"


@pytest.fixture(scope="module")
def signing_in() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture(scope="module")
def address(signing_in: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a production dashboard that asks for a role."""
    folder = tmp_path_factory.mktemp("sign-in")
    write_extract(folder / "extract", packets(50))
    (folder / ".streamlit").mkdir()
    text = SECRETS.format(cookie_secret=COOKIE_SECRET, client=CLIENT, secret=SECRET, provider=signing_in.address)
    (folder / ".streamlit" / "secrets.toml").write_text(text, encoding="utf-8")
    with serving(
        folder / "extract", "--sign-in=entra", folder=folder, DEPLOYR_PROFILE="prod", DEPLOYR_DASH_ROLES=ROLE
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
