"""Deployment files: what they may say, and that whatever else they say is refused by file and key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from deployr_core.packet import Mode
from deployr_core.strict_yaml import YamlInvalid, parse_yaml
from deployr_core.trial import Arm, PermutedBlocks, RandomizationUnit, Trial
from deployr_core.wedge import SteppedWedge
from deployr_serve.adapters.policies import read_policies
from deployr_serve.core.errors import ModelUnavailable, SettingsInvalid
from deployr_serve.core.policy import (
    LONGEST_HEADLINE,
    Action,
    ActionKind,
    Advisory,
    Band,
    CodedReason,
    Link,
    Policies,
    Policy,
    Suppression,
    TimeBlock,
)

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "hematocrit.yaml"
LEAST = "schema_version: 1\nmodel: hematocrit\nmode: live\n"
ARMS = (Arm(name="control", shows=False), Arm(name="advisory", shows=True))


def policy_of(**changes):
    return Policy(**{"schema_version": 1, "model": "hematocrit", "mode": Mode.LIVE, **changes})


def trial_of(**changes):
    settings = {"trial_id": "t", "version": 1, "unit": RandomizationUnit.PATIENT, "arms": ARMS}
    return Trial(**{**settings, **changes})


@pytest.fixture
def read(tmp_path, models_of, bundle):
    """Give a function that reads deployment files by name, with the hematocrit model and the score column there."""

    def run(*, all_declared=False, models=None, outputs=("score-column",), **files):
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        models = models or models_of(hematocrit=bundle)
        return read_policies(tmp_path, models=models, outputs=outputs, all_declared=all_declared)

    return run


# -- what a file says


def test_the_example_is_read_as_it_says(models_of, bundle):
    policy = read_policies(
        EXAMPLE.parent, models=models_of(hematocrit=bundle), outputs=("score-column",), all_declared=True
    ).of("hematocrit")
    assert (policy.mode, policy.threshold, policy.groups) == (Mode.TRIAL, 0.6, ("cbc",))
    assert policy.trial is not None
    assert policy.trial.method == PermutedBlocks(sizes=(4, 6, 8))
    assert policy.suppression == Suppression(hours=24, hours_after_response=72)
    assert [policy.band(score) for score in (0.0, 0.59, 0.6, 1.0)] == ["low", "low", "high", "high"]


def test_off_is_a_mode_and_not_the_boolean_that_yaml_takes_it_for(read):
    assert read(one=LEAST.replace("live", "off")).of("hematocrit").mode is Mode.OFF


WEDGE = """schema_version: 1
model: hematocrit
mode: trial
threshold: 0.5
trial:
  trial_id: stewardship
  version: 1
  unit: department
  arms: [{name: control, shows: false}, {name: advisory, shows: true}]
  method:
    kind: stepped-wedge
    clusters: [7A, 7B, 8A]
    steps: ["2026-01-05T07:00:00-05:00", 2026-03-02T07:00:00-05:00]
