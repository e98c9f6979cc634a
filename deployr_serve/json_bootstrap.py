"""Puts together who may call the JSON routes."""

from __future__ import annotations

from deployr_serve.adapters.caller_jwt import KeySets, KeySetUnusable
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.http import Transport
from deployr_serve.adapters.json_callers import JsonCallers
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.json_settings import JsonSettings


def json_callers(settings: JsonSettings | None, *, transport: Transport) -> JsonCallers | None:
    """Put it together; None lets anybody in. Pinned keys are read here, others on first use.

    Raises:
        SettingsInvalid: a pinned key set cannot be used.
    """
    if settings is None:
        return None
    machine = SystemClock()
    try:
        keys = KeySets([tenant.keys for tenant in settings.tenants], transport=transport, clock=machine)
    except (KeySetUnusable, OSError) as error:
        expected = str(error) if isinstance(error, KeySetUnusable) else "expected each jwks_file to be readable"
        raise SettingsInvalid(f"settings: DEPLOYR_JSON_CALLERS: {expected}") from None
    return JsonCallers(
        settings.callers,
        tenants=settings.tenants,
        keys=keys,
        gateway=settings.gateway,
        per_s=settings.per_s,
        clock=machine,
    )
