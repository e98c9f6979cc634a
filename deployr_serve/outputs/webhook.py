"""A scored packet as a signed event that is posted to the site's own service.

The signature is over the timestamp and the body, so that neither can be exchanged: an event that was overheard is good
for as long only as the receiver takes timestamps for. The scheme is ours; HMAC-SHA256: RFC 2104, FIPS 180-4 [seen].
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.policy import Policy
from deployr_serve.outputs.event_record import event_record

TIMESTAMP = "X-Deployr-Timestamp"
SIGNATURE = "X-Deployr-Signature"


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookEvent:
    """What is posted. A repeat has the same body and the same ``Idempotency-Key``, and a signature of its own."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def render_webhook(
    packet: InferencePacket, manifest: Manifest, *, policy: Policy, delivery_id: str, key: bytes, now: datetime
) -> WebhookEvent:
    """Render the event.

    Raises:
        InvalidScore: the packet is not scored.
    """
    record = {"type": "score", **event_record(packet, manifest, policy=policy, delivery_id=delivery_id)}
    return signed_post(record, repeat_id=delivery_id, key=key, now=now)


def signed_post(record: Mapping[str, Any], *, repeat_id: str, key: bytes, now: datetime) -> WebhookEvent:
    """Sign a record for posting; ``repeat_id`` is the same whenever it is posted again."""
    body = msgspec.json.encode(record)
    timestamp = str(int(now.timestamp()))
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": repeat_id,
        TIMESTAMP: timestamp,
        SIGNATURE: f"v1={sign(body, timestamp=timestamp, key=key)}",
    }
    return WebhookEvent(headers=headers, body=body)


def sign(body: bytes, *, timestamp: str, key: bytes) -> str:
    """Give the HMAC-SHA256, in hex, of the timestamp (seconds since 1970), a dot, and the body."""
    return hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
