"""A model's form, bytes in and page out: it scores what is typed as the engine would, and keeps nothing of it."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import urlencode

import azure.functions as func
import msgspec
import numpy as np
import pytest

from deployr_core import bundle as bundles
from deployr_core.codes import LOINC, Code
from deployr_core.coverage import Requirements
from deployr_core.declared import Analyte, EdgeBins, Statistic
from deployr_core.facts import BirthDate, Demographics, Lab, PatientFacts, Sex, Vital
from deployr_core.features import AgeGroup, FeatureSpec, LabGroup, SexGroup, VitalGroup
from deployr_core.layout import layout_of
from deployr_core.model_format import MODEL_FILE
from deployr_core.packet import Mode
from deployr_core.vectorize import vectorize
from deployr_serve.blueprint_pages import pages_blueprint
from deployr_serve.core.caller import CallerRefused
from deployr_serve.core.policy import Policy
from deployr_serve.core.switches import Change, model_switch, turn

HEMOGLOBIN, PULSE = "718-7", "8867-4"
LAST = (Statistic.LAST, Statistic.MISSING)


def latest_of(kind, name, code, label, unit, plausible):
    analyte = Analyte(system=LOINC, code=code, name=label, unit=unit, plausible=plausible)
    return kind(name=name, analytes=(analyte,), statistics=LAST, lookback_days=30)


SPEC = FeatureSpec(
    schema_version=1,
    groups=(
        AgeGroup(bins=EdgeBins(edges=(40.0, 65.0))),
        SexGroup(),
        latest_of(LabGroup, "labs", HEMOGLOBIN, "Hemoglobin <of blood>", "g/dL", (2.0, 25.0)),
        latest_of(VitalGroup, "vitals", PULSE, "Pulse", "/min", (10.0, 300.0)),
    ),
)


@pytest.fixture(scope="module")
def small_bundle(bundle_files):
    """Give a model that sees what a person can type, of trees that look at all of it; it is for adults."""
    import treelite
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(4)
    names = layout_of(SPEC).names
    rows = rng.integers(0, 2, (400, len(names))).astype(float)
    rows[:, names.index(f"labs/{HEMOGLOBIN}/last")] = rng.uniform(5, 18, 400)
    rows[:, names.index(f"vitals/{PULSE}/last")] = rng.uniform(40, 150, 400)
    sure = rows[:, 0] + rows[:, 3] + (rows[:, names.index(f"labs/{HEMOGLOBIN}/last")] < 11)
    forest = RandomForestClassifier(n_estimators=20, max_depth=6, random_state=0).fit(
        rows, sure + rng.random(400) > 1.5
    )
    checkpoint = treelite.sklearn.import_model(forest).serialize_bytes()
    empty = np.zeros((1, len(names)))
    probability = float(treelite.gtil.predict(treelite.Model.deserialize_bytes(checkpoint), empty)[0, 0, -1])
    parts = {
        bundles.FEATURES_FILE: SPEC.to_json(),
        MODEL_FILE: checkpoint,
        bundles.GOLDEN_FILE: msgspec.json.encode(
            (bundles.GoldenVector(indices=(), values=(), outputs=(probability,)),)
        ),
    }
    manifest = msgspec.structs.replace(
        bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE]),
        n_features=len(names),
        spec_sha256=SPEC.digest(),
        parts={name: bundles.describe_part(content) for name, content in parts.items()},
        requires=Requirements(age_at_least=18),
    )
    return bundles.open_bundle(manifest.to_json(), parts)


def policy_of(**changes):
    return Policy(
        **{"schema_version": 1, "model": "hematocrit", "mode": Mode.LIVE, "form": True, "decimals": 6, **changes}
    )


@pytest.fixture
def services(services_of, models_of, small_bundle):
    return services_of(models=models_of(hematocrit=small_bundle), policies=(policy_of(),))


class Callers:
    """Lets a caller in who may ask for these models; without any, nobody."""

    def __init__(self, *models):
        self._models = models

    async def let_in(self, headers, *, correlation_id):
        if not self._models:
            raise CallerRefused("no-basic")
        return SimpleNamespace(name="engine", may_ask=self._models.__contains__)


async def ask(services, given=None, *, body=None, content_type="application/x-www-form-urlencoded", callers=None):
    app = func.FunctionApp()
    application = SimpleNamespace(services=services, json_callers=callers, new_correlation_id=lambda: "correlation-1")
    app.register_functions(pages_blueprint(application))
    functions = {function.get_function_name(): function.get_user_function() for function in app.get_functions()}
    body = urlencode(given or {}).encode() if body is None else body
    answer = await functions["form"](
        func.HttpRequest(
            "GET" if given is None and not body else "POST",
            "/api/models/hematocrit/form",
            headers={"Content-Type": content_type},
            route_params={"model": "hematocrit"},
            body=body,
        )
    )
    return answer.status_code, answer.get_body().decode(), answer.headers


TYPED = {"age": "70", "sex": "female", "test-1": "9.5", "test-2": "120"}


async def test_the_score_is_that_of_the_same_facts(services, small_bundle, now, caplog):
    caplog.set_level(logging.INFO)
    status, page, _ = await ask(services, TYPED)
    at = now - timedelta(hours=2)
    facts = PatientFacts(
        patient_id="p1",
        demographics=Demographics(birth_date=BirthDate(year=1944, month=3, day=4), sex=Sex.FEMALE),
        labs=(Lab(fact_id="1", codes=(Code(LOINC, HEMOGLOBIN),), at=at, known_at=at, value=9.5, unit="g/dL"),),
        vitals=(Vital(fact_id="2", codes=(Code(LOINC, PULSE),), at=at, known_at=at, value=120.0, unit="/min"),),
    )
    score = small_bundle.model.score(vectorize(facts, SPEC, now))
    assert status == 200
    assert f'<p class="score">{score:.6f}</p>' in page
    assert score not in {0.0, 1.0}
    assert "<ol><li>" in page
    assert re.search("Hemoglobin of blood 9.5 g/dL.*\\((raises|lowers)\\)", page)
    # Nothing was stored, and nothing that was typed is in the log.
    assert await services.store.packets(model_id="hematocrit", after=None, limit=10) == ()
    assert not {"9.5", "70", "120", "female"} & set(re.findall(r"[\w.]+", caplog.text))


async def test_what_is_left_empty_is_not_there(services, small_bundle, now):
    status, page, _ = await ask(services, {"age": "30", "sex": "", "test-1": " ", "test-2": ""})
    facts = PatientFacts(
        patient_id="p", demographics=Demographics(birth_date=BirthDate(year=now.year - 30), sex=Sex.UNKNOWN)
    )
    assert status == 200
    assert f"{small_bundle.model.score(vectorize(facts, SPEC, now)):.6f}" in page


async def test_every_field_has_its_label_unit_and_range_and_nothing_declared_becomes_markup(services):
    status, page, headers = await ask(services)
    assert status == 200
    assert re.findall("<legend>(.*?)</legend>", page) == [
        "Patient", "Latest laboratory results", "Latest vital signs"
    ]  # fmt: skip
    assert '<label for="test-1">Hemoglobin &lt;of blood&gt;</label>' in page
    assert "A number from 2 to 25, in g/dL" in page
    assert set(re.findall('label for="(.*?)"', page)) == set(re.findall('<(?:input|select) id="(.*?)"', page))
    assert "Nothing that is typed here is stored" in page
    assert "not for the record" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert not re.search("<script|src=|href=|http", page)


@pytest.mark.parametrize(
    ("field", "value"),
    [("age", "131"), ("age", "4.5"), ("sex", "x"), ("test-1", "1.9"), ("test-1", "nan"), ("test-2", '"><b>')],
)
async def test_what_cannot_be_is_said_next_to_its_field_and_is_not_scored(services, field, value):
    status, page, _ = await ask(services, {**TYPED, field: value})
    assert status == 422
    assert re.search(f'aria-describedby="{field}-hint {field}-error" aria-invalid="true"', page)
    assert page.count('<span class="error"') == 1
    assert 'class="score"' not in page
    assert "<b>" not in page


async def test_a_patient_that_the_model_is_not_for_gets_no_score(services):
    status, page, _ = await ask(services, {**TYPED, "age": "17"})
    assert (status, "The model abstains: out-of-cohort." in page) == (200, True)
    assert 'class="score"' not in page


async def test_a_model_that_sees_more_than_can_be_typed_says_so(services_of, bundle):
    status, page, _ = await ask(services_of(policies=(policy_of(),)))
    assert status == 422
    assert "it looks at more of a test than its latest value" in page


async def test_there_is_a_form_only_where_the_deployment_offers_one(services_of, models_of, small_bundle):
    models = models_of(hematocrit=small_bundle)
    assert (await ask(services_of(models=models)))[0] == 404
    with pytest.raises(ValueError, match="form only in mode live"):
        policy_of(mode=Mode.SILENT)


async def test_only_callers_who_may_ask_for_the_model_get_its_form(services):
    status, page, headers = await ask(services, TYPED, callers=Callers())
    assert (status, headers["WWW-Authenticate"], 'class="score"' in page) == (401, 'Basic realm="deployr"', False)
    assert (await ask(services, TYPED, callers=Callers("anemia")))[0] == 404
    assert (await ask(services, TYPED, callers=Callers("hematocrit")))[0] == 200


async def test_a_model_that_is_switched_off_scores_nobody(services, now):
    await turn(services.records, model_switch("hematocrit"), Change(is_off=True, at=now, by="somebody", why="a test"))
    status, page, _ = await ask(services, TYPED)
    assert (status, "switched off" in page, 'class="score"' in page) == (503, True, False)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"age=1&age=2", "application/x-www-form-urlencoded", 400),
        (b"age=%ff", "application/x-www-form-urlencoded", 400),
        (b"a" * (64 * 1024 + 1), "application/x-www-form-urlencoded", 413),
    ],
)
async def test_what_no_form_sends_is_refused(services, body, content_type, status):
    assert (await ask(services, body=body, content_type=content_type))[0] == status


async def test_that_a_form_was_sent_in_is_audited_and_nothing_of_what_was_typed(services):
    records = []
    services = replace(services, audit=SimpleNamespace(record=records.append))
    await ask(services, callers=Callers("hematocrit"))
    await ask(services, TYPED, callers=Callers("hematocrit"))
    await ask(services, TYPED, callers=Callers())
    assert [(each.act, each.by, each.said, each.model_id) for each in records] == [
        ("form", "engine", "answered", "hematocrit"),
        ("form", "", "not-authenticated", ""),
    ]
    assert all((each.patient_hash, each.packet_id) == ("", "") for each in records)
