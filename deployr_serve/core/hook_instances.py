"""Which instant a hook instance was given when it was first seen, and about whom it is: all are asked the same on it.

An EMR calls each of its services by itself, with the same instance. They must all look back from one instant, whichever
worker each call reaches; a repeat must be the same question; and an instance is about one patient.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta

import msgspec

from deployr_serve.core.errors import KeyReused, StoreUnavailable
from deployr_serve.core.ports import Records

HOOK_INSTANCE = "hook-instance"
"""The kind of the records."""
KEPT_FOR = timedelta(days=1)


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    about: str


async def first_seen(
    records: Records, *, hook_instance: str, patient_id: str, key: bytes, now: datetime, machine_now: datetime
) -> datetime:
    """Give the instant that the instance looks back from: ``now`` for a new one, else what it got at first.

    Args:
        records: the store that all workers share.
        hook_instance: the UUID, in lower case.
        patient_id: whom the call is about; only a keyed hash of it is stored.
        key: the site's secret.
        now: the instant of the event, on the clock that events are timed by.
        machine_now: what records expire by; another instant only where a past day is replayed.

    Raises:
        KeyReused: the instance was seen before, about another patient.
        StoreUnavailable: nobody can tell.
    """
    about = hmac.new(key, f"hook:{patient_id}".encode(), hashlib.sha256).hexdigest()
    content = msgspec.json.encode(_Seen(at=now, about=about))
    created = await records.create_record(
        HOOK_INSTANCE, hook_instance, content, now=machine_now, expires_at=machine_now + KEPT_FOR
    )
    if created is not None:
        return now
    held = await records.read_record(HOOK_INSTANCE, hook_instance, now=machine_now)
    if held is None:
        raise StoreUnavailable("expected the record that holds this id; it was there a moment ago")
    try:
        seen = msgspec.json.decode(held.content, type=_Seen)
    except msgspec.MsgspecError:
        raise StoreUnavailable("expected stored records that can be read") from None
    if not hmac.compare_digest(seen.about, about):
        raise KeyReused("hookInstance: expected one that was not used for another patient")
    return seen.at
