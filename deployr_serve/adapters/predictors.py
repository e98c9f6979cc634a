"""Asks models that answer elsewhere, over HTTP: within a time, past a circuit, and with a limit on what comes back.

It blocks, as models do; it is called in the threads that somebody else's code runs in (`adapters.threads`), and nobody
waits for these longer than the request has. Nothing that was asked or answered is logged or repeated in a message.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from deployr_core.elsewhere import Answered, Ask, PredictorFile
from deployr_core.scoring import ModelAway, ModelUnusable, ScoreInvalid
from deployr_serve.adapters import breaker
from deployr_serve.adapters.breaker import BreakerPolicy, Circuit, Closed, HalfOpen, Outcome
from deployr_serve.adapters.tls import tls_context
from deployr_serve.core.ports import Clock

LONGEST_ANSWER = 1_000_000
"""Bytes; the golden rows' answers together take a few hundred."""

_AWAY = frozenset({408, 425, 429, 502, 503, 504})
_UNAVAILABLE = frozenset({502, 503, 504})
_POLICY = BreakerPolicy(in_a_row=5, least_calls=20)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a predictor answers: the whole URL that is posted to. ``token``: sent as a bearer's; None sends none."""

    url: str
    token: str | None = field(default=None, repr=False)


class Predictors:
    """The predictors that a site names, each with a circuit of its own.

    Redirects are not followed, and proxies of the environment are not used.

    Args:
        addresses: by the name that bundles use.
        clock: times are measured on it.
        timeout_s: of one call.
        version_header: which header of an answer says what the model is called, where the answer does not; lower case.
        ca_file: certificates (PEM) of a hospital's own authority.

    Raises:
        OSError, ssl.SSLError: the file cannot be read, or holds no certificates.
    """

    def __init__(
        self,
        addresses: Mapping[str, Address],
        *,
        clock: Clock,
        timeout_s: float = 2.0,
        version_header: str = "x-model-version",
        ca_file: Path | None = None,
    ) -> None:
        self._addresses = addresses
        self._ways: dict[str, _Way] = {}
        self._clock = clock
        self._timeout_s = timeout_s
        self._version_header = version_header
        self._tls = tls_context(ca_file)

    def reach(self, file: PredictorFile) -> Ask:
        """Give the way to a predictor; see `deployr_core.elsewhere.Reach`."""
        name = file.predictor
        address = self._addresses.get(name)
        if address is None:
            raise ModelUnusable(f"expected the address of {name} in DEPLOYR_PREDICTORS")
        if file.protocol == "databricks" and address.token is None:
            raise ModelUnusable(f"expected the token of {name} in DEPLOYR_PREDICTOR_TOKENS")
        if name not in self._ways:
            self._ways[name] = _Way(
                name,
                address,
                clock=self._clock,
                timeout_s=self._timeout_s,
                version_header=self._version_header,
                tls=self._tls if address.url.startswith("https://") else None,
            )
        return self._ways[name].ask


class _Way:
    def __init__(
        self,
        name: str,
        address: Address,
        *,
        clock: Clock,
        timeout_s: float,
        version_header: str,
        tls: ssl.SSLContext | None,
    ) -> None:
        parts = urlsplit(address.url)
        # Without a port http.client would look for one behind the last colon, and find it in an IPv6 address.
        self._host, self._port = parts.hostname or "", parts.port or (80 if tls is None else 443)
        self._path = parts.path or "/"
        self._name = name
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if address.token is not None:
            self._headers["Authorization"] = f"Bearer {address.token}"
        self._clock = clock
        self._timeout_s = timeout_s
        self._version_header = version_header
        self._tls = tls
        self._circuit: Circuit = Closed()
        self._lock = threading.Lock()

    def ask(self, body: bytes) -> Answered:
        """Send and read the whole answer; see `deployr_core.elsewhere.Ask`."""
        with self._lock:
            now = self._clock.monotonic()
            if breaker.wait_s(self._circuit, now) > 0:
                raise ModelAway(f"expected {self._name} to be available; it was not lately, so its circuit is open")
            self._circuit = breaker.sent(self._circuit, now, _POLICY)
            probe = isinstance(self._circuit, HalfOpen)
        outcome = Outcome.UNKNOWN
        try:
            status, told, content = self._sent(body, until=now + self._timeout_s)
            outcome = Outcome.UNAVAILABLE if status in _UNAVAILABLE else Outcome.ANSWERED
        except TimeoutError:
            outcome = Outcome.UNAVAILABLE
            raise ModelAway(f"expected an answer of {self._name} within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException):
            # Not chained: some repeat bytes of the answer.
            outcome = Outcome.UNAVAILABLE
            raise ModelAway(f"expected {self._name} to take the connection and to answer") from None
        finally:
            self._note(outcome, probe=probe)
        if status in _AWAY:
            raise ModelAway(f"expected {self._name} to be available, got status {status}")
        if status != http.client.OK:
            raise ScoreInvalid(f"expected {self._name} to answer, got status {status}")
        if len(content) > LONGEST_ANSWER:
            raise ScoreInvalid(f"expected an answer of {self._name} of at most {LONGEST_ANSWER} bytes")
        return Answered(body=content, answered_by=told)

    def _note(self, outcome: Outcome, *, probe: bool) -> None:
        with self._lock:
            was = self._circuit
            self._circuit = breaker.ended(was, outcome, self._clock.monotonic(), _POLICY, probe=probe)
            opens = isinstance(was, Closed) and not isinstance(self._circuit, Closed)
        if opens:
            _log.error("predictor %s does not answer: it is left alone for %g s", self._name, _POLICY.open_s)

    def _sent(self, body: bytes, *, until: float) -> tuple[int, str | None, bytes]:
        # A connection for each call: one that is kept would have to be closed by somebody, and may be stale.
        connection = self._opened(timeout_s=self._left(until))
        try:
            connection.request("POST", self._path, body=body, headers=self._headers)
            response = connection.getresponse()
            chunks, size = [], 0
            while size <= LONGEST_ANSWER and (chunk := response.read1(65_536)):
                chunks.append(chunk)
                size += len(chunk)
                self._left(until)
            return response.status, response.getheader(self._version_header), b"".join(chunks)
        finally:
            connection.close()

    def _left(self, until: float) -> float:
        left_s = until - self._clock.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _opened(self, *, timeout_s: float) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
