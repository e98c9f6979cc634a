"""The vendor's older way of knowing who calls: a user of the EMR by HTTP Basic, with the client's id in a header.

Source: wire-formats.md section 1, Legacy Interconnect [seen]; that a call without the header is refused [assumed].
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping

CLIENT_HEADER = "Epic-Client-ID"
_PREFIX = "emp$"


def client_of(headers: Mapping[str, str], *, users: Mapping[str, str]) -> str | None:
    """Give the id of the client that calls as one of these users; None where it is not shown to be one.

    Args:
        headers: the call's; names in any case.
        users: passwords by user, without the prefix that a user has on the wire.
    """
    scheme, _, pair = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(pair.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    expected = users.get(user[len(_PREFIX) :]) if user.lower().startswith(_PREFIX) else None
    if expected is None or not hmac.compare_digest(password.encode(), expected.encode()):
        return None
    return headers.get(CLIENT_HEADER) or None
