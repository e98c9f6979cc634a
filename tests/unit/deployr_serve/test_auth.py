"""Credentials go to their own origin and nowhere else, and a 401 is asked again only with others."""

from __future__ import annotations

import base64

import pytest

from deployr_serve.adapters.auth import NoCredentials, send_authorized
from deployr_serve.adapters.auth_basic import Basic
from deployr_serve.adapters.http import Request, origin
from deployr_serve.adapters.lent_token import LentToken
from deployr_serve.core.errors import EmrRefused

HERE = frozenset({origin("https://emr.example/fhir")})
PAIR = base64.b64encode(b"emp$bridge:p\xc3\xa4ss:word").decode()


def basic(client_id="client-1", origins=HERE):
    return Basic(user="emp$bridge", password="päss:word", client_id=client_id, origins=origins)


def lent(text="lent-CANARY"):
    return LentToken(token=text, origins=HERE)


def get(url="https://emr.example/fhir/Patient"):
    return Request(method="GET", url=url)


LOOK_ALIKES = [
    "http://emr.example/fhir/Patient",
    "https://emr.example:444/fhir",
    "https://emr.example.evil.example/fhir",
    "https://evil.example/https://emr.example/fhir",
    "https://emr.example@evil.example/fhir",
    "https://emr.example:443@evil.example/fhir",
    "https://user@emr.example/fhir",
    "https://user:pass@emr.example/fhir",
    "https://emr.example./fhir",
    "https://emr.example\\@evil.example/fhir",
    "https://emr.example\\.evil.example/fhir",
    "https://emr.example%2f.evil.example/fhir",
    "https://emr.example%2f@evil.example/fhir",
    "https://emr.example%00.evil.example/fhir",
    "https://emr.exаmple/fhir",
    "https://ｅmr.example/fhir",
    "https://emr。example/fhir",
    "https://emr.exam\tple/fhir",
    "https://emr.example\n.evil.example/fhir",
    " https://emr.example/fhir",
    "https://emr.example/fhir Patient",
    "//emr.example/fhir",
    "emr.example/fhir",
    "file://emr.example/etc/passwd",
    "javascript://emr.example/%0aalert(1)",
    "https://[emr.example/fhir",
    "https://emr.example:99999/fhir",
    "https://",
    "",
]


@pytest.mark.parametrize("url", LOOK_ALIKES)
@pytest.mark.parametrize("make", [basic, lent], ids=["basic", "lent"])
async def test_credentials_are_not_sent_to_what_only_looks_like_the_emr(transport_of, make, url):
    transport = transport_of({})
    with pytest.raises(EmrRefused, match="own origin"):
        await send_authorized(get(url), transport=transport, credentials=make())
    assert transport.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "https://emr.example/fhir/Patient?_id=a%2Fb#x",
        "https://emr.example:443/other",
        "https://EMR.Example/fhir",
        "HTTPS://emr.example/fhir",
        "https://emr.example/a@b",
        "https://emr.example?next=https://evil.example",
    ],
)
async def test_credentials_are_sent_to_the_same_origin_however_it_is_written(transport_of, url):
    transport = transport_of({})
    await send_authorized(get(url), transport=transport, credentials=basic())
    assert transport.requests[0].headers["Authorization"] == f"Basic {PAIR}"


async def test_no_credentials_send_nothing_and_a_401_is_not_asked_again(transport_of, status_of):
    transport = transport_of(status_of(401))
    response = await send_authorized(get(), transport=transport, credentials=NoCredentials())
    assert response.status == 401
    [request] = transport.requests
    assert request.headers == {}


async def test_basic_sends_user_and_password_in_utf_8_and_the_client_id(transport_of):
    transport = transport_of({})
    await send_authorized(get(), transport=transport, credentials=basic())
    assert transport.requests[0].headers == {"Authorization": f"Basic {PAIR}", "Epic-Client-ID": "client-1"}
    assert "Epic-Client-ID" not in await basic(client_id=None).headers()


def test_a_colon_would_end_the_user_name_and_is_refused():
    with pytest.raises(ValueError, match="colon"):
        Basic(user="a:b", password="x", client_id=None, origins=HERE)


@pytest.mark.parametrize("make", [basic, lent], ids=["basic", "lent"])
async def test_a_401_is_not_asked_again_where_there_are_no_others(transport_of, status_of, make):
    transport = transport_of(status_of(401))
    response = await send_authorized(get(), transport=transport, credentials=make())
    assert response.status == 401
    assert len(transport.requests) == 1


async def test_a_lent_token_is_sent_as_it_was_lent_and_never_shown(transport_of):
    transport = transport_of({})
    await send_authorized(get(), transport=transport, credentials=lent())
    [request] = transport.requests
    assert request.headers == {"Authorization": "Bearer lent-CANARY"}
    assert "CANARY" not in repr(lent()) + repr(request) + repr(basic())


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Injected: 1", "é", "a\x00"])
async def test_a_lent_token_that_could_start_another_header_is_refused_unsent(transport_of, token):
    transport = transport_of({})
    with pytest.raises(EmrRefused) as caught:
        await send_authorized(get(), transport=transport, credentials=lent(token))
    assert transport.requests == []
    assert not token or token not in str(caught.value)


async def test_nobody_says_what_these_were_granted():
    assert [await each.granted() for each in (NoCredentials(), basic(), lent())] == [None] * 3
