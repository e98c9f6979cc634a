"""A token is fetched by one for all, held for as long as it is good, and shared by nobody else."""

from __future__ import annotations

import asyncio

import jwt
import pytest

from deployr_serve.adapters.auth import send_authorized
from deployr_serve.adapters.client_keys import ClientKey
from deployr_serve.adapters.http import Request, Response
from deployr_serve.adapters.token_cache import TokenCache
from deployr_serve.core.errors import (
    EmrRefused,
    EmrTimeout,
)
from tests.unit.deployr_serve.authority import TOKEN_URL, FakeAuthority, failed, settled

# -- how long a token is held


@pytest.mark.parametrize(
    ("expires_in", "unused_after_s"),
    [
        (300, 285),  # 15 s before its end
        (60, 45),
        ("left out", 45),  # as if it were 60 s
        (None, 45),
        (40, 30),  # three quarters of its life, where 15 s would be more
        (3600, 3585),
        (1e12, 3585),  # no token is held longer than an hour
        (0.5, 0.375),
    ],
)
async def test_a_token_is_not_used_at_the_end_of_its_life(backend_of, clock, expires_in, unused_after_s):
    authority = FakeAuthority(token={"expires_in": expires_in})
    backend = backend_of(authority)
    await backend.headers()
    authority.open.clear()  # the next one is long in coming
    clock.pass_time(unused_after_s * 0.999)
    assert await backend.headers() == {"Authorization": "Bearer t1"}
    clock.pass_time(unused_after_s * 0.002)
    late = asyncio.create_task(backend.headers())
    await settled()
    assert not late.done()
    authority.open.set()
    assert await late == {"Authorization": "Bearer t2"}


@pytest.mark.parametrize(("expires_in", "renewed_after_s"), [(300, 240), (60, 30), (100, 50)])
async def test_a_token_is_renewed_beside_the_requests_before_it_ends(backend_of, clock, expires_in, renewed_after_s):
    authority = FakeAuthority(token={"expires_in": expires_in})
    backend = backend_of(authority)
    await backend.headers()
    clock.pass_time(renewed_after_s * 0.999)
    await backend.headers()
    await settled()
    assert len(authority.token_requests) == 1
    clock.pass_time(renewed_after_s * 0.002)
    answers = await asyncio.gather(*(backend.headers() for _ in range(50)))
    assert answers == [{"Authorization": "Bearer t1"}] * 50
    await settled()
    assert await backend.headers() == {"Authorization": "Bearer t2"}
    assert len(authority.token_requests) == 2


async def test_a_renewal_that_fails_costs_nothing_and_is_tried_again_after_five_seconds(backend_of, clock):
    authority = FakeAuthority(statuses=[200, 500])
    backend = backend_of(authority)
    await backend.headers()
    clock.pass_time(241)
    for passed, asked in ((0, 2), (4.9, 2), (0.2, 3)):
        clock.pass_time(passed)
        assert await backend.headers() == {"Authorization": "Bearer t1"}
        await settled()
        assert len(authority.token_requests) == asked
    assert await backend.headers() == {"Authorization": "Bearer t3"}


async def test_a_tokens_life_counts_from_when_it_was_asked_for(backend_of, clock):
    class Slow(FakeAuthority):
        async def send(self, request):
            clock.pass_time(20)
            return await super().send(request)

    authority = Slow()
    backend = backend_of(authority)
    await backend.headers()  # asked for 20 s in, answered 40 s in, renewed from 20 + 240
    clock.pass_time(219)
    await backend.headers()
    await settled()
    assert len(authority.token_requests) == 1
    clock.pass_time(1)
    await backend.headers()
    await settled()
    assert len(authority.token_requests) == 2


# -- many at once


async def test_two_hundred_callers_at_once_fetch_one_token(backend_of):
    authority = FakeAuthority()
    backend = backend_of(authority)
    answers = await asyncio.gather(*(backend.headers() for _ in range(200)))
    assert answers == [{"Authorization": "Bearer t1"}] * 200
    assert len(authority.requests) == 2


@pytest.mark.parametrize("what", ["discovery", "token"])
async def test_a_failure_is_everybodys_who_waited_and_each_has_it_to_himself(backend_of, what):
    class Down(FakeAuthority):
        async def send(self, request):
            response = await super().send(request)
            if (request.method == "GET") is (what == "discovery"):
                raise failed(EmrTimeout("slow"))
            return response

    authority = Down()
    backend = backend_of(authority)
    errors = await asyncio.gather(*(backend.headers() for _ in range(200)), return_exceptions=True)
    assert {type(error) for error in errors} == {EmrTimeout}
    assert len({id(error) for error in errors}) == 200  # whoever adds evidence to one adds it to his own
    assert len(authority.requests) == {"discovery": 1, "token": 2}[what]


async def test_a_failure_is_not_remembered(backend_of):
    authority = FakeAuthority(statuses=[failed(EmrTimeout("slow"))])
    backend = backend_of(authority)
    with pytest.raises(EmrTimeout):
        await backend.headers()
    assert await backend.headers() == {"Authorization": "Bearer t2"}


