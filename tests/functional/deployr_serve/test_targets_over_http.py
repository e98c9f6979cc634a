"""Classes, labels and numbers, from bytes to bytes: scored, written to the score column, labelled afterwards."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from deployr_core import bundle as bundles
from deployr_core.features import parse_feature_spec
from deployr_core.label_rules import Answer, LabComponent, LabPanel, LengthOfStay, outputs_of
from deployr_core.layout import layout_of
from deployr_core.model_format import MODEL_FILE
from deployr_core.outputs import Target
from deployr_core.packet import Censored
from deployr_dev.models import model_part
from deployr_dev.probes import row_vector

HEMATOCRIT, HEMOGLOBIN = "4544-3", "718-7"
PANEL = LabPanel(components={"hemoglobin": (HEMOGLOBIN,), "hematocrit": (HEMATOCRIT,)}, window_hours=24)
RULES = {
    # By model: rule, headline, score name, and what became of 4 rows without an earlier result and of 4 with one.
    "hematocrit-level": (
        LabComponent(components=(HEMATOCRIT,), window_hours=24, answer=Answer.LEVEL),
        "normal",
        "HCT_NORMAL",
        [0, 0, 1, 2, 0, 1, 1, 2],
    ),
    "cbc-panel": (
        PANEL,
        "hematocrit",
        "CBC_HCT",
        # hematocrit, hemoglobin
        [(0, 1), (0, 1), (0, 0), (1, 0), (0, 1), (1, 0), (1, 0), (1, 0)],
    ),
    "hematocrit-value": (
        LabComponent(components=(HEMATOCRIT,), window_hours=24, answer=Answer.VALUE, unit="%"),
        None,
        "HCT_EXPECTED",
        [40.0, 40.0, 40.0, 44.0, 30.0, 30.0, 30.0, 33.0],
    ),
    "length-of-stay": (LengthOfStay(), None, "STAY_DAYS", [2.0, 2.0, 3.0, 3.0, 5.0, 5.0, 10.0, 10.0]),
}


def as_bundle(model_id, bundle_files):
    """Make the bundle of one tree that asks only whether there was an earlier result."""
    rule, headline, score_name, labels = RULES[model_id]
    outputs = outputs_of(rule, headline=headline)
    spec = parse_feature_spec(bundle_files[bundles.FEATURES_FILE])
    names = layout_of(spec).names
    rows = np.zeros((8, len(names)))
    rows[4:, names.index(f"labs/{HEMATOCRIT}/count")] = 1.0
    kind = RandomForestRegressor if outputs.target is Target.REGRESSION else RandomForestClassifier
    forest = kind(n_estimators=1, bootstrap=False, max_features=None, random_state=0).fit(rows, np.array(labels))
    part = model_part(forest, n_features=len(names), outputs=outputs)
    scorer = part.scorer(n_features=len(names))
    golden = [
        bundles.GoldenVector(
            indices=tuple(np.flatnonzero(row).tolist()),
            values=tuple(row[row != 0].tolist()),
            outputs=scorer.answer(row_vector(row)),
        )
        for row in rows[[0, 7]]
    ]
    parts = {
        bundles.FEATURES_FILE: bundle_files[bundles.FEATURES_FILE],
        MODEL_FILE: part.content,
        bundles.GOLDEN_FILE: msgspec.json.encode(golden),
    }
    manifest = bundles.parse_manifest(bundle_files[bundles.MANIFEST_FILE])
    means = dict.fromkeys(outputs.names, 0.5)
    manifest = msgspec.structs.replace(
        manifest,
        model_id=model_id,
        score_name=score_name,
        task=msgspec.structs.replace(manifest.task, name=model_id, rule=rule, outputs=outputs),
        parts={name: bundles.describe_part(content) for name, content in parts.items()},
        model=part.format,
        training=msgspec.structs.replace(manifest.training, label_means=means),
        evaluation=msgspec.structs.replace(manifest.evaluation, label_means=means),
    )
    return {bundles.MANIFEST_FILE: manifest.to_json(), **parts}


@pytest.fixture
async def emr(emr_of, chart_of):
    """Give an EMR with one patient: a hematocrit of 30 % before the order, and one and a hemoglobin of 14 after it."""
    chart = chart_of("p1", "e1", "o1", "421", "lab1", value=30.0, birth="1950-03-04")
    [after] = [one for one in chart if one["id"] == "lab1-after"]
    hemoglobin = {
        **after,
        "id": "hgb-after",
        "code": {"coding": [{"system": "http://loinc.org", "code": HEMOGLOBIN}]},
        "valueQuantity": {"value": 14.0, "unit": "g/dL"},
        "referenceRange": [{"low": {"value": 12, "unit": "g/dL"}, "high": {"value": 16, "unit": "g/dL"}}],
    }
    return await emr_of(*chart, hemoglobin)


@pytest.fixture
def app(emr, app_of, bundle_files, tmp_path):
    for model_id in RULES:
        folder = tmp_path / "targets" / model_id
        folder.mkdir(parents=True)
        for name, content in as_bundle(model_id, bundle_files).items():
            (folder / name).write_bytes(content)
    return app_of(emr.url, DEPLOYR_BUNDLES=str(tmp_path / "targets"))


@pytest.mark.parametrize(
    ("model", "answer", "column", "rule", "label"),
    [
        (
            "hematocrit-level",
            {"score": 2 / 4, "outputs": {"low": 1 / 4, "normal": 2 / 4, "high": 1 / 4}},
            ("DEPLOYR.HCT_NORMAL@1", "50"),
            "lab-component",
            "low",
        ),
        (
            "cbc-panel",
            {"score": 3 / 4, "outputs": {"hematocrit": 3 / 4, "hemoglobin": 1 / 4}},
            ("DEPLOYR.CBC_HCT@1", "75"),
            "lab-panel",
            {"hematocrit": 1.0, "hemoglobin": 0.0},
        ),
        (
            "hematocrit-value",
            {"score": (30 + 30 + 30 + 33) / 4, "unit": "%"},
            ("DEPLOYR.HCT_EXPECTED@1", "30.75"),
            "lab-component",
            30.0,
        ),
    ],
)
async def test_an_order_is_answered_written_and_labelled(app, emr, now, model, answer, column, rule, label):
    response = await app.infer(model=model)

    body = json.loads(response.get_body())
    assert {name: body[name] for name in body if name in {"score", "outputs", "unit"}} == answer
    again = await app.infer(model=model)
    assert again.get_body() == response.get_body()
    cells = {cell.model_id: [row.score for row in cell.rows] for cell in emr.parts.scores.cells()}
    assert cells == {column[0]: [column[1]]}

    app.set_clock(now + timedelta(days=2))
    emr.parts.clock.put(now + timedelta(days=2))
    await app.fire("extract_labels")
    [held] = await app.store.labels(model_id=model, rule=rule, after=None, limit=10)
    assert held.outcome.value == label


async def test_a_stay_is_predicted_in_days_and_has_no_label_while_it_lasts_until_nobody_waits_any_more(app, emr, now):
    response = await app.infer(model="length-of-stay")

    body = json.loads(response.get_body())
    assert (body["score"], body["unit"], "outputs" in body) == ((5 + 5 + 10 + 10) / 4, "d", False)
    assert [[row.score for row in cell.rows] for cell in emr.parts.scores.cells()] == [["7.5"]]
    app.set_clock(now + timedelta(days=60))
    await app.fire("extract_labels")
    assert await app.store.labels(model_id="length-of-stay", rule="length-of-stay", after=None, limit=10) == ()
    app.set_clock(now + timedelta(days=366))
    await app.fire("extract_labels")
    [held] = await app.store.labels(model_id="length-of-stay", rule="length-of-stay", after=None, limit=10)
    assert held.outcome == Censored(reason="not-ended")
