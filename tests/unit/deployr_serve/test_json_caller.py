"""Who calls the JSON routes, claim by claim and certificate by certificate."""

from __future__ import annotations

import base64
import time

import pytest

from deployr_serve.adapters.clock import SystemClock
from deployr_serve.core.caller import CallerRefused, read_token
from deployr_serve.core.errors import CallerNotAllowed, SettingsInvalid, TooManyRequests
from deployr_serve.json_bootstrap import json_callers
from deployr_serve.settings import read_settings
from tests.json_callers import (
    CERTIFICATE,
    FORGED_KEY,
    OTHERS,
    OURS,
    SECRET,
    VISITOR,
    basic,
    entra_token,
    write_callers,
)

NOW = int(time.time())


class Nowhere:
    """A network that must not be used: all keys are pinned."""

    async def send(self, request):
        raise AssertionError("expected no call")


@pytest.fixture
def let_in(tmp_path):
    """Give a function that lets in whoever sends these headers, and gives the name."""

    def make(**changes):
        source = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir"}
        settings = read_settings({**source, "DEPLOYR_JSON_CALLERS": write_callers(tmp_path, **changes)})
        callers = json_callers(settings.json, transport=Nowhere())

        async def ask(**headers):
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            return (await callers.let_in(named, correlation_id="c1")).name

        return ask

    return make


def bearer(**claims):
    return {"Authorization": "Bearer " + entra_token(**claims)}


async def test_a_token_may_be_used_again_until_it_ends(let_in):
    ask, headers = let_in(), bearer()
    assert [await ask(**headers) for _ in range(2)] == ["entra", "entra"]


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"key": FORGED_KEY}, "signature"),
        ({"algorithm": "RS384"}, "algorithm"),
        ({"iss": f"https://sts.windows.net/{OURS}/"}, "issuer"),
        ({"iss": f"https://login.microsoftonline.com/{OURS}/v2.0/"}, "issuer"),
        ({"iss": f"https://login.microsoftonline.com/{OURS}/v2.0", "tid": OTHERS}, "issuer"),
        ({"tid": VISITOR}, "issuer"),
        ({"tid": None}, "issuer"),
        ({"aud": VISITOR}, "audience"),
        ({"aud": ["33333333-cccc-4ccc-8ccc-333333333333"]}, "audience"),
        ({"azp": None}, "application"),
        ({"roles": "Scores.Ask"}, "roles"),
        ({"scp": "user_impersonation"}, "a-persons"),
        ({"exp": NOW - 120}, "expired"),
        ({"exp": "soon"}, "exp"),
        ({"exp": None}, "exp"),
        ({"iat": NOW + 3000}, "not-yet"),
        ({"nbf": NOW + 3000}, "not-yet"),
        ({"exp": NOW + 29 * 3600}, "life"),
    ],
)
async def test_a_token_that_does_not_hold_is_refused(let_in, claims, why):
    with pytest.raises(CallerRefused) as refused:
        await let_in()(**bearer(**claims))
    assert refused.value.why == why


@pytest.mark.parametrize("claims", [{"azp": VISITOR}, {"roles": []}, {"roles": None}, {"tid": OTHERS}])
async def test_an_application_that_is_not_listed_is_known_and_not_let_in(let_in, claims):
    with pytest.raises(CallerNotAllowed):
        await let_in()(**bearer(**claims))


async def test_a_certificate_counts_only_from_the_gateway(let_in):
    ask, certificate = let_in(), base64.b64encode(CERTIFICATE).decode()
    assert await ask(X_ARR_ClientCert=certificate, X_Gateway_Proof=SECRET) == "mutual"
    for proof in ({}, {"X_Gateway_Proof": ""}, {"X_Gateway_Proof": SECRET + "!"}, {"X_Gateway_Proof": "\ud800"}):
        with pytest.raises(CallerRefused):
            await ask(X_ARR_ClientCert=certificate, **proof)
    for wrong in ("!", "A" * 20_000):
        with pytest.raises(CallerRefused):
            await ask(X_ARR_ClientCert=wrong, X_Gateway_Proof=SECRET)
    with pytest.raises(CallerNotAllowed):
        await ask(X_ARR_ClientCert="AAAA", X_Gateway_Proof=SECRET)


async def test_the_gateways_secret_alone_is_nobodys(let_in):
    with pytest.raises(CallerRefused):
        await let_in()(X_Gateway_Proof=SECRET)


async def test_one_callers_flood_takes_nobody_elses_turn(let_in, monkeypatch):
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: 0.0)
    ask = let_in(per_second=0.5)
    engine, other = ({"Authorization": "Basic " + basic(name)} for name in ("engine", "other"))
    assert await ask(**engine) == "engine"
    with pytest.raises(TooManyRequests) as told:
        await ask(**engine)
    # An empty bucket that fills by half a request a second.
    assert told.value.retry_after_s == 2.0
    assert await ask(**other) == "other"


async def test_audit_lines_hold_nothing_that_came_in(let_in, caplog):
    ask = let_in()
    for headers in ({"Authorization": "Basic Q0FOQVJZOkNBTkFSWQ=="}, bearer(azp="CANARY"), bearer(iss="CANARY")):
        with pytest.raises((CallerRefused, CallerNotAllowed)):
            await ask(**headers)
    assert len(caplog.records) == 3
    assert "CANARY" not in caplog.text
    assert "Q0FO" not in caplog.text


def test_a_pinned_file_that_is_no_key_set_stops_the_start(tmp_path):
    source = {"DEPLOYR_BUNDLES": "bundles", "DEPLOYR_EMR_FHIR_BASE": "https://emr.example/fhir"}
    file = write_callers(tmp_path)
    (tmp_path / "entra.json").write_text("{}")
    settings = read_settings({**source, "DEPLOYR_JSON_CALLERS": file})
    with pytest.raises(SettingsInvalid, match="DEPLOYR_JSON_CALLERS"):
        json_callers(settings.json, transport=Nowhere())


def test_a_token_without_a_signature_is_none():
    with pytest.raises(CallerRefused):
        read_token(entra_token(key=None, algorithm="none"))
