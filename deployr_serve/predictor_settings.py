"""The settings of models that answer elsewhere: where each is, and what lets us in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deployr_core.elsewhere import PREDICTOR_NAME
from deployr_serve.auth_settings import Reader
from deployr_serve.setting_values import existing_file, plain_url

_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_TOKEN = re.compile(r"[\x21-\x7e]{8,4096}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorSettings:
    """``urls`` and ``tokens`` by the name that bundles use. ``timeout_s``: of one call. ``version_header``: which of an
    answer's headers says what the model is called, where the answer itself does not. ``ca_file``: of a hospital's own
    authority, PEM.
    """

    urls: Mapping[str, str]
    tokens: Mapping[str, str] = field(repr=False)
    timeout_s: float
    version_header: str
    ca_file: Path | None


def read_predictors(reader: Reader) -> PredictorSettings:
    """Read them; what is missing or wrong stands in the reader's problems afterwards."""
    nothing: Mapping[str, str] = {}
    settings = PredictorSettings(
        urls=reader.read("DEPLOYR_PREDICTORS", _urls, default=nothing),
        tokens=reader.read("DEPLOYR_PREDICTOR_TOKENS", _tokens, default=nothing),
        timeout_s=reader.read("DEPLOYR_PREDICTOR_TIMEOUT_S", _seconds, default=2.0),
        version_header=reader.read("DEPLOYR_PREDICTOR_VERSION_HEADER", _header, default="x-model-version"),
        ca_file=reader.read("DEPLOYR_PREDICTOR_CA_FILE", existing_file, default=None),
    )
    if not settings.tokens.keys() <= settings.urls.keys():
        reader.problems.setdefault("DEPLOYR_PREDICTOR_TOKENS", "expected only names that DEPLOYR_PREDICTORS has")
    return settings


def predictors_too_weak_for_production(settings: PredictorSettings) -> dict[str, str]:
    """Give what the prod profile does not take, by the setting's name."""
    if all(url.startswith("https://") for url in settings.urls.values()):
        return {}
    return {"DEPLOYR_PREDICTORS": "expected https in the prod profile"}


def _urls(text: str) -> Mapping[str, str]:
    return {name: plain_url(value) for name, value in _named(text).items()}


def _tokens(text: str) -> Mapping[str, str]:
    found = _named(text)
    if not all(_TOKEN.match(token) for token in found.values()):
        raise ValueError("expected NAME=TOKEN with tokens of at least 8 visible ASCII characters")
    return found


def _named(text: str) -> dict[str, str]:
    """Give values by name; no message repeats one."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, sign, value = part.strip().partition("=")
        if not sign or not PREDICTOR_NAME.match(name) or name in found:
            raise ValueError("expected NAME=VALUE, a comma between them, with each name once, such as sepsis-net")
        found[name] = value
    return found


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 60.0:
        raise ValueError("expected 0.05 to 60 seconds")
    return seconds


def _header(text: str) -> str:
    if not _HEADER.match(text):
        raise ValueError("expected the name of a header")
    return text.lower()
