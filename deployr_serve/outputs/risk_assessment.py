"""A scored packet as a FHIR RiskAssessment.

Source: wire formats document, section 3, RiskAssessment; FHIR R4 riskassessment.html: status and subject are required,
``probabilityDecimal`` [seen]. That it is a fraction of 1 and no percentage is how we write it, as R4 allows either
scale in a decimal of at most 100 [seen].
"""

from __future__ import annotations

from deployr_core.bundle import Manifest
from deployr_core.packet import InferencePacket
from deployr_serve.core.errors import InvalidScore
from deployr_serve.core.policy import Policy
from deployr_serve.outputs import fhir_elements as fhir
from deployr_serve.outputs.wording import advice_in, scored, wire_instant


def render_risk_assessment(
    packet: InferencePacket, manifest: Manifest, *, policy: Policy, delivery_id: str
) -> fhir.Resource:
    """Render the resource: one prediction, or one for each class or label.

    Raises:
        InvalidScore: the packet is not scored, or its score is a number and no probability.
    """
    outcome = scored(packet)
    if outcome.value_unit is not None:
        raise InvalidScore("expected a probability: a RiskAssessment holds no other number")
    band = outcome.decision.band if outcome.decision is not None else None
    risk = {"qualitativeRisk": {"text": band}} if band else {}
    predictions = [
        {"outcome": {"text": name}, "probabilityDecimal": _rounded(probability, policy)}
        for name, probability in (outcome.outputs or {manifest.task.label: outcome.score}).items()
    ]
    if len(predictions) == 1:
        predictions = [{**predictions[0], **risk}]
    basis = () if packet.subject.order_id is None else (f"ServiceRequest/{packet.subject.order_id}",)
    resource = {
        **fhir.identified("RiskAssessment", delivery_id),
        "status": "final",
        "method": fhir.model_concept(manifest),
        "code": {"text": manifest.score_name},
        **fhir.about(packet),
        "occurrenceDateTime": wire_instant(packet.as_of),
        "prediction": predictions,
        **fhir.noted(advice_in(packet, policy)),
    }
    if basis:
        resource["basis"] = [{"reference": each} for each in basis]
    return resource


def _rounded(probability: float, policy: Policy) -> float:
    return probability if policy.decimals is None else round(probability, policy.decimals)
