"""For whom it was asked, which language, who pays: in the packet as hash and groups, and never in a score's way."""

from __future__ import annotations

import asyncio
import dataclasses

import msgspec
import pytest

from deployr_core.forgetting import forgotten
from deployr_core.packet import FetchRecord, InferencePacket, Mode, Scored
from deployr_core.packet_ids import derive_clinician_hash
from deployr_core.patient_groups import PatientGroups, Payer
from deployr_serve.adapters.fhir_coverage import FhirCoverages
from deployr_serve.core.errors import EmrBadResponse, EmrRefused, EmrUnreachable, WrongPatient
from deployr_serve.core.infer import infer
from deployr_serve.core.policy import Policy
from deployr_serve.core.replay import Verdict, replay
from deployr_serve.core.watch import NOT_WATCHED, NotWatched

SOPT = "https://nahdo.org/sopt"
ASKED = FetchRecord(resource="Coverage", resources=1, pages=1, milliseconds=1.0, name="coverage")


class Says:
    """Gives what it is told to; an exception is raised."""

    def __init__(self, payer=None):
        self._payer = payer
        self.asked = []

    async def payer(self, patient_id, *, as_of, budget):
        self.asked.append((patient_id, as_of))
        await asyncio.sleep(0)
        if isinstance(self._payer, BaseException):
            raise self._payer
        return self._payer, ASKED


class Watching(NotWatched):
    """Keeps the searches that it is told of."""

    def __init__(self):
        super().__init__()
        self.told = []

    def fetched(self, records):
        self.told += records


@pytest.fixture
def packet_for(services_of, request_of, source_of, fetched_of, lab_of):
    """Give a function that scores a request, and gives the packet that is stored."""

    async def run(*, context=None, language=None, coverages=None, reads=True, watch=NOT_WATCHED, **asked):
        fetched = fetched_of(lab_of())
        if language is not None:
            fetched = dataclasses.replace(fetched, patient_groups=PatientGroups(language=language))
        policy = Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, read_insurance=reads)
        services = services_of(source=source_of(fetched), policies=(policy,))
        services = dataclasses.replace(services, coverages=coverages, watch=watch)
        await infer(dataclasses.replace(request_of(**asked), context=context or {}), services)
        [packet] = await services.store.packets(model_id="hematocrit", after=None, limit=9)
        assert packet.outcome.score == 3 / 4
        return packet

    return run


# -- for whom it was asked


async def test_a_clinician_stands_in_the_packet_as_a_hash_and_is_the_same_in_all_of_theirs(packet_for):
    packet = await packet_for(context={"provider": "Practitioner/canary-7"})
    assert packet.clinician_hash == derive_clinician_hash(b"0123456789abcdef", "Practitioner/canary-7")
    assert b"canary-7" not in msgspec.json.encode(packet)
    other = await packet_for(context={"provider": "Practitioner/canary-7"}, patient_id="p2", order_id="o2")
    assert other.clinician_hash == packet.clinician_hash


@pytest.mark.parametrize("context", [{}, {"provider": ""}, {"department": "7A"}])
async def test_nobody_is_made_up_where_the_channel_names_nobody(packet_for, context):
    assert (await packet_for(context=context)).clinician_hash is None


async def test_nothing_of_a_clinician_or_a_patients_groups_is_left_of_a_forgotten_packet(packet_for, now):
    packet = await packet_for(context={"provider": "dr1", "insurance": "private"}, language="es")
    left = forgotten(packet, at=now)
    assert (left.clinician_hash, left.patient_groups) == (None, None)


async def test_a_packet_of_before_clinicians_and_groups_is_read_and_replays_to_the_same_bits(packet_for, bundle):
    packet = await packet_for(context={"provider": "dr1", "insurance": "private"}, language="es")
    new = {"clinician_hash", "patient_groups"}
    body = {name: value for name, value in msgspec.json.decode(msgspec.json.encode(packet)).items() if name not in new}
    before = msgspec.json.decode(msgspec.json.encode(body), type=InferencePacket)
    assert (before.clinician_hash, before.patient_groups) == (None, None)
    assert before == msgspec.structs.replace(packet, clinician_hash=None, patient_groups=None)
    assert replay(before, bundle, installed={}, policy=None).verdict is Verdict.SAME


def test_a_deployment_that_does_not_ask_who_pays_keeps_its_digest():
    policy = Policy(schema_version=1, model="hematocrit", mode=Mode.LIVE, threshold=0.5)
    assert b"read_insurance" not in msgspec.json.encode(policy)
    assert policy.sha256 == msgspec.structs.replace(policy, read_insurance=False).sha256
    assert policy.sha256 != msgspec.structs.replace(policy, read_insurance=True).sha256


# -- which language, who pays


async def test_a_language_is_kept_with_the_packet_without_asking_anybody(packet_for):
    says = Says(Payer.PUBLIC)
    packet = await packet_for(language="es", coverages=says, reads=False)
    assert packet.patient_groups == PatientGroups(language="es")
    assert says.asked == []
    assert (await packet_for()).patient_groups is None


async def test_who_pays_is_asked_where_the_deployment_says_so(packet_for, now):
    says = Says(Payer.PUBLIC)
    packet = await packet_for(language="es", coverages=says)
    assert packet.patient_groups == PatientGroups(language="es", insurance=Payer.PUBLIC)
    assert says.asked == [("p1", now)]
    assert packet.fetches == (ASKED,)