"""


def test_a_stepped_wedge_is_declared_as_a_method(read):
    method = read(one=WEDGE).of("hematocrit").trial.method
    assert isinstance(method, SteppedWedge)
    assert (method.clusters, method.sequence) == (("7A", "7B", "8A"), None)
    assert method.steps[1] == datetime(2026, 3, 2, 12, tzinfo=UTC)
    listed = WEDGE + "    sequence: [[7B, 8A], [7A]]\n    drawn_by_chance: true\n"
    assert read(one=listed).of("hematocrit").trial.method.drawn_by_chance is True


def test_the_stepped_wedge_in_the_docs_can_be_read(read):
    blocks = (EXAMPLE.parents[1] / "trials.md").read_text(encoding="utf-8").split("```yaml\n")[1:]
    [text] = [each.split("```")[0] for each in blocks if "stepped-wedge" in each.split("```")[0]]
    drawn = read(one="schema_version: 1\nmodel: hematocrit\n" + text).of("hematocrit").trial.method
    assert (len(drawn.clusters), len(drawn.steps), drawn.sequence) == (6, 3, None)
    listed = text.replace("# sequence", "sequence").replace("# drawn_by_chance", "drawn_by_chance")
    listed = read(one="schema_version: 1\nmodel: hematocrit\n" + listed).of("hematocrit").trial.method
    assert (listed.sequence[0], listed.drawn_by_chance) == (("7A", "9B"), True)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (WEDGE.replace("unit: department", "unit: patient"), "provider or department as its unit"),
        (WEDGE.replace('-05:00"', '"').replace("00-05:00]", "00]"), "steps with their offset"),
        (WEDGE.replace("[7A, 7B, 8A]", "[7A, 7A]"), "each of clusters once"),
        (WEDGE + "    order: random\n", "unknown key 'order'"),
        (WEDGE + "    sequence: [[7A], [7B]]\n", "names each of clusters once"),
    ],
)
def test_a_stepped_wedge_that_cannot_be_is_refused_with_what_was_expected(read, wrong, expected):
    with pytest.raises(SettingsInvalid, match=expected):
        read(one=wrong)


def test_an_instant_is_read_with_its_offset_whether_quoted_or_not(read):
    for quote in ("", '"'):
        text = LEAST.replace("live", "silent") + (
            f"time_block: {{hours: 12, starts: {quote}2026-01-05T07:00:00-05:00{quote}}}\n"
            "trial: {trial_id: t, version: 1, unit: time-block,"
            " arms: [{name: a, shows: true}, {name: b, shows: false}]}\n"
        )
        starts = read(one=text).of("hematocrit").time_block.starts
        assert starts.isoformat() == "2026-01-05T07:00:00-05:00"


def test_a_model_without_a_file_is_live_never_advises_and_goes_everywhere(read):
    policy = read().of("hematocrit")
    assert (policy.mode, policy.threshold, policy.outputs, policy.advisory) == (Mode.LIVE, None, None, None)


def test_the_digest_is_of_what_is_said_and_not_of_how_the_file_is_laid_out(read):
    first = read(one=LEAST + "threshold: 0.5\n").of("hematocrit")
    again = read(one="# a note\nthreshold: 0.50\nmode: live\nmodel: hematocrit\nschema_version: 1\n").of("hematocrit")
    other = read(one=LEAST + "threshold: 0.6\n").of("hematocrit")
    assert first.sha256 == again.sha256 != other.sha256


def test_the_models_of_a_group_come_in_order_of_id():
    policies = Policies(
        declared={
            model: policy_of(model=model, groups=groups)
            for model, groups in (("wbc", ("cbc",)), ("hgb", ("cbc", "xx")))
        }
    )
    assert (policies.in_group("cbc"), policies.in_group("xx"), policies.in_group("yy")) == (
        ("hgb", "wbc"),
        ("hgb",),
        (),
    )


# -- what is refused, all of it at once, by file and key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LEAST + "treshold: 0.5\n", "unknown key 'treshold'; did you mean 'threshold'?"),
        (LEAST + "suppression: {hour: 3}\n", "unknown key 'hour' in suppression; did you mean 'hours'?"),
        (LEAST + "threshold: '0.5'\n", "$.threshold"),
        (LEAST + "threshold: 0.5\nthreshold: 0.6\n", "expected the key 'threshold' once, got it twice"),
        (LEAST + "threshold: 5\n", "threshold: expected a probability from 0 to 1"),
        (LEAST + "bands: [{name: high, at_least: 60}]\n", "bands: expected at_least to be a probability"),
        (LEAST + "outputs: [flowsheet]\n", "outputs: expected some of score-column, got flowsheet"),
        (LEAST + "groups: [hematocrit]\n", "groups: expected a name that is no model's, got hematocrit"),
        (LEAST.replace("hematocrit", "hemoglobin"), "model: expected one that is deployed here, got hemoglobin"),
        ("schema_version: 1\nmodel: hematocrit\n", "expected the key 'mode', but it is missing"),
        (LEAST.replace("live", "on"), "Invalid enum value 'on'"),
        (LEAST.replace("live", "trial"), "expected a trial and a threshold in mode trial"),
        (LEAST.replace("1", "2"), "expected schema_version 1"),
        ("- a list\n", "expected YAML keys such as schema_version"),
        ("mode: [", "line 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_the_file_and_what_was_expected(read, text, said):
    with pytest.raises(SettingsInvalid) as caught:
        read(first=text)
    assert str(caught.value).startswith("deployments: first.yaml: ") or "groups" in said
    assert said in str(caught.value)


def test_every_file_that_is_wrong_is_named_at_once(read):
    with pytest.raises(SettingsInvalid) as caught:
        read(first=LEAST + "threshold: 5\n", second=LEAST)
    assert "first.yaml: threshold" in str(caught.value)
    assert "second.yaml: model: expected one file for hematocrit, got two" in str(caught.value)


def test_in_production_every_deployed_model_has_its_file(read):
    with pytest.raises(SettingsInvalid, match="hematocrit: expected a deployment file in DEPLOYR_DEPLOYMENTS"):
        read(all_declared=True)
    assert read(all_declared=True, one=LEAST).of("hematocrit").mode is Mode.LIVE


def test_a_folder_that_is_not_there_is_refused(tmp_path, models_of):
    with pytest.raises(SettingsInvalid, match="DEPLOYR_DEPLOYMENTS: expected a folder"):
        read_policies(tmp_path / "none", models=models_of(), outputs=(), all_declared=False)


def test_a_model_that_is_not_available_keeps_its_deployment(read, models_of):
    models = models_of(hematocrit=ModelUnavailable("expected a bundle"))
    assert read(models=models, one=LEAST + "threshold: 0.5\n").of("hematocrit").threshold == 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: policy_of(bands=(Band(name="a", at_least=0.5), Band(name="b", at_least=0.5))),
        lambda: policy_of(threshold=float("nan")),
        lambda: policy_of(model="Hematocrit"),
        lambda: policy_of(groups=("../x",)),
        lambda: policy_of(decimals=16),
        lambda: policy_of(packed_in=("webhook",)),
        lambda: policy_of(message=()),
        lambda: policy_of(message=("{patient}",)),
        lambda: policy_of(message=("{score.real}",)),
        lambda: policy_of(
            mode=Mode.TRIAL, trial=trial_of(), threshold=0.5, scores_in_every_arm=True, packed_in=("flowsheet",)
        ),
        lambda: policy_of(outputs=("a-b",), when_advised=("c-d",)),
        lambda: policy_of(trial=trial_of(unit=RandomizationUnit.TIME_BLOCK)),
        lambda: policy_of(trial=trial_of(), time_block=TimeBlock(hours=1, starts=datetime(2026, 1, 5, tzinfo=UTC))),
        lambda: Band(name="", at_least=0.0),
        lambda: Band(name="a", at_least=float("inf")),
        lambda: Suppression(hours=-1),
        lambda: TimeBlock(hours=0, starts=datetime(2026, 1, 5, tzinfo=UTC)),
        lambda: TimeBlock(hours=1, starts=datetime(2026, 1, 5)),  # noqa: DTZ001 a start without its offset
        lambda: Suppression(hours=1, hours_after_response=1e9),
        lambda: Link(label="x", url="http://example.org"),
        lambda: Action(kind=ActionKind.CREATE, description="x"),
        lambda: Action(kind=ActionKind.DELETE, description="x", resource={}),
        lambda: Advisory(headline=" "),
        lambda: Advisory(headline="two\nlines"),
        lambda: Advisory(headline="{patient}"),
        lambda: Advisory(headline="{score.real}"),
        lambda: Advisory(headline="{score:>999}"),
        lambda: Advisory(headline="{score"),
        lambda: Advisory(headline="x", detail="x" * 4001),
        lambda: Advisory(headline="x", source_label=""),
        lambda: Advisory(headline="x", acknowledge_reasons=(CodedReason(code="a", display="x"),) * 2),
        lambda: policy_of(advisory=Advisory(headline="x" * (LONGEST_HEADLINE + 1))),
        lambda: policy_of(bands=(Band(name="b" * 40, at_least=0.0),), advisory=Advisory(headline="{band}" + "x" * 100)),
    ],
)
def test_what_makes_no_sense_cannot_be_made(make):
    with pytest.raises(ValueError):
        make()


# -- words


def test_the_words_are_filled_in_as_people_read_them():
    policy = policy_of(bands=(Band(name="high", at_least=0.5),), decimals=3)
    assert policy.in_words("{score} {score_percent} {band}", 0.75) == "0.750 75 % high"
    assert policy.in_words("{score} [{band}]", 0.25) == "0.250 []"
    assert policy_of().in_words("{score}", 0.125) == "0.12"


@pytest.mark.parametrize(("score", "words"), [(-0.0, "0.00 0 %"), (-0.001, "0.00 0 %"), (-3.5, "-3.50 -350 %")])
def test_no_words_show_a_zero_with_a_sign(score, words):
    assert policy_of().in_words("{score} {score_percent}", score) == words
    assert policy_of(decimals=2).as_it_is(score) == str(score if score < -1 else 0)


def test_a_headline_stays_short_whatever_is_filled_in():
    headline = "{band}" + "x" * (LONGEST_HEADLINE - 40)
    policy = policy_of(bands=(Band(name="b" * 40, at_least=0.0),), advisory=Advisory(headline=headline))
    assert len(policy.in_words(headline, 0.5)) == LONGEST_HEADLINE


def test_a_policy_survives_json():
    policy = parse_yaml(EXAMPLE.read_bytes(), Policy)
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


def test_text_that_is_not_utf_8_is_refused():
    with pytest.raises(YamlInvalid, match="UTF-8"):
        parse_yaml(b"mode: \xff", Policy)
