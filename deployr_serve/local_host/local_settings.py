"""local.settings.json: the settings of an app that runs on this machine."""

import json
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deployr_serve.local_host.errors import HostSetupError

_ORIGIN = re.compile(r"https?://[a-z0-9.\-]+(:\d{1,5})?\Z")


def read_local_settings(path: Path) -> Mapping[str, str]:
    """The ``Values`` of a ``local.settings.json``; empty where the file does not exist.

    Raises:
        HostSetupError: the file is not JSON, is encrypted, or holds a value that is not a string. Azure keeps
            settings as strings, so a number or a boolean would be read differently there.

    Source: Microsoft Learn, "Code and test Azure Functions locally", section "Local settings".
    """
    content = _content(path)
    if content.get("IsEncrypted", False) is not False:
        raise HostSetupError(
            f"{path}: IsEncrypted: expected false, since only the Core Tools can decrypt it "
            "(`func settings decrypt` turns it back)"
        )
    values = content.get("Values", {})
    if not isinstance(values, dict):
        raise HostSetupError(f"{path}: Values: expected an object of strings")
    for name, value in values.items():
        if not isinstance(value, str):
            raise HostSetupError(f"{path}: Values.{name}: expected a string, got {type(value).__name__}")
    return MappingProxyType(values)


def read_cors(path: Path) -> tuple[str, ...]:
    """The origins whose pages may call the app: ``Host.CORS`` of a ``local.settings.json``, a comma between them.

    Raises:
        HostSetupError: one of them is no origin, or cookies are to be allowed. ``*`` is refused: whose page may ask
            about patients is named, as it should be in Azure's own CORS settings.

    Source: Microsoft Learn, "Code and test Azure Functions locally", section "Local settings", ``CORS``.
    """
    host = _content(path).get("Host", {})
    if not isinstance(host, dict) or not isinstance(host.get("CORS", ""), str):
        raise HostSetupError(f"{path}: Host.CORS: expected origins with a comma between")
    if host.get("CORSCredentials", False) is not False:
        raise HostSetupError(f"{path}: Host.CORSCredentials: expected false; callers prove themselves by a header")
    origins = tuple(origin for each in host.get("CORS", "").split(",") if (origin := each.strip()))
    if not all(_ORIGIN.match(origin) for origin in origins):
        raise HostSetupError(f"{path}: Host.CORS: expected origins such as https://sandbox.hospital.example")
    return origins


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise HostSetupError(f"{path}: expected a readable JSON file, got {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise HostSetupError(f"{path}: expected a JSON object with the key Values")
    return content


def export_settings(values: Mapping[str, str], environ: MutableMapping[str, str]) -> None:
    """Put settings into the environment of the app; what the environment already has wins.

    Source: Microsoft Learn, "Code and test Azure Functions locally", section "Local settings".
    """
    for name, value in values.items():
        environ.setdefault(name, value)
