"""JSON of which two readers cannot take two meanings. Pure."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


class NotOneObject(ValueError):
    """Not one JSON object in UTF-8 in which each field stands once and each number is one."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        NotOneObject: it is not; the message says what was expected, and nothing of what came.
    """
    try:
        parsed = json.loads(
            body.decode("utf-8"), object_pairs_hook=_each_once, parse_float=_finite, parse_constant=_no_number
        )
    except UnicodeDecodeError:
        raise NotOneObject("expected a JSON body in UTF-8") from None
    except NotOneObject:
        raise
    except (ValueError, RecursionError):
        raise NotOneObject("expected the body to be one JSON object") from None
    if not isinstance(parsed, dict):
        raise NotOneObject("expected the body to be one JSON object")
    return parsed


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise NotOneObject("expected each field once")
    return fields


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotOneObject("expected JSON numbers that a computer can hold")
    return number


def _no_number(_: str) -> NoReturn:
    raise NotOneObject("expected JSON numbers; NaN and Infinity are none")
