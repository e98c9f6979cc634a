"""The vendor's write interfaces."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from deployr_core.bundle import Bundle
from deployr_core.packet import InferencePacket
from deployr_serve.adapters.auth import Credentials, send_authorized
from deployr_serve.adapters.http import Request, Transport, error_of_status, origin
from deployr_serve.core.errors import EmrBadResponse, EmrRefused
from deployr_serve.core.ports import Budget
from deployr_serve.outputs.score_column import render_score_column

_PATH = "api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"


class ScoreColumn:
    """Writes scores to the EMR's external model score column.

    What the vendor answers on success is not public [assumed]: any 2xx without an error body counts as accepted.
    ``jobId`` is derived from the delivery's id, so that a repeat can be recognised by a receiver that looks at it.

    Source: wire formats document, section 3, external model score, body (a) [seen].
    """

    name = "score-column"

    def __init__(self, *, vendor_base: str, transport: Transport, credentials: Credentials, namespace: str) -> None:
        self._url = f"{vendor_base}/{_PATH}"
        self._origin = origin(vendor_base)
        self._transport = transport
        self._credentials = credentials
        self._namespace = namespace

    async def send(
        self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str, budget: Budget | None = None
    ) -> None:
        """Send one score; see `deployr_serve.core.ports.Output`."""
        write = render_score_column(packet, bundle.manifest, namespace=self._namespace, delivery_id=delivery_id)
        url = f"{self._url}?modelId={quote(write.model_id, safe='')}&jobId={write.job_id}"
        if origin(url) != self._origin:
            raise EmrRefused("expected a write to the EMR's own origin")
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        request = Request(method="POST", url=url, headers=headers, body=write.body, budget=budget)
        response = await send_authorized(request, transport=self._transport, credentials=self._credentials)
        if response.status in {400, 404, 409, 410, 412, 422}:
            raise EmrRefused(f"expected the EMR to take the score, got status {response.status}")
        if error := error_of_status(response):
            raise error
        if _is_error(response.body):
            raise EmrRefused("expected the EMR to take the score, got an error in a successful answer")


def _is_error(body: bytes) -> bool:
    if not body.strip():
        return False
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise EmrBadResponse("expected an empty answer or JSON from the score interface") from None
    if not isinstance(answer, dict):
        return False
    failed = answer.get("Success") is False or answer.get("Status") == 0
    return failed or any(answer.get(key) for key in ("ErrorMessage", "Errors", "Error", "ExceptionMessage"))
