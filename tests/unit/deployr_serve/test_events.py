"""An advisory that the answer itself shows is noted in the packet's own write."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployr_core.packet import EventKind, Mode
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Advisory, Policy

WORDS = Advisory(headline="Likely normal: {score_percent}", detail="Score {score}", source_label="Laboratory")


def policy_of(**changes):
    fields = {"mode": Mode.LIVE, "threshold": 0.5, "advisory": WORDS, **changes}
    return Policy(schema_version=1, model="hematocrit", **fields)


@pytest.fixture
def noted(services_of, request_of):
    """Give a function that asks once, and gives the kinds of the events that were stored without being appended."""

    async def ask(policy, *, answer_shows=True):
        services = services_of(policies=(policy,))

        async def append_event(_):
            raise AssertionError("expected no write beside the packet's")

        services.store.append_event = append_event
        answer = await infer(replace(request_of(), answer_shows=answer_shows), services)
        stored = await services.store.events(answer.packet.packet_id)
        assert all(event.at == answer.packet.updated_at for event in stored)
        return [event.kind for event in stored]

    return ask


async def test_an_advisory_that_the_answer_shows_is_noted_with_its_packet(noted):
    assert await noted(policy_of()) == [EventKind.SHOWN]


async def test_where_something_else_shows_it_nothing_is_noted_with_the_packet(noted):
    assert await noted(policy_of(), answer_shows=False) == []


@pytest.mark.parametrize(
    "changes",
    [{"mode": Mode.SILENT}, {"threshold": 0.9}, {"advisory": None}],
    ids=["silent", "under-the-threshold", "without-words"],
)
async def test_what_is_not_advised_is_not_noted_as_shown(noted, changes):
    assert await noted(policy_of(**changes)) == []
