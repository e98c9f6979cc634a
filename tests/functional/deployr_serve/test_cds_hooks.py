"""CDS Hooks from the EMR's side, against the whole app and a mock EMR."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime

import pytest

from deployr_core.packet import EventKind
from deployr_serve.bootstrap import build
from deployr_serve.settings import read_settings
from deployr_serve.triggers.cds_cards import card_uuid
from mock_emr.cds_client import accepted, overridden
from tests.functional.deployr_serve.cds_parts import (
    advise,
    client_of,
    draft,
    let_in,
    order_sign,
    search_in,
    signer,
)


@pytest.fixture
async def site(app_of, emr_of, chart_of, tmp_path):
    """Give a function that starts an EMR and the app beside it, and gives the EMR's client of it."""
    emr = await emr_of(*chart_of("p1", "e1", "o1", "42", "lab", value=30.0, birth="1950-03-04"))

    def make(*, models=("hematocrit", "anemia"), mode="live", threshold=0.5, signed_by=None, **settings):
        app = app_of(
            emr.url, **{**let_in(tmp_path), **advise(tmp_path, *models, mode=mode, threshold=threshold), **settings}
        )
        base = app.application.cds.fhir_base
        return app, client_of(app, fhir_base=base, signed_by=signed_by or signer())

    make.emr = emr
    return make


async def listed(client, service_id="hematocrit-order-sign"):
    services = (await client.discover()).content["services"]
    return next(one for one in services if one["id"] == service_id)


async def test_discovery_lists_a_service_for_each_model_and_group_and_hook_of_its_unit(site):
    _, client = site()
    services = (await client.discover()).content["services"]
    assert [one["id"] for one in services] == [
        f"{name}-{hook}" for name in ("anemia", "hematocrit", "cbc") for hook in ("order-select", "order-sign")
    ]


async def test_prefetch_templates_ask_for_what_the_declaration_needs(site):
    _, client = site()
    prefetch = (await listed(client))["prefetch"]
    assert prefetch["patient"] == "Patient/{{context.patientId}}"
    assert prefetch["encounter"] == "Encounter/{{context.encounterId}}"
    assert prefetch["labs"].startswith("Observation?")
    assert "4544-3" in prefetch["labs"]


async def test_an_advising_model_gives_a_card_with_all_that_its_policy_declares(site):
    app, client = site()
    reply = await client.fire(await listed(client), order_sign(draft()))
    [card] = reply.content["cards"]
    # One result in the window: 3 of 4 training rows like it were positive.
    assert card["summary"] == "Repeat of hematocrit is likely normal: 75 %"
    assert card["detail"].startswith("Score **0.75** &lt;img")
    assert card["indicator"] == "warning"
    assert card["source"] == {"label": "Laboratory stewardship"}
    assert [reason["code"] for reason in card["overrideReasons"]] == ["changed"]
    assert card["links"][0]["type"] == "absolute"
    [suggestion] = card["suggestions"]
    assert suggestion["actions"][0]["resourceId"] == "ServiceRequest/d1"
    packet_id = reply.headers["x-packet-id"]
    stored = (await app.store.read(packet_id)).packet
    assert (stored.trigger.channel, stored.subject.order_id, stored.subject.encounter_id) == ("cds-hooks", None, "e1")
    assert [event.kind for event in await app.store.events(packet_id)] == [EventKind.SHOWN]


async def test_what_is_handed_over_is_not_asked_of_the_emr_again(site, chart_of):
    _, client = site()
    service = await listed(client)
    chart = chart_of("p1", "e1", "o1", "42", "lab", value=30.0, birth="1950-03-04")
    before = len(site.emr.addresses)
    reply = await client.fire(service, order_sign(draft()), search=search_in(*chart))
    assert len(reply.content["cards"]) == 1
    asked = [each for each in site.emr.addresses[before:] if "/FHIR/" in each]
    assert asked == []


