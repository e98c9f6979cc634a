"""Who calls by HTTP Basic: the classic alert has no other way to prove itself. Pure.

Source: RFC 7617 [seen]; that classic alerts use it, wire formats document, section 1 [seen for the vendor's services].
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from deployr_serve.core.caller import CallerRefused

CHALLENGE = 'Basic realm="deployr", charset="UTF-8"'
_LONGEST = 8192
"""Of the header, in characters."""


def basic_caller(authorization: str | None, callers: Mapping[str, str]) -> str:
    """Give the name of the caller.

    Every caller's password is compared, in the same time whatever was sent, so that neither names nor how much of a
    password is right can be told from how long it takes.

    Args:
        authorization: the header as it came.
        callers: the password of each caller by name.

    Raises:
        CallerRefused: no such caller with that password.
    """
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic" or not encoded:
        raise CallerRefused("no-basic")
    if len(encoded) > _LONGEST:
        raise CallerRefused("too-long")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        raise CallerRefused("not-basic") from None
    found = None
    for name, expected in callers.items():
        is_user = _are_same(user, name.encode())
        is_password = _are_same(password, expected.encode())
        if is_user and is_password and colon:
            found = name
    if found is None:
        raise CallerRefused("basic")
    return found


def _are_same(given: bytes, expected: bytes) -> bool:
    """Compare digests: of one length, however long what was sent is."""
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(expected).digest())
