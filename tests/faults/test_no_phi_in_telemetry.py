"""The canary test over telemetry: the same day as in `test_no_phi_leaks`, with everything that is exported kept."""

from __future__ import annotations

import pytest

from deployr_serve import telemetry_bootstrap
from deployr_serve.adapters.fhir_source import FhirSource
from deployr_serve.core.watch import Step
from tests.faults.test_no_phi_leaks import (  # noqa: F401 fixtures of the same day
    CANARIES,
    CLINICIAN,
    emr,
    leaks,
    live,
    logs,
)
from tests.telemetry_kept import Kept


@pytest.fixture
def kept(monkeypatch):
    kept = Kept()
    monkeypatch.setattr(telemetry_bootstrap, "exporters_of", lambda *_: kept.exporters)
    return kept


@pytest.fixture
def app_of(app_of, kept):
    """Give the app with telemetry on, and remember it."""

    def make(url, **settings):
        app = app_of(url, DEPLOYR_TELEMETRY="otlp:http://127.0.0.1:1", **settings)
        kept.telemetry = app.application.telemetry
        return app

    return make


async def test_no_canary_is_in_anything_that_is_exported(live, kept):  # noqa: F811 the imported fixture
    *_, surfaces = await live()
    kept.telemetry.flush()
    names = [span.name for span in kept.spans()]
    # All that was to happen did happen, and was told of.
    assert names.count(Step.INFERENCE) >= 15
    assert {Step.CLAIM, Step.FETCH, Step.SEARCH, Step.VECTORIZE, Step.SCORE, Step.STORE, Step.DELIVER} <= set(names)
    assert {Step.RELAY, Step.LABELS} <= set(names)
    outcomes = {span.attributes.get("deployr.outcome") for span in kept.spans()}
    assert {"scored", "rejected", "failed", "refused"} <= outcomes
    told = [point.attributes for _, point in kept.points()]
    assert {"wrong-patient", "emr-refused"} <= {each.get("deployr.reason") for each in told}
    assert "RuntimeError" in {each.get("deployr.error") for each in told}
    assert {name for name, _ in kept.points()} == {"deployr.step.duration", "deployr.deliveries-pending"}
    assert leaks(CANARIES | CLINICIAN, {"telemetry": kept.text()}) == []
    # Nor has anything else begun to leak.
    assert leaks(CANARIES, surfaces) == []


async def test_what_a_careless_hand_tells_of_a_patient_is_stopped_on_its_way_out(live, kept, monkeypatch):  # noqa: F811
    fetch = FhirSource.fetch

    async def chatty_fetch(self, subject, spec, **asked):
        watch = kept.telemetry.watch
        with watch.step(Step.FETCH, reason=subject.patient_id) as noted:
            noted.note(model=subject.patient_id, output=subject.order_id, patient=subject.patient_id)
            with watch._tracer.start_as_current_span(f"GET /Patient/{subject.patient_id}") as span:
                span.set_attribute("url.full", f"https://emr/Patient/{subject.patient_id}")
                return await fetch(self, subject, spec, **asked)

    monkeypatch.setattr(FhirSource, "fetch", chatty_fetch)
    await live()
    kept.telemetry.flush()
    assert "other" in {span.name for span in kept.spans()}
    assert leaks(CANARIES, {"telemetry": kept.text()}) == []
