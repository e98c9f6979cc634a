"""What a report of classes, labels and numbers holds, by hand; and that its page says it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deployr_core.bundle import Estimate, Manifest, Part, Task, Training
from deployr_core.bundle import Evaluation as Stated
from deployr_core.label_rules import Answer, LabComponent, LabelRule, LabPanel, outputs_of
from deployr_core.outputs import BINARY, Outputs
from deployr_dev.evaluation.plain_measuring import evaluate_plain
from deployr_dev.evaluation.plain_records import ClassDetail, LabelDetail, NumberDetail, PlainEvaluation
from deployr_dev.evaluation.plain_report import PlainReport
from deployr_dev.evaluation.records import Measured, NotMeasured, RocPoints, TooSmall
from deployr_dev.evaluation.report import IndexEntry, write_index, write_report

LEVEL = LabComponent(components=("777-3",), window_hours=24, answer=Answer.LEVEL)
PANEL = LabPanel(components={"hemoglobin": ("718-7",), "hematocrit": ("4544-3",)}, window_hours=24)
VALUE = LabComponent(components=("718-7",), window_hours=24, answer=Answer.VALUE, unit="g/dL")
RULES: dict[str, tuple[LabelRule, str | None]] = {
    "classes": (LEVEL, "low"),
    "labels": (PANEL, "hemoglobin"),
    "numbers": (VALUE, None),
}


def outputs(kind: str) -> Outputs:
    rule, headline = RULES[kind]
    return outputs_of(rule, headline=headline)


def evaluated(kind: str, labels: np.ndarray, answers: np.ndarray, *, per_patient: int = 1) -> PlainEvaluation:
    rows = len(labels)
    return evaluate_plain(
        outputs(kind),
        labels,
        answers,
        np.arange(rows) // per_patient,
        rng=np.random.default_rng(0),
        subgroups={"sex": np.where(np.arange(rows) < rows - 5, "female", "")},
        available_features=np.arange(rows),
        resamples=50,
    )


def rows_of(kind: str) -> PlainEvaluation:
    """Evaluate 60 rows, whose answers are right on the whole."""
    rng = np.random.default_rng(1)
    if kind == "numbers":
        numbers = np.linspace(6.0, 16.0, 60)
        return evaluated(kind, numbers, (numbers + rng.normal(size=60)).reshape(-1, 1))
    if kind == "labels":
        labels = rng.integers(0, 2, (60, 2)).astype(np.float64)
        return evaluated(kind, labels, np.clip(labels * 0.5 + rng.random((60, 2)) * 0.5, 0.0, 1.0))
    classes = np.arange(60) % 3
    shares = rng.random((60, 3)) + 2.0 * np.eye(3)[classes]
    return evaluated(kind, classes.astype(np.float64), shares / shares.sum(axis=1, keepdims=True))


def test_the_confusion_matrix_counts_rows_by_what_happened_and_by_the_likeliest_class():
    labels = np.array([0.0, 0.0, 1.0, 2.0, 2.0, 2.0])
    likeliest = [0, 1, 1, 2, 2, 0]
    answers = np.full((6, 3), 0.25)
    answers[np.arange(6), likeliest] = 0.5

    found = evaluated("classes", labels, answers)

    assert isinstance(found.detail, ClassDetail)
    assert found.detail.confusion == ((1, 1, 0), (0, 1, 0), (1, 0, 2))
    accuracy = found.figures["accuracy"]
    assert isinstance(accuracy, Measured)
    assert accuracy.value == 4 / 6
    assert found.label_means == {"low": 2 / 6, "normal": 1 / 6, "high": 3 / 6}


def test_the_log_loss_of_a_class_that_was_called_impossible_is_not_given():
    found = evaluated("classes", np.array([0.0, 1.0, 2.0, 0.0]), np.array([[0.0, 0.5, 0.5]] * 4))

    loss = found.figures["log_loss"]
    assert isinstance(loss, NotMeasured)
    assert "impossible" in loss.why


def test_a_class_that_never_happened_leaves_its_curve_out_and_says_why():
    found = evaluated("classes", np.array([0.0, 1.0, 0.0, 1.0]), np.full((4, 3), 1 / 3))

    assert isinstance(found.detail, ClassDetail)
    assert isinstance(found.detail.roc["high"], NotMeasured)
    assert isinstance(found.detail.roc["low"], RocPoints)
    assert isinstance(found.figures["auroc"], NotMeasured)


def test_each_label_is_measured_as_a_binary_one():
    labels = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    found = evaluated("labels", labels, np.array([[0.1, 0.9], [0.9, 0.8], [0.2, 0.85], [0.8, 0.1]]))

    assert isinstance(found.detail, LabelDetail)
    assert list(found.detail.by_label) == ["hematocrit", "hemoglobin"]
    hemoglobin = found.detail.by_label["hemoglobin"]
    assert hemoglobin.positives == 2
    # Of 4 pairs, 0.8 does not outscore 0.85.
    assert isinstance(hemoglobin.auroc, Measured)
    assert hemoglobin.auroc.value == 3 / 4
    mean = found.figures["auroc"]
    assert isinstance(mean, Measured)
    assert mean.value == (1.0 + 3 / 4) / 2


def test_errors_are_given_by_magnitude_and_no_bin_is_of_fewer_than_20_rows():
    observed = np.repeat([5.0, 10.0, 20.0], 20)
    predicted = np.repeat([6.0, 10.0, 16.0], 20)
    found = evaluated("numbers", observed, predicted.reshape(-1, 1))

    assert isinstance(found.detail, NumberDetail)
    bins = found.detail.by_observed
    assert [(each.lowest, each.highest, each.rows) for each in bins] == [(5, 5, 20), (10, 10, 20), (20, 20, 20)]
    errors = [each.error.value for each in bins if isinstance(each.error, Measured)]
    assert errors == [1.0, 0.0, 4.0]
    figures = {name: each.value for name, each in found.figures.items() if isinstance(each, Measured)}
    assert figures["mae"] == pytest.approx(5 / 3)
    assert figures["bias"] == pytest.approx((1 - 4) / 3)


def test_the_intervals_resample_patients_not_rows():
    rng = np.random.default_rng(5)
    numbers = rng.normal(10.0, 2.0, 40)
    answers = (np.repeat(numbers, 10) + np.repeat(rng.normal(size=40), 10)).reshape(-1, 1)

    def width(per_patient: int) -> float:
        mae = evaluated("numbers", np.repeat(numbers, 10), answers, per_patient=per_patient).figures["mae"]
        assert isinstance(mae, Measured)
        return mae.high - mae.low

    assert width(10) > 2 * width(1)


def test_a_group_of_few_rows_gets_no_figure():
    groups = {group.name: group for group in rows_of("numbers").groupings[0].groups}

    assert isinstance(groups["female"].figure, Measured)
    assert groups["not recorded"].rows == 5
    assert groups["not recorded"].figure == TooSmall(why="under 20 rows")


def test_what_is_binary_or_has_no_rows_is_not_measured_here():
    with pytest.raises(ValueError, match="at least one row"):
        evaluated("numbers", np.zeros(0), np.zeros((0, 1)))


# -- the page


def manifest_of(kind: str) -> Manifest:
    rule, _ = RULES[kind]
    means = dict.fromkeys(outputs(kind).names, 0.25)
    return Manifest(
        schema_version=3,
        model_id=f"model-{kind}",
        version="1",
        task=Task(
            name=kind,
            unit="one order",
            index_time="when the order was signed",
            label="what comes back",
            rule=rule,
            panels=("58410-2",),
            outputs=outputs(kind),
        ),
        score_name="SCORE",
        n_features=3,
        spec_sha256="0" * 64,
        parts={name: Part(sha256="a" * 64, size=1) for name in ("features.json", "model.treelite", "golden.json")},
        training=Training(
            estimator="RandomForestClassifier",
            parameters={},
            rows=100,
            patients=50,
            label_means=means,
            snapshot_sha256="0" * 64,
            library_versions={},
        ),
        evaluation=Stated(
            rows=60, patients=60, label_means=means, figures={"auroc": Estimate(value=0.8, low=0.7, high=0.9)}
        ),
    )


class Words(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize(
    ("kind", "pictures", "said"),
    [
        (
            "classes",
            3,
            ["low, normal, high; the score is that of low", "Confusion matrix", "AUROC of high", "accuracy"],
        ),
        ("labels", 4, ["Each label as a binary one", "AUROC of hematocrit", "Calibration curve of hemoglobin"]),
        ("numbers", 2, ["a number in g/dL", "mean absolute error", "R²", "Error by magnitude"]),
    ],
)
def test_the_page_says_what_was_measured(tmp_path: Path, kind: str, pictures: int, said: list[str]):
    evaluation = rows_of(kind)

    page = write_report(tmp_path, manifest=manifest_of(kind), evaluation=evaluation)

    found = Words(page.read_text("utf-8"))
    assert [words for words in said if words not in found.text] == []
    assert found.tags.count("svg") == pictures
    assert len(set(found.ids)) == len(found.ids)
    stored = msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=PlainReport)
    assert stored.evaluation == evaluation


def test_the_table_of_tasks_shows_both_kinds(tmp_path: Path):
    manifest = manifest_of("numbers")
    entry = IndexEntry(manifest=manifest, evaluation=rows_of("numbers"), link="numbers/report.html")

    found = Words(write_index(tmp_path, [entry]).read_text("utf-8"))

    assert "None of this kind." in found.text
    assert "regression, in g/dL" in found.text
    assert "mean absolute error" in found.text


def test_a_manifest_whose_outputs_are_not_those_of_its_rule_is_refused():
    task = manifest_of("numbers").task
    with pytest.raises(ValueError, match="outputs that the label's rule has"):
        msgspec.structs.replace(task, outputs=BINARY)
