"""A scored packet as a file for a job of the site's: one file for each delivery.

One for each delivery and not one for each batch, so that a repeat writes the same bytes under the same name, and no
file is ever open for longer than one score takes. Source: RFC 4180 for CSV [seen]; the columns are ours.
"""

from __future__ import annotations

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.policy import Policy
from deployr_serve.outputs.event_record import event_record


def render_csv(packet: InferencePacket, manifest: Manifest, *, policy: Policy, delivery_id: str) -> bytes:
    """Render a header and one row, in UTF-8 with CRLF; what is not known is empty, numbers have all their digits.

    Raises:
        InvalidScore: the packet is not scored.
    """
    record = event_record(packet, manifest, policy=policy, delivery_id=delivery_id)
    rows = (record.keys(), record.values())
    return "".join(",".join(map(_cell, row)) + "\r\n" for row in rows).encode()


def _cell(value: object) -> str:
    text = "" if value is None else repr(value) if isinstance(value, float) else str(value)
    return '"' + text.replace('"', '""') + '"' if {",", '"', "\r", "\n"} & set(text) else text
