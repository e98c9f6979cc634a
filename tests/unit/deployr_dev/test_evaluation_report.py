"""The report as text: what a reader finds, what is said where nothing is known, and how the files come to be."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from deployr_core.bundle import FEATURES_FILE, GOLDEN_FILE, SCHEMA_VERSION, Estimate, Manifest, Part
from deployr_core.bundle import Evaluation as Stated
from deployr_core.bundle import Task as BundleTask
from deployr_core.bundle import Training as BundleTraining
from deployr_core.features import FeatureSpec, SexGroup
from deployr_core.label_rules import LabComponent
from deployr_core.model_format import MODEL_FILE
from deployr_core.outputs import BINARY
from deployr_dev.evaluation import findings, words
from deployr_dev.evaluation.measuring import evaluate
from deployr_dev.evaluation.records import Evaluation, Measured, NotMeasured, TooSmall
from deployr_dev.evaluation.report import IndexEntry, Report, report_html, write_index, write_report

SPEC = FeatureSpec(schema_version=1, groups=(SexGroup(),))


def a_manifest(**changes: Any) -> Manifest:
    return Manifest(
        **{
            "schema_version": SCHEMA_VERSION,
            "model_id": "hematocrit",
            "version": "0123456789ab",
            "task": BundleTask(
                name="hematocrit",
                unit="an order",
                index_time="when it is signed",
                label="<script>alert(1)</script> is outside its range",
                rule=LabComponent(components=("4544-3",), window_hours=72),
                panels=("57021-8",),
                outputs=BINARY,
            ),
            "score_name": "HEMATOCRIT_ABNORMAL",
            "n_features": 2,
            "spec_sha256": SPEC.digest(),
            "parts": {name: Part(sha256="a" * 64, size=1) for name in (FEATURES_FILE, MODEL_FILE, GOLDEN_FILE)},
            "training": BundleTraining(
                estimator="RandomForestClassifier",
                parameters={"max_depth": None, "n_estimators": 100},
                rows=1234,
                patients=567,
                label_means={"positive": 0.25},
                snapshot_sha256="b" * 64,
                library_versions={"numpy": "2.3.4"},
            ),
            "evaluation": Stated(
                rows=400,
                patients=200,
                label_means={"positive": 0.5},
                figures={"auroc": Estimate(value=0.8, low=0.7, high=0.9)},
            ),
            **changes,
        }
    )


def evaluated(*, n: int = 400, labels: Any = None, **changes: Any) -> Evaluation:
    rng = np.random.default_rng(5)
    scores = rng.random(n)
    drawn = (rng.random(n) < scores).astype(np.float64)
    arguments: dict[str, Any] = {
        "rng": rng,
        "subgroups": {
            "sex": np.array(["female", "male", "<b>other</b>"])[np.where(np.arange(n) < 9, 2, np.arange(n) % 2)]
        },
        "available_features": np.arange(n),
        "resamples": 50,
        **changes,
    }
    return evaluate(drawn if labels is None else labels, scores, np.arange(n) // 2, **arguments)


class Page(HTMLParser):
    """What a test asks of a page: its text, its elements with their attributes, and what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        self.text = re.sub(r"[ \n]+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(evaluation: Evaluation | None = None, **more: Any) -> Page:
    return Page(report_html(a_manifest(), evaluation or evaluated(), **more))


def test_the_page_is_well_formed_and_every_id_is_there_once() -> None:
    found = page()
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert found.open == []
    assert len(ids) == len(set(ids))
    for _, attributes in found.elements:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids


def test_headings_step_down_one_at_a_time() -> None:
    levels = [int(name[1]) for name, _ in page().elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))


def test_every_picture_has_a_title_and_a_description_and_every_table_a_caption_and_scopes() -> None:
    found = page()
    assert len(found.all("svg")) == len(found.all("title")) - 1 == len(found.all("desc")) == 6
    assert len(found.all("table")) == len(found.all("caption")) == 4
    assert all(attributes.get("scope") in {"row", "col"} for attributes in found.all("th"))


def test_words_from_outside_cannot_become_markup() -> None:
    html = report_html(a_manifest(), evaluated())
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>" not in html
    assert html.count("&lt;b&gt;other&lt;/b&gt;") >= 3


def test_nothing_is_fetched_and_nothing_is_run() -> None:
    html = report_html(a_manifest(), evaluated()).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?://|//[a-z]|@import|url\(|<script|javascript:|\son[a-z]+=", html)


def test_the_same_evaluation_gives_the_same_page() -> None:
    assert report_html(a_manifest(), evaluated()) == report_html(a_manifest(), evaluated())


def test_what_the_manifest_does_not_know_is_marked_as_not_given() -> None:
    # The training code.
    assert page().text.count("Not given") == 1


def test_what_only_people_know_is_left_to_the_papers() -> None:
    assert "deployr papers write" in page().text


def test_the_card_counts_features_by_group_where_the_declaration_is_given() -> None:
    assert "2; by group: not given" in page().text
    assert "2 in all sex: 2" in page(spec=SPEC).text


def test_another_declaration_than_the_bundles_is_refused() -> None:
    other = FeatureSpec(schema_version=1, groups=(SexGroup(name="gender"),))
    with pytest.raises(ValueError, match="the declaration that the manifest names"):
        page(spec=other)


def test_the_card_says_what_the_manifest_says() -> None:
    text = page().text
    for known in ("1,234 rows of 567 patients, 25.0\u00a0% with the outcome", "n_estimators 100", "numpy 2.3.4"):
        assert known in text
    for digest in ("a" * 64, "b" * 64, SPEC.digest()):
        assert digest in text


