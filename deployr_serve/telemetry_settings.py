"""The settings of telemetry: whether traces and metrics are sent, where, and how many."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from deployr_serve.auth_settings import Reader
from deployr_serve.setting_values import plain_url


class Protocol(StrEnum):
    """``otlp``: OpenTelemetry's own, over HTTP. ``azure``: Application Insights."""

    OTLP = "otlp"
    AZURE = "azure"


@dataclass(frozen=True, kw_only=True, slots=True)
class TelemetrySettings:
    """``where``: the collector's base, or the connection string of Application Insights.

    ``share``: of traces that are kept, from 0 to 1; metrics count everything. ``identity``: the client id of a
    user-assigned identity, as the store's.
    """

    protocol: Protocol
    where: str = field(repr=False)
    share: float
    identity: str | None


def read_telemetry(reader: Reader) -> TelemetrySettings | None:
    """Read them; None where nothing is sent, which is the default."""
    sent: tuple[Protocol, str] | None = reader.read("DEPLOYR_TELEMETRY", _protocol, default=None)
    share = reader.read("DEPLOYR_TELEMETRY_SHARE", _share, default=1.0)
    insights: str | None = reader.read("APPLICATIONINSIGHTS_CONNECTION_STRING", str, default=None)
    identity = reader.read("DEPLOYR_STORE_IDENTITY", str, default=None)
    if sent is None:
        return None
    protocol, where = sent
    if protocol is Protocol.AZURE:
        if insights is None:
            expected = "expected it with DEPLOYR_TELEMETRY=azure"
            reader.problems.setdefault("APPLICATIONINSIGHTS_CONNECTION_STRING", expected)
        where = insights or ""
    return TelemetrySettings(protocol=protocol, where=where, share=share, identity=identity)


def telemetry_too_weak_for_production(settings: TelemetrySettings | None) -> dict[str, str]:
    """Give what the prod profile does not take, by the setting's name."""
    if settings is None or settings.protocol is not Protocol.OTLP or settings.where.startswith("https://"):
        return {}
    if urlsplit(settings.where).hostname in {"localhost", "127.0.0.1", "::1"}:
        return {}
    return {"DEPLOYR_TELEMETRY": "expected https, or a collector on this machine, in the prod profile"}


def _protocol(text: str) -> tuple[Protocol, str] | None:
    kind, _, place = text.partition(":")
    if text == "none":
        return None
    if text == Protocol.AZURE:
        return Protocol.AZURE, ""
    if kind == Protocol.OTLP and place:
        return Protocol.OTLP, plain_url(place).rstrip("/")
    raise ValueError("expected none, azure, or otlp: and the address of a collector")


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError("expected the share of traces that are kept, from 0 to 1")
    return share
