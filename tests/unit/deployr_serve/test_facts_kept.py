"""Facts are kept where the deployment says so, before the packet that names them; a score never waits for that."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from deployr_core.packet import Abstained, Failed, Mode, Rejected, Scored
from deployr_serve.core.errors import EmrTimeout, StoreUnavailable, WrongPatient
from deployr_serve.core.facts_kept import facts_bytes
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policy


class NotedVault:
    """Notes what is kept, and how the packet stood in the store at that moment; ``fails_with`` is raised."""

    def __init__(self, store, *, fails_with=None):
        self._store = store
        self._fails_with = fails_with
        self.kept = []

    async def keep(self, packet_id, digest, content, *, expires_at):
        if callable(self._fails_with):
            await self._fails_with()
        if self._fails_with is not None:
            raise self._fails_with
        stored = await self._store.read(packet_id)
        self.kept.append((packet_id, digest, content, expires_at, stored.packet.is_terminal))


def policy(**changes):
    return Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, **{"keep_facts_days": 30, **changes})


@pytest.fixture
def asked(services_of, request_of):
    """Give a function that has one request answered with a vault, and gives the packet and the vault."""

    async def make(*policies, fails_with=None, deadline_s=8.0, **services):
        made = services_of(policies=policies, deadline_s=deadline_s, **services)
        vault = NotedVault(made.store, fails_with=fails_with)
        answer = await infer(request_of(), replace(made, vault=vault))
        return answer.packet, vault

    return make


async def test_facts_are_kept_before_the_packet_that_names_their_digest(asked, fetched_of, lab_of, now):
    packet, vault = await asked(policy())
    [(packet_id, digest, content, expires_at, was_terminal)] = vault.kept
    assert (packet_id, digest, was_terminal) == (packet.packet_id, packet.facts_sha256, False)
    assert content == facts_bytes(fetched_of(lab_of()))
    assert expires_at == now + timedelta(days=30)
    assert isinstance(packet.outcome, Scored)


async def test_without_days_in_the_deployment_file_nothing_is_kept(asked):
    for policies in ((), (policy(keep_facts_days=None),)):
        packet, vault = await asked(*policies)
        assert (packet.facts_sha256, vault.kept) == (None, [])


async def test_what_abstained_keeps_its_facts_too(asked, bundle, models_of, source_of, fetched_of):
    import msgspec

    needy = msgspec.structs.replace(bundle.manifest.requires, features_present=1)
    needy_bundle = msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, requires=needy))
    packet, vault = await asked(policy(), models=models_of(hematocrit=needy_bundle), source=source_of(fetched_of()))
    assert isinstance(packet.outcome, Abstained)
    assert packet.facts_sha256 == vault.kept[0][1]


@pytest.mark.parametrize("error", [EmrTimeout("no answer"), WrongPatient("another patient")])
async def test_what_was_not_fetched_is_not_kept(asked, source_of, error):
    packet, vault = await asked(policy(), source=source_of(error))
    assert isinstance(packet.outcome, Failed | Rejected)
    assert (packet.facts_sha256, vault.kept) == (None, [])


async def test_a_vault_that_does_not_answer_costs_no_score_and_is_counted(asked, caplog):
    packet, _ = await asked(policy(), fails_with=StoreUnavailable("down"))
    assert packet.outcome.score == 3 / 4
    assert packet.facts_sha256 is None
    assert packet.outcome.coverage["facts.not_kept"] == 1
    assert f"facts not kept: packet={packet.packet_id}" in caplog.text


async def test_a_vault_that_hangs_is_left_in_time(asked):
    packet, _ = await asked(policy(), fails_with=asyncio.Event().wait, deadline_s=1.0)
    assert packet.outcome.score == 3 / 4
    assert packet.outcome.coverage["facts.not_kept"] == 1


@pytest.mark.parametrize("days", [0, -1, 366 * 30 + 1])
def test_days_that_make_no_sense_are_refused(days):
    with pytest.raises(ValueError, match="keep_facts_days"):
        policy(keep_facts_days=days)
