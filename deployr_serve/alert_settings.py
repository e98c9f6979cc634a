"""The settings of alerts: which rules, how often the app looks, and whom it tells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.headerregistry import Address
from pathlib import Path

from deployr_serve.auth_settings import Reader
from deployr_serve.setting_values import existing_file, plain_url

_LEAST_KEY_BYTES = 32
_REFERENCE = re.compile(r"(?:Group|Practitioner|PractitionerRole|Organization|CareTeam|Device)/[A-Za-z0-9.-]{1,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MailSettings:
    """``server`` and ``port`` of a mail server that offers STARTTLS. ``tls``: false only on this machine, in dev."""

    server: str
    port: int
    sender: Address
    recipients: tuple[Address, ...]
    user: str | None
    password: str | None = field(repr=False)
    tls: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertSettings:
    """``rules``: the site's file; None takes the defaults. ``dashboard``: where links lead; None makes none.

    The URLs of Teams and Slack let anybody post who knows them, so that they are secrets like the key and the password.
    """

    rules: Path | None
    schedule: str
    dashboard: str | None
    teams_url: str | None = field(repr=False)
    slack_url: str | None = field(repr=False)
    webhook_url: str | None = field(repr=False)
    webhook_key: bytes | None = field(repr=False)
    mail: MailSettings | None
    fhir_recipients: tuple[str, ...]


def read_alerts(reader: Reader) -> AlertSettings:
    """Read them; what is missing or wrong stands in the reader's problems afterwards."""
    staff: tuple[str, ...] | None = reader.read("DEPLOYR_ALERT_FHIR_RECIPIENTS", _references, default=None)
    settings = AlertSettings(
        rules=reader.read("DEPLOYR_ALERT_RULES", existing_file, default=None),
        schedule=reader.read("DEPLOYR_ALERT_SCHEDULE", str, default="0 */5 * * * *"),
        dashboard=reader.read("DEPLOYR_DASHBOARD_BASE", _base, default=None),
        teams_url=reader.read("DEPLOYR_ALERT_TEAMS_URL", _secret_url, default=None),
        slack_url=reader.read("DEPLOYR_ALERT_SLACK_URL", _secret_url, default=None),
        webhook_url=reader.read("DEPLOYR_ALERT_WEBHOOK_URL", _secret_url, default=None),
        webhook_key=reader.read("DEPLOYR_ALERT_WEBHOOK_KEY", _key, default=None),
        mail=_mail(reader),
        fhir_recipients=staff or (),
    )
    if (settings.webhook_url is None) != (settings.webhook_key is None):
        missing = "DEPLOYR_ALERT_WEBHOOK_KEY" if settings.webhook_key is None else "DEPLOYR_ALERT_WEBHOOK_URL"
        reader.problems.setdefault(missing, "expected both the URL of the webhook and the key that signs")
    return settings


def alerts_too_weak_for_production(settings: AlertSettings) -> dict[str, str]:
    """Give what the prod profile does not take, by the setting's name."""
    problems = {
        name: "expected https in the prod profile"
        for name, url in (
            ("DEPLOYR_ALERT_TEAMS_URL", settings.teams_url),
            ("DEPLOYR_ALERT_SLACK_URL", settings.slack_url),
            ("DEPLOYR_ALERT_WEBHOOK_URL", settings.webhook_url),
        )
        if url is not None and not url.startswith("https://")
    }
    if settings.mail is not None and not settings.mail.tls:
        problems["DEPLOYR_ALERT_MAIL_TLS"] = "expected mail over TLS in the prod profile"
    return problems


def _mail(reader: Reader) -> MailSettings | None:
    server = reader.read("DEPLOYR_ALERT_MAIL_SERVER", _host_and_port, default=None)
    sender = reader.read("DEPLOYR_ALERT_MAIL_FROM", _address, default=None)
    recipients = reader.read("DEPLOYR_ALERT_MAIL_TO", _addresses, default=None)
    user = reader.read("DEPLOYR_ALERT_MAIL_USER", str, default=None)
    password = reader.read("DEPLOYR_ALERT_MAIL_PASSWORD", str, default=None)
    tls = reader.read("DEPLOYR_ALERT_MAIL_TLS", _tls, default=True)
    if server is None:
        return None
    if sender is None or not recipients:
        missing = "DEPLOYR_ALERT_MAIL_FROM" if sender is None else "DEPLOYR_ALERT_MAIL_TO"
        reader.problems.setdefault(missing, "expected whom alerts are mailed from, and to")
        return None
    if (user is None) != (password is None):
        missing = "DEPLOYR_ALERT_MAIL_PASSWORD" if password is None else "DEPLOYR_ALERT_MAIL_USER"
        reader.problems.setdefault(missing, "expected both a user and a password, or neither")
    if user is not None and not tls:
        reader.problems.setdefault("DEPLOYR_ALERT_MAIL_TLS", "expected TLS where a password is sent")
    return MailSettings(
        server=server[0], port=server[1], sender=sender, recipients=recipients, user=user, password=password, tls=tls
    )


def _base(text: str) -> str:
    return plain_url(text).rstrip("/")


def _secret_url(text: str) -> str:
    return plain_url(text, query=True)


def _key(text: str) -> bytes:
    if len(text.encode()) < _LEAST_KEY_BYTES:
        raise ValueError(f"expected a secret of at least {_LEAST_KEY_BYTES} bytes")
    return text.encode()


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError("expected a host and a port, such as smtp.example.org:587")
    return host, int(port)


def _address(text: str) -> Address:
    try:
        address = Address(addr_spec=text.strip())
    except (ValueError, IndexError):
        raise ValueError("expected a mail address, such as alerts@example.org") from None
    if not address.username or not address.domain:
        raise ValueError("expected a mail address, such as alerts@example.org")
    return address


def _addresses(text: str) -> tuple[Address, ...]:
    return tuple(_address(part) for part in text.split(","))


def _references(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if not all(_REFERENCE.fullmatch(each) for each in found):
        raise ValueError("expected references to staff such as Group/on-call, a comma between them; never a patient")
    return found


def _tls(text: str) -> bool:
    if text not in {"starttls", "none"}:
        raise ValueError("expected starttls or none")
    return text == "starttls"
