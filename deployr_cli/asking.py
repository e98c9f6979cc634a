"""One signed order, as each of the three ways in asks about it: JSON, a CDA document, a CDS Hooks draft."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from deployr_cli.demo.events import OrderSigned
from deployr_cli.demo.processes import function_app
from deployr_cli.failures import CommandFailed

ID_ROOTS = ",".join(f"2.16.840.1.113883.19.{number}=FHIR" for number in (1, 3, 5))
"""What the roots of the example document's ids of patient, encounter and order mean."""
USER = "Practitioner/dr1"


def json_request(event: OrderSigned) -> dict[str, str]:
    """Give the body of a call for one model or a group; its idempotency key is the order's."""
    return {
        "patientId": event.patient_id,
        **({"encounterId": event.encounter_id} if event.encounter_id else {}),
        "orderId": event.order_id,
        "eventTime": event.signed_at.isoformat(),
        "idempotencyKey": f"order-sign:{event.order_id}",
    }


def order_sign_context(event: OrderSigned, *, panel: str) -> dict[str, Any]:
    """Give the context of the hook ``order-sign``, with the order as the only draft.

    Args:
        event: the order.
        panel: what is ordered, by its LOINC code.
    """
    draft = {
        "resourceType": "ServiceRequest",
        "id": event.order_id,
        "status": "draft",
        "intent": "order",
        "subject": {"reference": f"Patient/{event.patient_id}"},
        "authoredOn": event.signed_at.isoformat(),
        "code": {"coding": [{"system": "http://loinc.org", "code": panel}]},
    }
    return {
        "userId": USER,
        "patientId": event.patient_id,
        **({"encounterId": event.encounter_id} if event.encounter_id else {}),
        "draftOrders": {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": draft}]},
    }


def cda_document(event: OrderSigned) -> str:
    """Give the example document of docs/bpa.md about another order, of an encounter.

    Raises:
        CommandFailed: the example is not beside the packages.
    """
    text = _example()
    for old, new in (("p1", event.patient_id), ("e1", event.encounter_id), ("o1", event.order_id)):
        text = text.replace(f'extension="{old}"', f'extension="{new}"')
    instant = f"{event.signed_at:%Y%m%d%H%M%S}+0000"
    return re.sub(r'value="2015\d{10}-0500"', f'value="{instant}"', text)


@cache
def _example() -> str:
    file = function_app().parent / "docs" / "bpa-request.xml"
    if not file.is_file():
        raise CommandFailed("expected docs/bpa-request.xml beside the packages; run it from a checkout")
    return file.read_text(encoding="utf-8")