async def test_silence_is_the_same_bytes_whatever_it_means(site, app_of):
    answers = []
    for mode, threshold, context in (
        ("silent", 0.5, order_sign(draft())),
        ("live", 0.9, order_sign(draft())),
        ("live", 0.5, order_sign(draft(code="2345-7"))),
    ):
        _, client = site(mode=mode, threshold=threshold)
        answers.append(await client.fire(await listed(client), context))
    assert {(reply.status, reply.body) for reply in answers} == {(200, b'{"cards":[]}')}


async def test_only_the_order_that_was_selected_fires_on_order_select(site):
    _, client = site()
    service = await listed(client, "hematocrit-order-select")
    context = order_sign(draft(), draft("d2", code="2345-7"))
    chosen = await client.fire(service, {**context, "selections": ["ServiceRequest/d1"]})
    other = await client.fire(service, {**context, "selections": ["ServiceRequest/d2"]})
    assert (len(chosen.content["cards"]), other.body) == (1, b'{"cards":[]}')


async def test_a_repeat_gets_the_same_card_and_no_second_packet_also_a_moment_later(site, now):
    app, client = site()
    service, instance = await listed(client), str(uuid.uuid4())
    first = await client.fire(service, order_sign(draft()), hook_instance=instance)
    app.set_clock(now.replace(minute=56))
    again = await client.fire(service, order_sign(draft()), hook_instance=instance.upper())
    assert again.body == first.body
    assert again.headers["x-bridge-replay"] == "1"
    assert len(await app.store.packets(model_id="hematocrit", after=None, limit=10)) == 1
    assert len(await app.store.events(first.headers["x-packet-id"])) == 1


async def test_an_instance_used_for_another_patient_is_a_conflict_for_every_service(site):
    _, client = site()
    instance = str(uuid.uuid4())
    await client.fire(await listed(client), order_sign(draft()), hook_instance=instance)
    other = order_sign(draft(patient_id="p2"), patient_id="p2", encounter_id="e2")
    for service_id in ("hematocrit-order-sign", "anemia-order-sign"):
        reply = await client.fire(await listed(client, service_id), other, hook_instance=instance)
        assert reply.status == 409


async def test_the_services_of_one_hook_share_one_fetch_and_keep_their_packets_apart(site):
    app, client = site()
    services = [await listed(client, f"{model}-order-sign") for model in ("hematocrit", "anemia")]
    instance = str(uuid.uuid4())
    before = len(site.emr.addresses)
    replies = await asyncio.gather(
        *(client.fire(service, order_sign(draft()), hook_instance=instance) for service in services)
    )
    observed = [each for each in site.emr.addresses[before:] if "Observation/_search" in each]
    assert len(observed) == 1
    assert [reply.content["cards"][0]["summary"].split()[2] for reply in replies] == ["hematocrit", "anemia"]
    packets = [(await app.store.read(reply.headers["x-packet-id"])).packet for reply in replies]
    assert len({packet.packet_id for packet in packets}) == 2
    assert len({packet.as_of for packet in packets}) == 1


async def test_a_group_gives_the_cards_of_all_its_models(site):
    _, client = site()
    reply = await client.fire(await listed(client, "cbc-order-sign"), order_sign(draft()))
    assert len(reply.content["cards"]) == 2
    assert len(reply.headers["x-packet-id"].split(", ")) == 2


async def test_feedback_is_kept_with_the_packet_once(site):
    app, client = site()
    reply = await client.fire(await listed(client), order_sign(draft()))
    [card] = reply.content["cards"]
    at = datetime(2015, 1, 6, 20, 57, tzinfo=UTC)
    told = [overridden(card, at=at, comment="bleeding"), accepted(card, at=at)]
    for _ in range(2):
        assert (await client.feed_back("hematocrit-order-sign", told)).status == 200
    _, *events = await app.store.events(reply.headers["x-packet-id"])
    assert {(event.kind, event.reason, event.comment) for event in events} == {
        (EventKind.OVERRIDDEN, "changed", "bleeding"),
        (EventKind.ACCEPTED, "suggestion-1", None),
    }
    assert len(events) == 2