async def test_what_the_caller_hands_over_is_taken_and_nobody_is_asked(packet_for):
    says = Says(Payer.PUBLIC)
    packet = await packet_for(context={"insurance": "self-pay"}, coverages=says)
    assert packet.patient_groups == PatientGroups(insurance=Payer.SELF_PAY)
    assert says.asked == []


async def test_any_other_word_of_the_caller_is_not_kept(packet_for):
    packet = await packet_for(context={"insurance": "Acme Health, member 123-45-6789"})
    assert packet.patient_groups is None


@pytest.mark.parametrize(
    "trouble", [EmrUnreachable("expected an EMR"), EmrRefused("expected a scope"), WrongPatient("expected theirs")]
)
async def test_where_it_cannot_be_told_the_score_stands_and_it_is_left_out(packet_for, trouble):
    trouble.fetches = (msgspec.structs.replace(ASKED, error=trouble.reason),)
    packet = await packet_for(coverages=Says(trouble))
    assert packet.patient_groups is None
    assert [each.error for each in packet.fetches] == [trouble.reason]


async def test_a_score_does_not_wait_for_a_server_that_does_not_say_who_pays(packet_for, monkeypatch):
    class Never:
        async def payer(self, patient_id, *, as_of, budget):
            await asyncio.Event().wait()

    monkeypatch.setattr("deployr_serve.core.who_pays.WITHIN_S", 0.0)
    packet = await packet_for(coverages=Never())
    assert isinstance(packet.outcome, Scored)
    assert packet.patient_groups is None


@pytest.mark.parametrize("said", [Payer.PUBLIC, EmrUnreachable("expected an EMR")])
async def test_that_it_was_asked_is_told_to_whoever_watches(packet_for, said):
    if isinstance(said, EmrUnreachable):
        said.fetches = (ASKED,)
    watch = Watching()
    await packet_for(coverages=Says(said), watch=watch)
    assert watch.told == [ASKED]


# -- by FHIR


@pytest.fixture
def coverage():
    """Give a function that makes a Coverage of patient p1 by Medicare; a field given as None is left out."""

    def make(resource_id="c1", code="1", **elements):
        resource = {
            "resourceType": "Coverage",
            "id": resource_id,
            "status": "active",
            "type": {"coding": [{"system": SOPT, "code": code}]},
            "subscriberId": "CANARY-member",
            "beneficiary": {"reference": "Patient/p1"},
            **elements,
        }
        return {name: value for name, value in resource.items() if value is not None}

    return make


@pytest.fixture
def payer_by(client_of, transport_of, page_of, now):
    async def run(*resources, answer=None):
        transport = transport_of(page_of(*resources) if answer is None else answer)
        payer, record = await FhirCoverages(client_of(transport)).payer("p1", as_of=now, budget=None)
        return payer, record, transport.requests

    return run


async def test_the_type_of_the_patients_active_coverages_says_who_pays(payer_by, coverage):
    payer, record, [request] = await payer_by(coverage(), coverage("c2", "512", order=2))
    # Of one with a place in the order of paying, and one without, the first has it.
    assert payer is Payer.PRIVATE
    assert request.url.endswith("/Coverage/_search")
    assert dict(request.form) == {"patient": "p1", "status": "active", "_count": "1000"}
    assert (record.name, record.resource, record.resources) == ("coverage", "Coverage", 2)
    assert (await payer_by())[0] is None
    assert (await payer_by(coverage(), coverage("c2", "512")))[0] is Payer.SEVERAL


@pytest.mark.parametrize(
    "elements",
    [
        {"status": "cancelled"},
        {"status": None},
        {"type": None},
        {"type": {"text": "Medicare"}},
        {"period": {"end": "2015-01-05"}},
        {"period": {"start": "2015-01-08"}},
    ],
)
async def test_a_coverage_that_does_not_hold_on_that_day_or_has_no_code_tells_nothing(payer_by, coverage, elements):
    assert (await payer_by(coverage(**elements)))[0] is None


@pytest.mark.parametrize(
    "period", [{"start": "2015-01-06", "end": "2015-01-06"}, {"start": "2015"}, {"end": "2015-01-06T21:00:00Z"}]
)
async def test_the_days_of_its_beginning_and_its_end_are_covered(payer_by, coverage, period):
    # It is 20:55 on the 6th.
    assert (await payer_by(coverage(period=period)))[0] is Payer.PUBLIC


@pytest.mark.parametrize("beneficiary", [None, {"reference": "Patient/p2"}, {"display": "CANARY"}])
async def test_one_coverage_of_somebody_else_spoils_them_all(payer_by, coverage, beneficiary):
    with pytest.raises(WrongPatient):
        await payer_by(coverage(), coverage("c2", beneficiary=beneficiary))


async def test_what_cannot_be_read_is_refused_without_repeating_it(payer_by, coverage):
    for wrong in ({"status": 7}, {"period": {"start": "CANARY-day"}}, {"order": "CANARY"}):
        with pytest.raises(EmrBadResponse) as caught:
            await payer_by(coverage(**wrong))
        assert "CANARY" not in str(caught.value)
    with pytest.raises(EmrBadResponse):
        await payer_by({"resourceType": "Patient", "id": "p1"})
