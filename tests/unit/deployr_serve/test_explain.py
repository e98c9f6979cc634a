from __future__ import annotations

import math

import msgspec
import pytest

from deployr_core.bundle import open_bundle
from deployr_core.contributions import ExplanationInvalid
from deployr_core.packet import Contribution, Mode, Scored, StoredVector
from deployr_core.reasons import reasons
from deployr_serve.core.explain import FAILED, explained
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policy


@pytest.fixture
def scored(bundle):
    """Give the score of a woman with one hematocrit: 3 of 4 rows like hers are positive, of all 8 it is 4."""
    vector = StoredVector(spec_sha256=bundle.manifest.spec_sha256, size=6, indices=(0, 2, 3), values=(1.0, 1.0, 30.0))
    return Scored(score=3 / 4, vector=vector, coverage={"labs.results": 1}, entity_id=None)


class Unexplainable:
    """A model whose explanation fails or is none."""

    def __init__(self, answer):
        self._answer = answer

    def explain(self, vector):
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


def test_a_score_gets_its_contributions_and_what_they_add_up_to(bundle, scored):
    told = explained(scored, bundle)
    assert told.contributions == (Contribution(concept="hematocrit", value=3 / 4 - 4 / 8),)
    assert (told.base, told.explained) == (4 / 8, 3 / 4)
    assert told.coverage == scored.coverage
    (reason,) = reasons(told, bundle.spec)
    assert reason.text == "hematocrit 30 %, the only one in 30 days (raises)"


@pytest.mark.parametrize(
    "failure", [ExplanationInvalid("parts"), ValueError("width"), MemoryError(), RuntimeError("library")], ids=repr
)
def test_an_explanation_that_fails_never_loses_the_score(bundle, scored, failure):
    told = explained(scored, msgspec.structs.replace(bundle, model=Unexplainable(failure)))
    assert told == msgspec.structs.replace(scored, coverage={"labs.results": 1, FAILED: 1})


def test_a_model_that_cannot_be_taken_apart_is_no_failure(bundle, scored):
    assert explained(scored, msgspec.structs.replace(bundle, model=Unexplainable(None))) is scored


def test_the_stored_vector_is_explained_to_the_same_bits_again_and_elsewhere(bundle_files, bundle, scored):
    stored = msgspec.json.decode(msgspec.json.encode(explained(scored, bundle)), type=Scored)
    again = open_bundle(bundle_files["manifest.json"], bundle_files)
    bare = msgspec.structs.replace(stored, contributions=(), base=None, explained=None)
    assert explained(bare, again) == stored
    assert math.fsum([stored.base, *(each.value for each in stored.contributions)]) == stored.explained == stored.score


@pytest.mark.parametrize("explain", [True, False])
async def test_an_inference_is_explained_as_its_policy_says(
    services_of, source_of, fetched_of, lab_of, request_of, explain
):
    policy = Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, explain=explain)
    services = services_of(source=source_of(fetched_of(lab_of())), policies=(policy,))
    outcome = (await infer(request_of(), services)).packet.outcome
    assert bool(outcome.contributions) is explain
    assert (outcome.explained == outcome.score) is explain
