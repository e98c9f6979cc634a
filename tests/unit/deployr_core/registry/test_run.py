"""A run's record: its id follows from what went in and came out, and from nothing else."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime

import msgspec
import pytest

from deployr_core.bundle import MODEL_ID, CodeVersion, Estimate
from deployr_core.registry.run import (
    DataSet,
    DeployType,
    Run,
    RunInvalid,
    Sets,
    derive_run_id,
    differences,
    digest_of_rows,
    parse_run,
)

TRAIN = DataSet(
    rows=40,
    patients=10,
    positives=8,
    rows_sha256="1" * 64,
    features_sha256="2" * 64,
    first=date(2031, 3, 5),
    last=date(2031, 6, 7),
)
TEST = msgspec.structs.replace(TRAIN, rows=12, patients=5, positives=4, rows_sha256="3" * 64)
WORK = {
    "config_sha256": "a" * 64,
    "sets": Sets(train=TRAIN, validation=None, test=TEST),
    "code_version": CodeVersion(package="1.0", sources_sha256="b" * 64),
    "bundle_sha256": "c" * 64,
}


def a_run(**changes):
    given = {
        "model_id": "hematocrit",
        "opened_at": datetime(2031, 7, 1, tzinfo=UTC),
        "trained_by": "ada",
        "source": "omop54:/data",
        "deploy_type": DeployType.CLOUD,
        "test": {"auroc": Estimate(value=0.8, low=0.7, high=0.9)},
        "has_snapshot": True,
        **WORK,
        **changes,
    }
    given.setdefault("run_id", derive_run_id(given["model_id"], **{name: given[name] for name in WORK}))
    return Run(**given)


def test_when_why_and_by_whom_it_was_opened_is_no_part_of_the_id():
    later = a_run(
        opened_at=datetime(2032, 1, 1, tzinfo=UTC), trained_by="grace", source="elsewhere", has_snapshot=False
    )

    assert later.run_id == a_run().run_id


@pytest.mark.parametrize(
    "changed",
    [
        {"config_sha256": "d" * 64},
        {"bundle_sha256": "d" * 64},
        {"code_version": CodeVersion(package="1.0", sources_sha256="d" * 64)},
        {"sets": Sets(train=TRAIN, validation=None, test=TRAIN)},
        {"sets": Sets(train=TRAIN, validation=TRAIN, test=TEST)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_went_in_or_came_out_changes_the_id(changed):
    assert a_run(**changed).run_id != a_run().run_id


def test_an_id_is_a_name_that_a_model_may_have_however_long_the_models_own_is():
    for model_id in ("hematocrit", "a" * 64):
        assert MODEL_ID.match(a_run(model_id=model_id).run_id)


def test_a_record_is_read_back_and_one_that_was_changed_is_refused():
    record = a_run().to_json()
    assert parse_run(record) == a_run()

    with pytest.raises(RunInvalid, match="expected the run_id that follows from the contents"):
        parse_run(record.replace(b'"rows": 40', b'"rows": 41'))
    with pytest.raises(RunInvalid, match=r"run\.json"):
        parse_run(b"{}")


def test_the_digest_of_rows_knows_no_order_but_every_row_and_how_often_it_is_there():
    rows = [b"a", b"b", b"c"]

    assert {digest_of_rows(each) for each in itertools.permutations(rows)} == {digest_of_rows(rows)}
    assert digest_of_rows([b"a", b"b"]) != digest_of_rows(rows)
    assert digest_of_rows([b"a", b"a"]) != digest_of_rows([b"a"])
    # Where one row ends and the next begins is a part of it.
    assert digest_of_rows([b"ab", b"c"]) != digest_of_rows([b"a", b"bc"])


def test_what_differs_is_said_in_words():
    sets = WORK["sets"]
    fewer = msgspec.structs.replace(TRAIN, rows=39, rows_sha256="9" * 64)
    recomputed = msgspec.structs.replace(TEST, features_sha256="9" * 64)

    assert differences(sets, sets) == ()
    assert differences(sets, Sets(train=fewer, validation=TRAIN, test=recomputed)) == (
        "train set: 40 rows before, 39 now; other rows or labels",
        "validation set: none before, one now",
        "test set: the same rows and labels with other features",
    )
