"""Labels are attached to what a champion answered and to what its shadow scored beside it, from one reading."""

from __future__ import annotations

import dataclasses

import msgspec

from deployr_core.packet import Mode
from deployr_serve.core.infer import infer
from deployr_serve.core.outcome_source import OutcomeFacts
from deployr_serve.core.policy import Policy
from deployr_serve.core.shadow import Shadows
from label_extractors.collect import collect_labels

SHADOW = "hematocrit-3f2a91c04b7e"


async def test_one_reading_of_the_emr_labels_champion_and_shadow_alike(
    services_of, request_of, bundle, models_of, outcomes_of, abnormal, clock
):
    live = Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, shadows=(SHADOW,))
    services = services_of(policies=(live,))
    models = models_of(**{SHADOW: msgspec.structs.replace(bundle, digest="c" * 64)})
    services = dataclasses.replace(services, shadows=Shadows(services, models=models, needs=lambda _: ("labs",)))
    answer = await infer(request_of(), services)
    await services.shadows.settled()
    clock.pass_time(3 * 3600)
    outcomes = outcomes_of(p1=OutcomeFacts(labs=(abnormal("o1"),), orders={}))

    assert await collect_labels(services, outcomes) == {"observed": 2}

    assert len(outcomes.asked) == 1
    labels = {}
    for model in ("hematocrit", SHADOW):
        [packet] = await services.store.packets(model_id=model, after=None, limit=10)
        [label] = await services.store.labels(model_id=model, rule="lab-component", after=None, limit=10)
        assert label.packet_id == packet.packet_id
        labels[packet.packet_id] = label.outcome
    assert answer.packet.packet_id in labels
    assert len(set(labels.values())) == 1
