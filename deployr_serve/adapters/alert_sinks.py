"""How alerts leave the house: the log, webhooks, mail, and FHIR. Addresses and passwords are never logged."""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from deployr_core.monitoring.alert_rules import Severity
from deployr_core.monitoring.alerting import What
from deployr_serve.adapters.http import Request, Transport
from deployr_serve.adapters.outputs_fhir import FhirWriter
from deployr_serve.core.alert_desk import Message
from deployr_serve.core.errors import AlertRefused, AlertUnsent
from deployr_serve.core.ports import Budget, Clock, Lane, Threads
from deployr_serve.outputs.alert_messages import alert_communication, signed_event, text_of, title_of

_WITHIN_S = 20.0
_MAIL_STEP_S = 10.0
_LEVELS = {Severity.PAGE: logging.CRITICAL, Severity.WARN: logging.ERROR, Severity.NOTE: logging.WARNING}
_log = logging.getLogger(__name__)


class AlertLog:
    """A line for each notice, of names and instants alone; it never fails."""

    name = "log"

    async def send(self, message: Message) -> None:
        """Log; see `deployr_serve.core.alert_desk.AlertSink`."""
        for each in message.notices:
            level = logging.INFO if each.what is What.ENDED else _LEVELS[each.severity]
            _log.log(
                level,
                "alert=%s event=%s severity=%s model=%s part=%s since=%s",
                "test" if message.is_test else each.rule,
                each.what.value,
                each.severity.value,
                each.model or "-",
                each.part or "-",
                f"{each.begun_at:%Y-%m-%dT%H:%M:%SZ}",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Posted:
    """What is posted. ``headers``: beside its type."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class AlertWebhook:
    """Posts to one URL, which may itself be a secret. Redirects are not followed; any status of 200 to 299 is taken."""

    def __init__(
        self, name: str, *, url: str, render: Callable[[Message], Posted], transport: Transport, clock: Clock
    ) -> None:
        self.name = name
        self._url = url
        self._render = render
        self._transport = transport
        self._clock = clock

    async def send(self, message: Message) -> None:
        """Post; see `deployr_serve.core.alert_desk.AlertSink`."""
        posted = self._render(message)
        budget = Budget(
            deadline=self._clock.monotonic() + _WITHIN_S, correlation_id=message.message_id, lane=Lane.BATCH
        )
        headers = {"Content-Type": "application/json", **posted.headers}
        response = await self._transport.send(
            Request(method="POST", url=self._url, headers=headers, body=posted.body, writes=True, budget=budget)
        )
        if 200 <= response.status < 300:
            return
        if response.status == 429 or response.status >= 500:
            raise AlertUnsent(f"expected the webhook to take the alert, got status {response.status}")
        raise AlertRefused(f"expected the webhook to take the alert, got status {response.status}")


def signed(key: bytes, *, dashboard: str | None, clock: Clock) -> Callable[[Message], Posted]:
    """Give what renders signed JSON."""

    def render(message: Message) -> Posted:
        event = signed_event(message, dashboard=dashboard, key=key, now=clock.now())
        return Posted(body=event.body, headers=event.headers)

    return render


@dataclass(frozen=True, kw_only=True, slots=True)
class MailServer:
    """Where mail is handed in. ``tls``: None sends without TLS, which only the dev profile does."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    sender: Address
    recipients: tuple[Address, ...]
    user: str | None
    password: str | None = field(repr=False)


class AlertMail:
    """A mail to all recipients, over STARTTLS, in a thread: `smtplib` waits in place.

    It has failed where the server takes it for nobody. Where it takes it for some, the log says for how many it does
    not, which by their places in the setting, and with which answers: sent again, the others would have it twice.
    """

    name = "mail"

    def __init__(self, server: MailServer, *, dashboard: str | None, threads: Threads, clock: Clock) -> None:
        self._server = server
        self._dashboard = dashboard
        self._threads = threads
        self._clock = clock

    async def send(self, message: Message) -> None:
        """Mail; see `deployr_serve.core.alert_desk.AlertSink`."""
        mail = self._mail(message)
        try:
            refused = await self._threads.run(
                lambda: _hand_in(self._server, mail), name="alert-mail", within_s=_WITHIN_S
            )
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError, ssl.SSLError) as error:
            # Not chained: these repeat the server's words, which may repeat ours.
            raise AlertRefused(f"expected the mail server to let us in ({type(error).__name__})") from None
        except (smtplib.SMTPException, OSError) as error:
            raise AlertUnsent(f"expected the mail server to take the alert ({type(error).__name__})") from None
        if refused:
            _log.error(
                "alert=alert-mail-refused message=%s refused=%d of=%d places=%s answers=%s",
                message.message_id,
                len(refused),
                len(self._server.recipients),
                ",".join(str(place) for place in refused),
                ",".join(str(status) for status in sorted(set(refused.values()))),
            )

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = title_of(message)
        mail["From"] = self._server.sender
        mail["To"] = self._server.recipients
        mail["Date"] = format_datetime(self._clock.now())
        # The same for a repeat, so that a mailbox may show it once.
        mail["Message-ID"] = f"<{message.message_id}@{self._server.sender.domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(text_of(message, dashboard=self._dashboard))
        return mail


class AlertCommunication:
    """A FHIR Communication to staff, created once."""

    name = "fhir"

    def __init__(self, writer: FhirWriter, *, recipients: tuple[str, ...], dashboard: str | None, clock: Clock) -> None:
        self._writer = writer
        self._recipients = recipients
        self._dashboard = dashboard
        self._clock = clock

    async def send(self, message: Message) -> None:
        """Create it; see `deployr_serve.core.alert_desk.AlertSink`."""
        budget = Budget(
            deadline=self._clock.monotonic() + _WITHIN_S, correlation_id=message.message_id, lane=Lane.BATCH
        )
        resource = alert_communication(message, dashboard=self._dashboard, recipients=self._recipients)
        await self._writer.create(resource, patient_id=None, delivery_id=message.message_id, budget=budget)


def _hand_in(server: MailServer, mail: EmailMessage) -> Mapping[int, int]:
    """Give the places, from 1, of recipients that the server refused, with the status of its answer.

    Raises:
        smtplib.SMTPException: it refused all of them, or something else.
    """
    with smtplib.SMTP(server.host, server.port, timeout=_MAIL_STEP_S) as session:
        if server.tls is not None:
            session.starttls(context=server.tls)
        if server.user is not None and server.password is not None:
            session.login(server.user, server.password)
        answers = session.send_message(mail, to_addrs=[each.addr_spec for each in server.recipients])
    return {
        place: answers[each.addr_spec][0]
        for place, each in enumerate(server.recipients, start=1)
        if each.addr_spec in answers
    }
