"""A score with its contributions; or without them, for no explanation is worth losing a score."""

from __future__ import annotations

import msgspec
import numpy as np

from deployr_core.bundle import Bundle
from deployr_core.concepts import contributions_of
from deployr_core.packet import InferencePacket, Outcome, Scored
from deployr_core.reasons import Reason, reasons
from deployr_core.vectorize import FeatureVector
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import Models

FAILED = "explain.failed"
"""Counted in the coverage of a score that could not be taken apart, though its model can be."""


def reasons_of(packet: InferencePacket, models: Models) -> tuple[Reason, ...]:
    """Give the largest contributions in words; none where the declaration that scored is no longer here."""
    try:
        spec = models.bundle(packet.model.model_id).spec
        return reasons(packet.outcome, spec) if isinstance(packet.outcome, Scored) else ()
    except (ServeError, ValueError):
        return ()


def explained(outcome: Outcome, bundle: Bundle) -> Outcome:
    """Give a score with what each concept added to it, from the vector that is stored with it.

    What is no score stays as it is, and so does a score whose model cannot be taken apart.
    """
    if not isinstance(outcome, Scored):
        return outcome
    vector = FeatureVector(
        spec_digest=outcome.vector.spec_sha256,
        size=outcome.vector.size,
        indices=np.array(outcome.vector.indices, dtype=np.int32),
        values=np.array(outcome.vector.values, dtype=np.float64),
        coverage={},
    )
    try:
        explanation = bundle.model.explain(vector)
        if explanation is None:
            return outcome
        contributions = contributions_of(explanation, bundle.spec)
    except Exception:  # noqa: BLE001 whatever is wrong with the explanation, the score stands, and the failure is counted
        return msgspec.structs.replace(outcome, coverage={**outcome.coverage, FAILED: 1})
    return msgspec.structs.replace(
        outcome, contributions=contributions, base=explanation.base, explained=explanation.explained
    )