async def test_feedback_about_another_services_card_or_none_is_not_found(site):
    app, client = site()
    reply = await client.fire(await listed(client), order_sign(draft()))
    [card] = reply.content["cards"]
    at = datetime(2015, 1, 6, 20, 57, tzinfo=UTC)
    unknown = {**overridden(card, at=at), "card": str(uuid.uuid4())}
    assert (await client.feed_back("anemia-order-sign", [overridden(card, at=at)])).status == 404
    assert (await client.feed_back("hematocrit-order-sign", [overridden(card, at=at), unknown])).status == 404
    assert len(await app.store.events(reply.headers["x-packet-id"])) == 1


async def test_feedback_about_what_nobody_was_shown_is_not_found(site):
    app, client = site(mode="silent")
    reply = await client.fire(await listed(client), order_sign(draft()))
    packet_id = reply.headers["x-packet-id"]
    unseen = overridden({"uuid": card_uuid(packet_id)}, at=datetime(2015, 1, 6, 20, 57, tzinfo=UTC))
    assert (await client.feed_back("hematocrit-order-sign", [unseen])).status == 404
    assert await app.store.events(packet_id) == ()


async def test_without_the_emr_the_answer_is_412_and_with_all_handed_over_it_is_not(site, chart_of):
    _, client = site(DEPLOYR_EMR_FHIR_BASE="http://127.0.0.1:1/api/FHIR/R4", DEPLOYR_DEADLINE_S="2")
    service = await listed(client)
    failed = await client.fire(service, order_sign(draft()))
    assert (failed.status, failed.content["resourceType"]) == (412, "OperationOutcome")
    chart = chart_of("p1", "e1", "o1", "42", "lab", value=30.0, birth="1950-03-04")
    handed = await client.fire(service, order_sign(draft()), search=search_in(*chart))
    assert handed.status == 200


async def test_other_methods_are_told_which_one_is_right(site):
    app, _ = site()
    for method, path, allowed in (
        ("GET", "hematocrit-order-sign", "POST"),
        ("POST", "", "GET"),
        ("GET", "hematocrit-order-sign/feedback", "POST"),
    ):
        answer = await app.cds(method, path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


async def test_in_prod_there_is_no_cds_hooks_without_clients_that_may_call(bundles_folder, tmp_path):
    engine = {"name": "engine", "models": ["*"], "password": "correct horse battery"}
    (tmp_path / "callers.json").write_text(json.dumps({"callers": [engine]}))
    settings = {
        "DEPLOYR_PROFILE": "prod",
        "DEPLOYR_JSON_CALLERS": str(tmp_path / "callers.json"),
        "DEPLOYR_BUNDLES": str(bundles_folder),
        "DEPLOYR_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        "DEPLOYR_AUDIT": f"folder:{tmp_path / 'audit'}",
        "DEPLOYR_ID_KEY": "0123456789abcdef",
        "DEPLOYR_EMR_FHIR_BASE": "https://emr.hospital.example/fhir",
        "DEPLOYR_EMR_AUTH": "basic",
        "DEPLOYR_EMR_BASIC_USER": "deployr",
        "DEPLOYR_EMR_BASIC_PASSWORD": "secret",
        **advise(tmp_path, "hematocrit", "anemia"),
    }
    served = [build(read_settings({**settings, **clients})).cds for clients in ({}, let_in(tmp_path))]
    assert served[0] is None
    assert served[1].callers is not None


async def test_in_dev_anybody_may_call_where_no_clients_are_named(site):
    _, client = site(DEPLOYR_CDS_CLIENTS="", DEPLOYR_PUBLIC_BASE="")
    assert (await client.discover()).status == 200