async def test_the_first_who_gives_up_does_not_keep_the_others_from_their_token(backend_of):
    authority = FakeAuthority()
    authority.open.clear()
    backend = backend_of(authority)
    first = asyncio.create_task(backend.headers())
    others = [asyncio.create_task(backend.headers()) for _ in range(5)]
    await settled()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    authority.open.set()
    assert await asyncio.gather(*others) == [{"Authorization": "Bearer t1"}] * 5
    assert len(authority.token_requests) == 1


async def test_who_has_no_time_left_waits_no_longer_and_the_fetch_goes_on(backend_of, budget_of):
    authority = FakeAuthority()
    authority.open.clear()
    backend = backend_of(authority)
    patient = asyncio.create_task(backend.headers(budget=budget_of(60)))
    await settled()
    with pytest.raises(EmrTimeout):
        await backend.headers(budget=budget_of(0))
    authority.open.set()
    assert await patient == {"Authorization": "Bearer t1"}


@pytest.mark.parametrize(
    "other",
    [
        {"fhir_base": "https://emr.example/api/FHIR/tenant-2"},
        {"client_id": "client-2"},
        {"scope": "system/*.rs"},
        {"key_id": "key-2"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_tokens_are_shared_by_nobody_who_differs_in_anything(backend_of, clock, other):
    cache, authority = TokenCache(clock=clock), FakeAuthority()
    one, two = backend_of(authority, cache=cache), backend_of(authority, cache=cache, **other)
    assert await one.headers() != await two.headers()
    assert (await one.headers(), await two.headers()) == (
        {"Authorization": "Bearer t1"},
        {"Authorization": "Bearer t2"},
    )
    same = backend_of(authority, cache=cache)
    assert await same.headers() == {"Authorization": "Bearer t1"}


async def test_tokens_of_two_endpoints_are_never_mixed_up(backend_of, clock):
    cache = TokenCache(clock=clock)
    one = FakeAuthority(token={"access_token": "of-one"})
    two = FakeAuthority(token={"access_token": "of-two"}, discovery={"token_endpoint": TOKEN_URL + "/2"})
    assert await backend_of(one, cache=cache).headers() == {"Authorization": "Bearer of-one"}
    assert await backend_of(two, cache=cache).headers() == {"Authorization": "Bearer of-two"}


# -- refused tokens


async def test_a_401_is_asked_once_more_with_a_new_token(backend_of, fhir_base):
    authority = FakeAuthority()
    backend = backend_of(authority)
    seen = []

    class Emr:
        async def send(self, request):
            seen.append(request.headers["Authorization"])
            return Response(status=401, content_type="text/plain", body=b"")

    response = await send_authorized(
        Request(method="GET", url=f"{fhir_base}/Patient"), transport=Emr(), credentials=backend
    )
    assert (response.status, seen) == (401, ["Bearer t1", "Bearer t2"])


async def test_a_late_refusal_of_an_old_token_does_not_throw_the_new_one_away(backend_of):
    authority = FakeAuthority()
    backend = backend_of(authority)
    old = await backend.headers()
    for _ in range(6):  # as many searches as were under way with it
        assert backend.refused(old)
        assert await backend.headers() == {"Authorization": "Bearer t2"}
    assert len(authority.token_requests) == 2


# -- rotation


class Rotating:
    """Holds one key, and finds the next one when it looks again."""

    def __init__(self, *keys):
        self._keys = list(keys)

    def current(self):
        return self._keys[0]

    async def reread(self):
        self._keys = self._keys[1:] or self._keys
        return self._keys[0]

    def published(self):
        return ()


async def test_a_key_that_the_emr_no_longer_takes_is_looked_up_again_at_once(backend_of, keys):
    old, new = (ClientKey(private=keys["ES384"], key_id=key_id, algorithm="ES384") for key_id in ("key-1", "key-2"))
    authority = FakeAuthority(statuses=[400])
    backend = backend_of(authority, keys_from=Rotating(old, new))
    assert await backend.headers() == {"Authorization": "Bearer t2"}
    signed_by = [
        jwt.get_unverified_header(dict(request.form)["client_assertion"])["kid"] for request in authority.token_requests
    ]
    assert signed_by == ["key-1", "key-2"]


async def test_a_key_that_is_the_same_when_looked_up_again_is_not_tried_twice(backend_of):
    authority = FakeAuthority(statuses=[400, 400])
    with pytest.raises(EmrRefused):
        await backend_of(authority).headers()
    assert len(authority.token_requests) == 1


async def test_nothing_that_is_held_shows_a_token(backend_of, clock):
    cache = TokenCache(clock=clock)
    backend = backend_of(FakeAuthority(token={"access_token": "CANARY"}), cache=cache)
    await backend.headers()
    assert "CANARY" not in repr(vars(cache)) + repr(vars(backend))
