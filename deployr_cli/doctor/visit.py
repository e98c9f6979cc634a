"""One run of `deployr doctor`: the site that is examined, what was found so far, and what was seen on the wire."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from deployr_cli.doctor.decide.access import Handshake
from deployr_cli.doctor.decide.findings import Finding, State
from deployr_cli.doctor.decide.reads import Statement
from deployr_core.bundle import Bundle
from deployr_serve.adapters.auth import Origin
from deployr_serve.adapters.http import Request, Response, Transport, origin
from deployr_serve.bootstrap import Application
from deployr_serve.core.errors import EmrUnreachable
from deployr_serve.core.ports import Clock
from deployr_serve.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the command line asks for beside the settings; ids are used, and shown nowhere.

    ``encounter``: a contact serial number. ``as_of``: where windows look back from; None is now.
    """

    patient: str | None = field(default=None, repr=False)
    encounter: str | None = field(default=None, repr=False)
    as_of: datetime | None = None
    jwks_url: str | None = None
    write_test: bool = False


class Watched:
    """A `Transport` that remembers each origin's last Date, and the last answer of the token endpoint."""

    def __init__(self, inner: Transport, *, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self.dates: dict[Origin, tuple[str | None, datetime]] = {}
        self.token_endpoint: str | None = None
        self.token_answer: Response | None = None

    async def send(self, request: Request) -> Response:
        """See `deployr_serve.adapters.http.Transport`."""
        response = await self._inner.send(request)
        self.dates[origin(request.url)] = (response.headers.get("date"), self._clock.now())
        if request.url == self.token_endpoint:
            self.token_answer = response
        return response


@dataclass(kw_only=True)
class Visit:
    """What is examined and what was found. ``tell`` is called with each finding as it is made.

    ``clock`` is the machine's, as assertions are dated by it; what windows look back from may be a replay's.
    """

    settings: Settings
    application: Application
    watched: Watched
    clock: Clock
    asked: Asked
    tell: Callable[[Finding], None]
    findings: list[Finding] = field(default_factory=list)
    statement: Statement | None = None

    def note(self, finding: Finding) -> Finding:
        """Keep a finding, and tell it."""
        self.findings.append(finding)
        self.tell(finding)
        return finding

    def blocker(self, *checks: str) -> str | None:
        """Name the first of these checks that failed; None if none did."""
        failed = {finding.check for finding in self.findings if finding.state is State.FAIL}
        return next((check for check in checks if check in failed), None)

    @property
    def as_of(self) -> datetime:
        """Where windows look back from."""
        return self.asked.as_of or self.application.services.clock.now()

    def bundles(self) -> dict[str, Bundle]:
        """Give the models that can be used, by id."""
        models = self.application.services.models
        return {name: models.bundle(name) for name, reason in models.deployed().items() if reason is None}


async def shake_hands(url: str, *, tls: ssl.SSLContext, timeout_s: float) -> Handshake | None:
    """Connect to a server and say what TLS agreed on; None over plain http.

    Raises:
        EmrUnreachable: no such name, no connection, or no TLS; the message says which.
    """
    scheme, host, port = origin(url)
    context = tls if scheme == "https" else None
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except TimeoutError:
        raise EmrUnreachable("expected a connection in time: a firewall may be dropping it") from None
    except ssl.SSLCertVerificationError as error:
        raise EmrUnreachable(f"expected a certificate that we trust: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise EmrUnreachable(f"expected TLS 1.2 or later: {error.reason}") from None
    except OSError as error:
        # asyncio says what it tried in its own words; a name that is not known has a code of its own.
        what = "a name that DNS knows" if type(error).__name__ == "gaierror" else "a connection: nobody takes it there"
        raise EmrUnreachable(f"expected {what}") from None
    try:
        spoken = writer.get_extra_info("ssl_object")
        if spoken is None:
            return None
        ends = ssl.cert_time_to_seconds(spoken.getpeercert()["notAfter"])
        return Handshake(version=spoken.version(), certificate_ends=datetime.fromtimestamp(ends, UTC))
    finally:
        writer.close()


def host_of(url: str) -> str:
    """Give the host of a URL, to name it by."""
    return urlsplit(url).netloc
