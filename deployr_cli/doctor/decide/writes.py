"""Whether a test score may be written, and the packet that it is written from. Pure."""

from __future__ import annotations

from datetime import datetime

from deployr_core.bundle import Bundle
from deployr_core.packet import InferencePacket, ModelRef, Scored, StoredVector, Subject, Trigger

_LIVE = frozenset({"prod", "prd", "production", "live"})


def is_production(environment: str, *, is_prod_profile: bool) -> bool:
    """Tell whether what is written there ends in the charts of people who are treated."""
    return is_prod_profile or environment.lower() in _LIVE


def refusal(
    *, environment: str, is_prod_profile: bool, repeated: str | None, has_base: bool, has_patient: bool
) -> str | None:
    """Say why no test score is written; None if it may be.

    Where patients are treated, the environment's name has to be repeated literally: it ends in a real chart.
    """
    if not has_base:
        return "--write-test: DEPLOYR_EMR_VENDOR_BASE is not set, so there is nowhere to write to"
    if not has_patient:
        return "--write-test needs --patient, the FHIR id of a test patient"
    if repeated is not None and repeated != environment:
        return "--environment: expected the very name that DEPLOYR_ENVIRONMENT has"
    if repeated is None and is_production(environment, is_prod_profile=is_prod_profile):
        return "--write-test: this is a production environment; repeat its name, with --environment, if you mean it"
    return None


def packet_of_a_test(
    bundle: Bundle, *, site: str, environment: str, patient_id: str, csn: str, now: datetime
) -> InferencePacket:
    """Make a packet with score 0 that is rendered like any other, and stored nowhere."""
    manifest = bundle.manifest
    return InferencePacket(
        packet_id=f"doctor-{now:%Y%m%d%H%M%S%f}",
        site=site,
        environment=environment,
        model=ModelRef(model_id=manifest.model_id, version=manifest.version, bundle_sha256=bundle.digest),
        trigger=Trigger(channel="doctor", correlation_id="doctor", request_sha256="", received_at=now, event_time=now),
        subject=Subject(patient_id=patient_id),
        as_of=now,
        outcome=Scored(
            score=0.0,
            vector=StoredVector(spec_sha256=manifest.spec_sha256, size=manifest.n_features, indices=(), values=()),
            coverage={},
            entity_id=csn,
            value_unit=manifest.task.outputs.unit,
        ),
        started_at=now,
        updated_at=now,
    )
