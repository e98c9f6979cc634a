"""Access keys: who may call a function and who may use the admin API."""

import hmac
from dataclasses import dataclass, field
from enum import Enum


class AuthLevel(Enum):
    """What a caller must show, as in a function's ``auth_level``.

    Source: Microsoft Learn, "Azure Functions HTTP trigger", section "HTTP Authorization level".
    """

    ANONYMOUS = "anonymous"
    FUNCTION = "function"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True)
class HostKeys:
    """The two keys of a local host; the caller makes them, the host only compares.

    Attributes:
        master: opens everything, the admin API too (Azure's ``_master`` host key).
        function: opens functions of level FUNCTION, each of them (Azure's ``default`` host key).
    """

    master: str = field(repr=False)
    function: str = field(repr=False)

    def __post_init__(self) -> None:
        for name, key in (("master", self.master), ("function", self.function)):
            if not key or not key.isascii() or not key.isprintable():
                raise ValueError(f"HostKeys.{name}: expected a non-empty key of printable ASCII characters")
        if hmac.compare_digest(self.master.encode(), self.function.encode()):
            raise ValueError("HostKeys: expected two different keys, else every caller could use the admin API")


def opens(level: AuthLevel, *, offered: str | None, keys: HostKeys) -> bool:
    """Whether the key that a caller offered is enough for ``level``.

    Both keys are always compared, each in constant time, so the answer's delay says nothing about either.

    Source: Microsoft Learn, "Work with access keys in Azure Functions", table of key scopes.
    """
    if level is AuthLevel.ANONYMOUS:
        return True
    candidate = (offered or "").encode()
    is_master = hmac.compare_digest(candidate, keys.master.encode())
    is_function = hmac.compare_digest(candidate, keys.function.encode())
    return is_master or (is_function and level is AuthLevel.FUNCTION)
