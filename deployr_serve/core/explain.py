"""A score with its contributions; or without them, for no explanation is worth losing a score."""

from __future__ import annotations

import msgspec
import numpy as np

from deployr_core.bundle import Bundle
from deployr_core.concepts import contributions_of
from deployr_core.packet import InferencePacket, Outcome, Scored, StoredVector
from deployr_core.reasons import Reason, reasons
from deployr_core.vectorize import FeatureVector
from deployr_serve.core.errors import ServeError
from deployr_serve.core.ports import Models

FAILED = "explain.failed"
"""Counted in the coverage of a score that could not be taken apart, though its model can be."""


def reasons_of(packet: InferencePacket, models: Models) -> tuple[Reason, ...]:
    """Give the largest contributions in words; none where the declaration that scored is no longer here."""
    try:
        bundle = models.bundle(packet.model.model_id)
        return reasons(packet.outcome, bundle.spec, bundle.documents) if isinstance(packet.outcome, Scored) else ()
    except (ServeError, ValueError):
        return ()


def vector_of(stored: StoredVector) -> FeatureVector:
    """Give a stored row as it was scored, to the bit."""
    return FeatureVector(
        spec_digest=stored.spec_sha256,
        size=stored.size,
        indices=np.array(stored.indices, dtype=np.int32),
        values=np.array(stored.values, dtype=np.float64),
        coverage={},
    )


def explained(outcome: Outcome, bundle: Bundle) -> Outcome:
    """Give a score with what each concept added to it; what is no score stays as it is."""
    return explained_score(outcome, bundle) if isinstance(outcome, Scored) else outcome


def explained_score(scored: Scored, bundle: Bundle) -> Scored:
    """Give a score with what each concept added to it, from the vector that is stored with it.

    A score whose model cannot be taken apart stays as it is.
    """
    try:
        explanation = bundle.model.explain(vector_of(scored.vector))
        if explanation is None:
            return scored
        contributions = contributions_of(explanation, bundle.spec, bundle.documents)
    except Exception:  # noqa: BLE001 whatever is wrong with the explanation, the score stands, and the failure is counted
        return msgspec.structs.replace(scored, coverage={**scored.coverage, FAILED: 1})
    return msgspec.structs.replace(
        scored, contributions=contributions, base=explanation.base, explained=explanation.explained
    )
