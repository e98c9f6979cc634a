"""`deployr bundle export`: ONNX and PMML answer as the bundle does, on golden rows and at the model's thresholds."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from lightgbm import LGBMRegressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner
from xgboost import XGBClassifier

from deployr_cli.edge import onnx_file, pmml_reading
from deployr_cli.edge.export import LARGEST_DIFFERENCE, Format, export_beside, export_bundle
from deployr_cli.edge.plain import NotForEdge, PlainModel, Trees, own_answers, plain_model, rows_to_try
from deployr_cli.edge.pmml_file import pmml
from deployr_cli.failures import CommandFailed
from deployr_cli.main import app
from deployr_core.bundle import MANIFEST_FILE, parse_manifest
from deployr_core.model_format import ModelFormat, load_model
from deployr_core.outputs import BINARY, Outputs, Target
from deployr_core.scoring import IsotonicTable
from deployr_dev.models import calibrated, model_part

pytest.importorskip("onnxruntime", reason="needs onnx and onnxruntime, of the extra edge")

N = 5
CLASSES = Outputs(target=Target.MULTICLASS, names=("low", "normal", "high"), headline="low")
LABELS = Outputs(target=Target.MULTILABEL, names=("hematocrit", "wbc"), headline="wbc")
NUMBER = Outputs(target=Target.REGRESSION, names=("value",), headline="value", unit="g/dL")
RNG = np.random.default_rng(3)
ROWS = np.where(RNG.random((300, N)) < 0.4, 0.0, np.round(RNG.normal(37, 6, (300, N)), 1))
SIGNAL = ROWS[:, 0] + ROWS[:, 1] + RNG.normal(0, 9, 300)
WANTED = {
    Target.BINARY: (SIGNAL > 45).astype(int),
    Target.MULTICLASS: np.digitize(SIGNAL, [30, 60]),
    Target.MULTILABEL: np.column_stack([SIGNAL > 30, SIGNAL > 55]).astype(int),
    Target.REGRESSION: SIGNAL,
}
FOREST = RandomForestClassifier(6, max_depth=4, random_state=0)
BOOSTED = GradientBoostingClassifier(n_estimators=4, random_state=0)
XGB = XGBClassifier(n_estimators=4, n_jobs=1, missing=0.0, random_state=0)
LIGHT = LGBMRegressor(n_estimators=4, n_jobs=1, verbose=-1, random_state=0)
LOGISTIC = LogisticRegression(max_iter=5000)
CASES: dict[str, tuple[Outputs, Any, float]] = {
    "forest": (BINARY, FOREST, 1e-15),
    "forest, several classes": (CLASSES, FOREST, 1e-15),
    "forest, several labels": (LABELS, FOREST, 1e-15),
    "boosting": (BINARY, BOOSTED, 1e-15),
    "boosting, several classes": (CLASSES, BOOSTED, 1e-15),
    # It adds in float32.
    "XGBoost, where 0 is missing": (BINARY, XGB, 1e-6),
    "LightGBM, a number": (NUMBER, LIGHT, 1e-13),
    "logistic regression": (BINARY, LOGISTIC, 1e-15),
    # The slope of its line multiplies the last bit of a sum in another order.
    "isotonic": (BINARY, CalibratedClassifierCV(FOREST, method="isotonic", ensemble=False), 1e-13),
    "sigmoid": (BINARY, CalibratedClassifierCV(BOOSTED, method="sigmoid", ensemble=False), 1e-15),
}


def plain(part: Any) -> PlainModel:
    scorer = load_model(part.format, part.content, n_features=N, outputs=part.outputs, calibration=part.calibration)
    return plain_model(
        part.format,
        part.content,
        calibration=part.calibration,
        names=[f"labs/<{place}>/count" for place in range(N)],
        outputs=part.outputs,
        scorer=scorer,
        about={"deployr.model_id": "hematocrit", "deployr.label": "outside its reference range"},
    )


def fitted(name: str) -> PlainModel:
    outputs, estimator, _ = CASES[name]
    return plain(model_part(estimator.fit(ROWS, WANTED[outputs.target]), n_features=N, outputs=outputs))


def apart(model: PlainModel, answers: Any) -> float:
    rows = np.concatenate([rows_to_try(model, ()), ROWS[:50], np.zeros((1, N))])
    return float(np.abs(answers(rows) - own_answers(model, rows)).max())


@pytest.mark.parametrize("name", CASES)
def test_the_files_answer_as_the_bundle_at_and_beside_every_threshold(name: str) -> None:
    model, bound = fitted(name), CASES[name][2]
    content = onnx_file.onnx_model(model).SerializeToString()
    assert apart(model, lambda rows: onnx_file.answers(content, rows)) <= bound
    if len(model.outputs.names) == 1:
        written = pmml(model)
        assert apart(model, lambda rows: pmml_reading.answers(written, rows)) <= bound


def test_what_several_numbers_come_of_is_no_pmml_and_what_runs_code_is_neither() -> None:
    with pytest.raises(NotForEdge, match="what gives several can be exported to ONNX"):
        pmml(fitted("forest, several classes"))
    with pytest.raises(NotForEdge, match="got the kind joblib, which is code"):
        plain_model(
            ModelFormat(kind="joblib", runs_code=True),
            b"",
            calibration=None,
            names=(),
            outputs=BINARY,
            scorer=fitted("logistic regression").scorer,
            about={},
        )


def test_a_cut_between_neighbours_of_float32_parts_numbers_of_float64_as_their_rounding_does() -> None:
    model = fitted("forest")
    assert isinstance(model.model, Trees)
    tree = model.model.trees[0]
    cut = tree.threshold[0]
    for number in (cut, np.nextafter(cut, np.inf), np.nextafter(cut, -np.inf), np.float32(cut), 38.3, 38.35):
        row = np.zeros((1, N))
        row[0, tree.feature[0]] = number
        content = onnx_file.onnx_model(model).SerializeToString()
        assert np.abs(onnx_file.answers(content, row) - own_answers(model, row)).max() <= 1e-15


def test_an_isotonic_table_of_one_point_is_a_constant() -> None:
    part = calibrated(
        model_part(FOREST.fit(ROWS, WANTED[Target.BINARY]), n_features=N),
        IsotonicTable(thresholds=(0.5,), values=(0.25,)),
    )
    model = plain(part)
    content, written = onnx_file.onnx_model(model).SerializeToString(), pmml(model)
    assert onnx_file.answers(content, ROWS[:3]).ravel().tolist() == [0.25] * 3
    assert pmml_reading.answers(written, ROWS[:3]).ravel().tolist() == [0.25] * 3


def test_the_command_says_how_far_apart_and_the_file_says_what_its_columns_are(bundles_folder, tmp_path) -> None:
    import onnx

    out = tmp_path / "hematocrit.onnx"
    told = CliRunner().invoke(
        app, ["bundle", "export", str(bundles_folder / "hematocrit"), "--to", "onnx", "--out", str(out)]
    )
    assert told.exit_code == 0, told.output
    assert "at most 0.0e+00 from the bundle's scores on its 2 golden rows" in told.output.replace("\n", "")
    about = {each.key: each.value for each in onnx.load(out).metadata_props}
    assert json.loads(about["deployr.outputs"]) == ["positive"]
    assert "labs/4544-3/count" in json.loads(about["deployr.features"])
    manifest = parse_manifest((bundles_folder / "hematocrit" / MANIFEST_FILE).read_bytes())
    assert about["deployr.spec_sha256"] == manifest.spec_sha256
    assert export_bundle(bundles_folder / "hematocrit", Format.PMML, tmp_path / "model.pmml").golden == 0.0


def test_a_file_that_answers_otherwise_is_not_written(bundles_folder, tmp_path, monkeypatch) -> None:
    right = onnx_file.answers
    monkeypatch.setattr(onnx_file, "answers", lambda content, rows: right(content, rows) + 2 * LARGEST_DIFFERENCE)
    with pytest.raises(CommandFailed, match=r"expected answers within 1e-06 of the bundle's own, got 2.0e-06"):
        export_bundle(bundles_folder / "hematocrit", Format.ONNX, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    told = export_beside(bundles_folder / "hematocrit")
    assert told[0].startswith("model.onnx was not written: ")
    assert "model.pmml: at most 0.0e+00" in told[1]


def test_a_file_that_answers_no_number_is_not_written(bundles_folder, tmp_path, monkeypatch) -> None:
    right = onnx_file.answers

    def last_is_none(content: Any, rows: Any) -> Any:
        return np.where(np.arange(len(rows))[:, None] == len(rows) - 1, np.nan, right(content, rows))

    monkeypatch.setattr(onnx_file, "answers", last_is_none)
    with pytest.raises(CommandFailed, match="got nan; it was not written"):
        export_bundle(bundles_folder / "hematocrit", Format.ONNX, tmp_path / "model.onnx")


def test_whatever_goes_wrong_with_one_file_the_other_is_written(bundles_folder, monkeypatch) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    def too_old(content: Any, rows: Any) -> Any:
        raise Fail("Unsupported model IR version")

    monkeypatch.setattr(onnx_file, "answers", too_old)
    told = export_beside(bundles_folder / "hematocrit")
    assert told[0] == "model.onnx was not written: Unsupported model IR version"
    assert (bundles_folder / "hematocrit" / "model.pmml").is_file()


def test_what_the_manifest_promises_is_checked_first(bundles_folder, tmp_path) -> None:
    manifest = bundles_folder / "hematocrit" / MANIFEST_FILE
    said = msgspec.json.decode(manifest.read_bytes())
    manifest.write_bytes(msgspec.json.encode({**said, "n_features": 3}))
    result = CliRunner().invoke(
        app, ["bundle", "export", str(bundles_folder / "hematocrit"), "--to", "pmml", "--out", str(tmp_path / "x")]
    )
    assert isinstance(result.exception, CommandFailed)
    assert not (tmp_path / "x").exists()
