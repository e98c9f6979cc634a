"""A model that answers elsewhere is sent features and nothing else, is held to what it promised, and proves itself."""

from __future__ import annotations

import json

import msgspec
import pytest

from deployr_core.bundle import (
    FEATURES_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    BundleInvalid,
    describe_part,
    open_bundle,
    parse_manifest,
)
from deployr_core.elsewhere import Answered, ModelElsewhere, PredictorFile, Promise, replies_of, request_body
from deployr_core.layout import layout_of
from deployr_core.model_format import HTTP_FILE, MODEL_FILE, ModelFormat
from deployr_core.outputs import BINARY, Outputs, Target
from deployr_core.scoring import ModelAway, ModelUnusable, Reply, ScoreInvalid

NAMES = ("sex", "labs/1/count", "labs/1/last")
CLASSES = Outputs(target=Target.MULTICLASS, names=("low", "high"), headline="high")


@pytest.fixture
def row_of():
    """Give a function that makes a row of features of these numbers."""
    import numpy as np

    from deployr_core.vectorize import FeatureVector

    def make(*numbers):
        row = np.array(numbers, dtype=np.float64)
        indices = np.flatnonzero(row).astype(np.int32)
        return FeatureVector(spec_digest="d" * 64, size=len(row), indices=indices, values=row[indices], coverage={})

    return make


class Far:
    """Answers by the number of results, half of it as the probability, under a name that may change."""

    def __init__(self, name="net 1", *, slope=0.5):
        self.name, self.slope, self.is_away, self.asked = name, slope, False, []

    def reach(self, file):
        return self.ask

    def ask(self, body):
        if self.is_away:
            raise ModelAway("expected net to be available")
        rows = json.loads(body)["rows"]
        self.asked.append(rows)
        answers = [[self.slope * row.get("labs/1/count", 0.0)] for row in rows]
        return Answered(body=json.dumps({"answered_by": self.name, "rows": answers}).encode())


@pytest.fixture
def model_of(row_of):
    """Give a function that makes a model whose golden rows, of 1 and 2 results, must get 0.5 and 1."""

    def make(far, **changes):
        golden = Promise(rows=(row_of(0.0, 1.0, 0.0), row_of(1.0, 2.0, 30.0)), outputs=((0.5,), (1.0,)))
        content = PredictorFile(predictor="net-a", **changes).to_json()
        return ModelElsewhere(content, names=NAMES, outputs=BINARY, golden=golden, reach=far.reach)

    return make


def test_our_protocol_names_the_features_that_are_there_and_nothing_else(row_of):
    body = request_body("deployr", NAMES, (row_of(1.0, 0.0, 36.5), row_of(0.0, 0.0, 0.0)))
    assert json.loads(body) == {
        "n_features": 3,
        "rows": [{"sex": 1.0, "labs/1/last": 36.5}, {}],
        "spec_sha256": "d" * 64,
    }


@pytest.mark.parametrize("protocol", ["mlflow", "databricks"])
def test_mlflow_gets_every_feature_as_a_split_data_frame(row_of, protocol):
    body = request_body(protocol, NAMES, (row_of(1.0, 0.0, 36.5),))
    assert json.loads(body) == {"dataframe_split": {"columns": list(NAMES), "data": [[1.0, 0.0, 36.5]]}}


@pytest.mark.parametrize(
    ("body", "columns", "outputs", "expected"),
    [
        (b'{"predictions": [0.25]}', (), BINARY, (0.25,)),
        (b'{"predictions": [[0.75, 0.25]]}', (1,), BINARY, (0.25,)),
        (b'{"predictions": [[0.25, 0.75]]}', (1, 0), CLASSES, (0.75, 0.25)),
        (b'{"predictions": [1]}', (), BINARY, (1.0,)),
    ],
)
def test_an_answer_of_mlflow_is_read_by_its_columns(body, columns, outputs, expected):
    file = PredictorFile(predictor="net-a", protocol="mlflow", columns=columns)
    (reply,) = replies_of(Answered(body=body, answered_by="net 3"), file, outputs, n_rows=1)
    assert reply == Reply(outputs=expected, answered_by="net 3")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"<html>", "the protocol deployr"),
        (b'{"rows": [[NaN]]}', "the protocol deployr"),
        (b'{"rows": [["0.5"]]}', "the protocol deployr"),
        (b'{"rows": [[1e999]]}', "the protocol deployr|from 0 to 1"),
        (b'{"rows": [[0.5], [0.5]]}', "expected 1 rows in the answer, got 2"),
        (b'{"rows": []}', "expected 1 rows in the answer, got 0"),
        (b'{"rows": [[0.5, 0.5]]}', "expected 1 numbers"),
        (b'{"rows": [[1.5]]}', "from 0 to 1"),
        (b'{"rows": [[-0.5]]}', "from 0 to 1"),
        (b'{"rows": [[0.5]], "answered_by": "a\\nb"}', "a model's name"),
        (b'{"rows": [[0.5]], "answered_by": "' + b"x" * 201 + b'"}', "a model's name"),
    ],
)
def test_an_answer_that_is_not_what_is_predicted_is_refused(body, complaint):
    with pytest.raises(ScoreInvalid, match=complaint):
        replies_of(Answered(body=body), PredictorFile(predictor="net-a"), BINARY, n_rows=1)


