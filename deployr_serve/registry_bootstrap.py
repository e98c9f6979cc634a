"""Puts the registry together as it is asked over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deployr_core.registry.journal import Head
from deployr_serve.adapters.caller_jwt import KeySets, KeySetUnusable
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.adapters.http import Transport
from deployr_serve.adapters.registry_people import RegistryPeople
from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.core.registry import Registry
from deployr_serve.registry_settings import People


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryAccess:
    """The registry, and who may ask it. ``told_heads``: of a model's journal, as others were told; it reads files."""

    registry: Registry
    people: RegistryPeople
    told_heads: Callable[[str], tuple[Head, ...]]


def registry_people(people: People, *, transport: Transport) -> RegistryPeople:
    """Put together who may ask. Pinned keys are read here, others on first use.

    Raises:
        SettingsInvalid: a pinned key set cannot be used.
    """
    machine = SystemClock()
    try:
        keys = KeySets([tenant.keys for tenant in people.tenants], transport=transport, clock=machine)
    except (KeySetUnusable, OSError) as error:
        expected = str(error) if isinstance(error, KeySetUnusable) else "expected each jwks_file to be readable"
        raise SettingsInvalid(f"settings: DEPLOYR_REGISTRY_PEOPLE: {expected}") from None
    return RegistryPeople(people.people, tenants=people.tenants, keys=keys, clock=machine)
