"""host.json: what of it this host honours."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from deployr_serve.local_host.errors import HostSetupError

DEFAULT_FUNCTION_TIMEOUT = timedelta(minutes=30)
"""What Azure gives a Premium or Dedicated plan. (Consumption: 5 minutes.)"""

_MOST_AT_ONCE = 32
_TIMESPAN = re.compile(r"(?:(\d{1,8})\.)?(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,7}))?)?")


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """How queue triggers take messages.

    Attributes:
        batch_size: messages that one function has at a time, 1 to 32.
        max_dequeue_count: how often a message is tried before it is moved to the poison queue.
        visibility_timeout: how long a message that failed stays out of sight.

    Source: Microsoft Learn, "Azure Queue storage triggers and bindings", "host.json settings".
    """

    batch_size: int = 16
    max_dequeue_count: int = 5
    visibility_timeout: timedelta = timedelta(0)


@dataclass(frozen=True, kw_only=True)
class HostJson:
    """The settings of a ``host.json`` that bear on a local run.

    Attributes:
        route_prefix: before every function's route, without outer slashes; may be empty.
        function_timeout: the longest that one invocation may take; None where the file says ``"-1"``.
        queues: of queue triggers.

    Source: Microsoft Learn, "host.json reference for Azure Functions 2.x and later".
    """

    route_prefix: str = "api"
    function_timeout: timedelta | None = DEFAULT_FUNCTION_TIMEOUT
    queues: QueueLimits = QueueLimits()


def read_host_json(path: Path) -> HostJson:
    """Read ``host.json``; where there is none, its defaults, as the real host does.

    Raises:
        HostSetupError: names the key and what was expected of it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return HostJson()
    except (OSError, UnicodeDecodeError) as error:
        raise HostSetupError(f"{path}: expected a readable UTF-8 file, got {type(error).__name__}") from error
    return parse_host_json(text, where=str(path))


def parse_host_json(text: str, *, where: str = "host.json") -> HostJson:
    """Take from the text of a ``host.json`` what this host honours; other keys are tolerated.

    Raises:
        HostSetupError: names the key and what was expected of it.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise HostSetupError(f"{where}: expected JSON without comments: {error}") from error
    root = _object(content, key="the file", where=where)
    if root.get("version") != "2.0":
        raise HostSetupError(f'{where}: version: expected "2.0", got {json.dumps(root.get("version"))}')
    extensions = _object(root.get("extensions", {}), key="extensions", where=where)
    http = _object(extensions.get("http", {}), key="extensions.http", where=where)
    return HostJson(
        route_prefix=_route_prefix(http.get("routePrefix", "api"), where=where),
        function_timeout=_function_timeout(root.get("functionTimeout"), where=where),
        queues=_queues(_object(extensions.get("queues", {}), key="extensions.queues", where=where), where=where),
    )


def parse_timespan(text: str) -> timedelta | None:
    """A .NET TimeSpan, ``[d.]hh:mm[:ss[.fffffff]]``; None where the text is not one.

    Hours go to 23 and minutes and seconds to 59. .NET also takes ``24:00`` and reads it as 24 days, which
    nobody means: that is refused here.

    Source: Microsoft Learn, ".NET Standard TimeSpan format strings", constant format "c".
    """
    matched = _TIMESPAN.fullmatch(text.strip())
    if matched is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in matched.groups()[:4])
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    microseconds = int((matched[5] or "").ljust(7, "0")[:6])
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds)


def _object(value: object, *, key: str, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise HostSetupError(f"{where}: {key}: expected a JSON object, got {type(value).__name__}")
    return value


def _route_prefix(value: object, *, where: str) -> str:
    if not isinstance(value, str) or re.search(r"[{}?#\s]", value):
        raise HostSetupError(
            f"{where}: extensions.http.routePrefix: expected a path such as "
            f'"api", or "" for none, got {json.dumps(value)}'
        )
    return value.strip("/")


def _function_timeout(value: object, *, where: str) -> timedelta | None:
    if value is None:
        return DEFAULT_FUNCTION_TIMEOUT
    if value == "-1":
        return None
    limit = parse_timespan(value) if isinstance(value, str) else None
    if not limit:
        raise HostSetupError(
            f'{where}: functionTimeout: expected "hh:mm:ss" above zero, or "-1" for no limit, got {json.dumps(value)}'
        )
    return limit


def _queues(content: Mapping[str, object], *, where: str) -> QueueLimits:
    size, tries = content.get("batchSize", 16), content.get("maxDequeueCount", 5)
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _MOST_AT_ONCE:
        raise HostSetupError(f"{where}: extensions.queues.batchSize: expected 1 to 32, got {json.dumps(size)}")
    if not isinstance(tries, int) or isinstance(tries, bool) or tries < 1:
        raise HostSetupError(f"{where}: extensions.queues.maxDequeueCount: expected 1 or more, got {json.dumps(tries)}")
    if content.get("messageEncoding", "base64") != "base64":
        raise HostSetupError(
            f"{where}: extensions.queues.messageEncoding: expected base64, the only one supported here"
        )
    hidden = content.get("visibilityTimeout", "00:00:00")
    timeout = parse_timespan(hidden) if isinstance(hidden, str) else None
    if timeout is None:
        raise HostSetupError(
            f'{where}: extensions.queues.visibilityTimeout: expected "hh:mm:ss", got {json.dumps(hidden)}'
        )
    return QueueLimits(batch_size=size, max_dequeue_count=tries, visibility_timeout=timeout)