def test_a_model_proves_itself_before_it_answers_and_not_again(model_of, row_of):
    far = Far()
    model = model_of(far)
    assert model.reply(row_of(0.0, 1.0, 0.0)) == Reply(outputs=(0.5,), answered_by="net 1")
    assert model.score(row_of(0.0, 0.0, 0.0)) == 0.0
    assert [len(rows) for rows in far.asked] == [2, 1, 1]


def test_a_model_that_was_exchanged_proves_itself_again(model_of, row_of):
    far = Far()
    model = model_of(far)
    far.name = "net 2"
    assert model.reply(row_of(0.0, 1.0, 0.0)) == Reply(outputs=(0.5,), answered_by="net 2")
    assert [len(rows) for rows in far.asked] == [2, 1, 2]
    far.name, far.slope = "net 3", 0.25
    with pytest.raises(ScoreInvalid, match="golden row 0"):
        model.reply(row_of(0.0, 1.0, 0.0))
    far.name, far.slope = "net 1", 0.5
    assert model.score(row_of(0.0, 2.0, 0.0)) == 1.0


def test_while_it_is_being_exchanged_it_may_be_asked_again_later(model_of, row_of):
    class Exchanged(Far):
        def ask(self, body):
            self.name = f"net {len(self.asked)}"
            return super().ask(body)

    model = model_of(Exchanged())
    with pytest.raises(ModelAway, match="being exchanged"):
        model.reply(row_of(0.0, 1.0, 0.0))


def test_a_model_that_gives_other_golden_answers_is_not_opened(model_of):
    with pytest.raises(ScoreInvalid, match="golden row 0"):
        model_of(Far(slope=0.4999999))
    assert model_of(Far(slope=0.4999999), tolerance=1e-6).score
    with pytest.raises(ScoreInvalid, match="golden row 1"):
        model_of(Far(slope=0.4999994), tolerance=1e-6)


def test_a_model_that_is_away_when_it_is_opened_proves_itself_when_it_is_back(model_of, row_of):
    far = Far()
    far.is_away = True
    model = model_of(far)
    with pytest.raises(ModelAway):
        model.reply(row_of(0.0, 1.0, 0.0))
    far.is_away = False
    assert model.score(row_of(0.0, 1.0, 0.0)) == 0.5
    assert [len(rows) for rows in far.asked] == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"predictor": "Net"}',
        b'{"predictor": "net-a", "protocol": "soap"}',
        b'{"predictor": "net-a", "url": "https://elsewhere"}',
        b'{"predictor": "net-a", "tolerance": 0.1}',
        b'{"predictor": "net-a", "columns": [0, 1]}',
        b'{"predictor": "net-a", "columns": [-1]}',
    ],
)
def test_a_file_that_does_not_say_where_is_refused(content, row_of):
    golden = Promise(rows=(row_of(0.0, 1.0, 0.0),), outputs=((0.5,),))
    with pytest.raises(ModelUnusable):
        ModelElsewhere(content, names=NAMES, outputs=BINARY, golden=golden, reach=Far().reach)


@pytest.fixture
def elsewhere_files(bundle_files):
    """Give a bundle's files whose model answers elsewhere: a quarter without a result, 3/4 with one."""
    parts = {name: bundle_files[name] for name in (FEATURES_FILE, GOLDEN_FILE)}
    parts[HTTP_FILE] = PredictorFile(predictor="net-a").to_json()
    manifest = msgspec.structs.replace(
        parse_manifest(bundle_files[MANIFEST_FILE]),
        model=ModelFormat(kind="http"),
        parts={name: describe_part(content) for name, content in parts.items()},
    )
    return {MANIFEST_FILE: manifest.to_json(), **parts}


def test_a_bundle_opens_with_a_way_to_its_model_and_not_without(elsewhere_files, feature_spec):
    count = next(name for name in layout_of(feature_spec).names if name.endswith("/count"))

    def ask(body):
        rows = json.loads(body)["rows"]
        return Answered(body=json.dumps({"rows": [[0.75 if row.get(count) else 0.25] for row in rows]}).encode())

    manifest_json = elsewhere_files[MANIFEST_FILE]
    bundle = open_bundle(manifest_json, elsewhere_files, reach=lambda _: ask)
    assert bundle.manifest.part_names == (FEATURES_FILE, HTTP_FILE, GOLDEN_FILE)
    assert MODEL_FILE not in bundle.manifest.parts
    with pytest.raises(BundleInvalid, match="DEPLOYR_PREDICTORS"):
        open_bundle(manifest_json, elsewhere_files)
    with pytest.raises(BundleInvalid, match=r"model\.http\.json: golden row 0"):
        open_bundle(manifest_json, elsewhere_files, reach=lambda _: lambda _: Answered(body=b'{"rows":[[0],[0]]}'))
    with pytest.raises(BundleInvalid, match=r"model\.http\.json: expected SHA-256"):
        open_bundle(manifest_json, {**elsewhere_files, HTTP_FILE: PredictorFile(predictor="net-b").to_json()})
