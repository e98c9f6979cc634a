"""How this EMR asks the bridge about an order that is being signed: where, in which way, and for how long it waits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key

from mock_emr.cds_client import Reply, Signer
from mock_emr.emr import Emr
from mock_emr.screens.wire import Exchange, Said, Wire, without_secrets

_LONGEST_ANSWER = 1_000_000
_KEY_ID = "emr-1"


class BridgeError(ValueError):
    """The settings cannot be used; the message says where, and what was expected."""


class NoAnswer(Exception):
    """The bridge did not answer, not in time, or not with what was expected: the clinician is told nothing."""


class BridgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the bridge is and how it is asked.

    ``address`` has no path. ``services`` are ids of CDS services, or models and groups for an alert that sends CDA.
    ``login`` is `user:password` for the latter. ``wait_s`` is how long signing waits for all of it.
    """

    address: Annotated[str, msgspec.Meta(pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+/?$")]
    way: Literal["cds-hooks", "bpa"] = "cds-hooks"
    services: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    login: str | None = None
    wait_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0


def settings_in(body: bytes) -> BridgeSettings:
    """Read the settings from JSON.

    Raises:
        BridgeError: they cannot be used.
    """
    try:
        return msgspec.json.decode(body, type=BridgeSettings)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BridgeError(f"expected where the bridge is and how it is asked: {error}") from error


class Bridge:
    """Asks the bridge, and notes every word of it."""

    def __init__(self, emr: Emr, wire: Wire) -> None:
        self._emr = emr
        self._wire = wire
        self._key = generate_private_key(SECP384R1())
        self.settings: BridgeSettings | None = None

    def real_now(self) -> datetime:
        """Give the real instant, which tokens go by."""
        return self._emr.clock.real_now()

    def signer(self, issuer: str) -> Signer:
        """Give what signs this EMR's calls of CDS services, with a key of this run's own."""
        return Signer(issuer=issuer, key=self._key, key_id=_KEY_ID)

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Reach the bridge.

        Raises:
            NoAnswer: nothing came, or too much.
        """
        number, at, started = self._wire.next_number(), self._emr.clock.now(), self._emr.monotonic()
        asked = Said(start=f"{method} {url}", headers=without_secrets(headers), body=body)
        reply: Reply | None = None
        failure: str | None = "not in time"
        try:
            reply = await _fetch(method, url, headers, body)
            failure = None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = type(error).__name__
            raise NoAnswer(failure) from error
        finally:
            self._wire.note(
                Exchange(
                    number=number,
                    at=at,
                    asked=asked,
                    answer=None if reply is None else _answer(reply),
                    failure=failure,
                    duration_ms=(self._emr.monotonic() - started) * 1000,
                )
            )
        return reply


async def _fetch(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
    async with (
        aiohttp.ClientSession(auto_decompress=True) as session,
        session.request(method, url, headers=headers, data=body or None, allow_redirects=False) as response,
    ):
        said = await response.content.read(_LONGEST_ANSWER + 1)
        while len(said) <= _LONGEST_ANSWER and (more := await response.content.read(_LONGEST_ANSWER)):
            said += more
        if len(said) > _LONGEST_ANSWER:
            raise ValueError("the answer is too long")
        named = {name.lower(): value for name, value in response.headers.items()}
        return Reply(status=response.status, headers=named, body=said)


def _answer(reply: Reply) -> Said:
    return Said(start=f"Status {reply.status}", headers=without_secrets(reply.headers), body=reply.body)