def test_other_rows_than_the_bundles_own_are_said_to_be_others() -> None:
    assert "held out from training" in page().text
    assert "other rows than those" in page(evaluated(n=300)).text


def test_what_cannot_be_measured_says_why_and_has_no_picture() -> None:
    found = page(evaluated(labels=np.zeros(400)))
    assert "not measurable: expected rows of both classes" in found.text
    assert "no such threshold: expected a row with the outcome" in found.text
    assert len(found.all("svg")) == 4
    assert "nan" not in found.text.lower()


def test_few_patients_are_warned_of() -> None:
    assert "Only 29 patients. Intervals from resampling fewer" in page(evaluated(n=58)).text
    assert "Intervals from resampling fewer" not in page(evaluated(n=60)).text


def test_a_threshold_that_nobody_chose_is_said_to_stand_in() -> None:
    assert "this one stands in" in page().text
    assert "this one stands in" not in page(evaluated(threshold=0.4)).text


def test_no_groups_are_not_known_rather_than_fine() -> None:
    assert "Not known: no groups were given" in page(evaluated(subgroups={})).text


def test_groups_that_are_told_apart_worse_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 2000).astype(float)
    bad = np.arange(2000) < 600
    scores = np.where(bad, rng.random(2000), np.clip(0.5 * labels + 0.5 * rng.random(2000), 0, 1))
    names = np.where(bad, "bad", "good")
    evaluation = evaluate(
        labels,
        scores,
        np.arange(2000),
        rng=rng,
        subgroups={"kind": names},
        available_features=np.zeros(2000, dtype=np.int64),
        resamples=100,
    )
    assert [found.group for found in findings.ranked_worse(evaluation)] == ["kind: bad"]


def test_groups_whose_scores_are_too_high_or_too_low_are_found_with_by_how_much() -> None:
    gap = Measured(value=-0.036, low=-0.052, high=-0.019, resamples=1000)
    assert words.misjudgement(gap) == "too high by 3.6 (1.9 to 5.2) percentage points"
    gap = Measured(value=0.036, low=0.019, high=0.052, resamples=1000)
    assert words.misjudgement(gap) == "too low by 3.6 (1.9 to 5.2) percentage points"
    assert words.misjudgement(Measured(value=0.1, low=-0.1, high=0.3, resamples=1000)) is None
    assert words.misjudgement(NotMeasured(why="x")) is None


def test_groups_that_are_too_small_do_not_count_as_served_well() -> None:
    assert "0 of 2 groups told apart worse than everybody" in page().text
    assert "1 more is too small to tell" in page().text


def test_small_groups_are_listed() -> None:
    (found,) = findings.too_small(evaluated())
    assert (found.group, found.what) == ("sex: <b>other</b>", "under 20 rows")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.number(-0.0004), "0.000"),
        (words.number(-0.0006), "\u22120.001"),
        (words.percent(0.1234), "12.3\u00a0%"),
        (words.count(14000), "14,000"),
        (words.of(1, "patient"), "1 patient"),
        (words.of(2, "score is", "scores are"), "2 scores are"),
        (words.figure(Measured(value=0.5, low=0.25, high=1, resamples=9)), "0.500 (0.250 to 1.000)"),
        (
            words.figure(Measured(value=0.5, low=0, high=1, resamples=9), as_percent=True),
            "50.0\u00a0% (0.0 to 100.0\u00a0%)",
        ),
        (words.figure(NotMeasured(why="expected x")), "not measurable: expected x"),
        (words.figure(TooSmall(why="under 20 rows")), "too small: under 20 rows"),
    ],
)
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected


def test_both_files_are_written_and_the_json_holds_all_that_the_page_was_made_from(tmp_path: Path) -> None:
    evaluation = evaluated()
    path = write_report(tmp_path / "new" / "folder", manifest=a_manifest(), evaluation=evaluation)
    assert path.name == "report.html"
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json"]
    assert path.read_text(encoding="utf-8") == report_html(a_manifest(), evaluation)
    held = msgspec.json.decode((path.parent / "report.json").read_bytes(), type=Report)
    assert held == Report(manifest=a_manifest(), evaluation=evaluation)


def test_a_page_that_cannot_be_made_leaves_the_old_report_alone(tmp_path: Path) -> None:
    write_report(tmp_path, manifest=a_manifest(), evaluation=evaluated())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other = FeatureSpec(schema_version=1, groups=(SexGroup(name="gender"),))
    with pytest.raises(ValueError, match="declaration"):
        write_report(tmp_path, manifest=a_manifest(), evaluation=evaluated(n=300), spec=other)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_write_that_breaks_off_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(tmp_path, manifest=a_manifest(), evaluation=evaluated())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, manifest=a_manifest(), evaluation=evaluated(n=300))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_table_of_tasks_has_a_line_for_each_with_prevalence_and_auroc(tmp_path: Path) -> None:
    evaluation = evaluated()
    unmeasurable = evaluated(labels=np.zeros(400))
    path = write_index(
        tmp_path,
        [
            IndexEntry(manifest=a_manifest(), evaluation=evaluation, link="hematocrit/report.html"),
            IndexEntry(manifest=a_manifest(), evaluation=unmeasurable, link="other/report.html"),
        ],
    )
    found = Page(path.read_text(encoding="utf-8"))
    assert [each["href"] for each in found.all("a")] == ["hematocrit/report.html", "other/report.html"]
    assert words.figure(evaluation.auroc) in found.text
    assert words.figure(evaluation.prevalence, as_percent=True) in found.text
    assert "not measurable: expected rows of both classes" in found.text
    assert "No task was evaluated" in Page(write_index(tmp_path, []).read_text(encoding="utf-8")).text
