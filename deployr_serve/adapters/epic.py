"""The vendor's external model score column."""

from __future__ import annotations

from deployr_core.bundle import Bundle
from deployr_core.packet import InferencePacket
from deployr_serve.adapters.vendor_write import VendorWriter
from deployr_serve.core.policy import Policies
from deployr_serve.core.ports import Budget
from deployr_serve.outputs.score_column import render_score_column
from deployr_serve.outputs.vendor_target import VendorWrite

_PATH = "api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"


class ScoreColumn:
    """Writes scores to the EMR's external model score column.

    What the vendor answers on success is not public [assumed]: any 2xx without an error body counts as accepted.
    ``jobId`` is derived from the delivery's id, so that a repeat can be recognised by a receiver that looks at it.

    Source: wire formats document, section 3, external model score, body (a) [seen].
    """

    name = "score-column"

    def __init__(self, writer: VendorWriter, *, policies: Policies, namespace: str) -> None:
        self._writer = writer
        self._policies = policies
        self._namespace = namespace

    async def send(
        self, packet: InferencePacket, bundle: Bundle, *, delivery_id: str, budget: Budget | None = None
    ) -> None:
        """Send one score; see `deployr_serve.core.ports.Output`."""
        policy = self._policies.of(packet.model.model_id)
        write = render_score_column(packet, bundle, policy=policy, namespace=self._namespace, delivery_id=delivery_id)
        parameters = (("modelId", write.model_id), ("jobId", write.job_id))
        await self._writer.send(
            VendorWrite(method="POST", path=_PATH, parameters=parameters, body=write.body), budget=budget
        )
