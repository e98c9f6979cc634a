"""The writers: what they do about each answer, and about none."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs

import msgspec
import pytest

from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.http import Response
from deployr_serve.adapters.memory_store import MemoryStore
from deployr_serve.adapters.outputs_fhir import FhirOutput, FhirWriter
from deployr_serve.adapters.outputs_vendor import InBasket, SmartData
from deployr_serve.adapters.vendor_write import VendorWriter
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrDuplicates,
    EmrRefused,
    EmrThrottled,
    EmrTimeout,
    EmrUnreachable,
    OutcomeUnknown,
    OutputNotOffered,
    UnknownContext,
    UnknownPatient,
)
from deployr_serve.core.policy import Policies
from deployr_serve.outputs.declared import InBasketOutput, Recipient, SmartDataOutput
from deployr_serve.outputs.flag import render_flag
from deployr_serve.outputs.vendor_target import VendorTarget, VendorUser

BASE = "https://emr.example/api/FHIR/R4"


class Server:
    """A FHIR server that keeps what it is given; ``losses`` are raised in place of the first answers to a create."""

    def __init__(self, *losses, conditional=True, creates=("Flag",), answer=None):
        self.losses, self.conditional, self.creates, self.answer = list(losses), conditional, creates, answer
        self.held, self.calls = [], []

    async def send(self, request):
        self.calls.append((request.method, request.url))
        if request.url.endswith("/metadata"):
            kinds = [
                {"type": kind, "interaction": [{"code": "create"}], "conditionalCreate": self.conditional}
                for kind in self.creates
            ]
            return answered({"resourceType": "CapabilityStatement", "rest": [{"mode": "server", "resource": kinds}]})
        if request.url.endswith("/_search"):
            asked = dict(request.form)
            assert asked["patient"] == "p1"
            return answered({"resourceType": "Bundle", "entry": [{"resource": one} for one in self.held]})
        if self.answer is not None:
            return self.answer
        condition = request.headers.get("If-None-Exist")
        if condition is not None:
            assert parse_qs(condition) == {"identifier": ["urn:deployr:delivery|p01.flag"]}
        is_there = condition is not None and bool(self.held)
        if not is_there:
            self.held.append(msgspec.json.decode(request.body))
        if self.losses:
            raise self.losses.pop(0)
        return Response(
            status=200 if is_there else 201,
            content_type="",
            body=b"",
            headers={"location": "https://elsewhere.example/Flag/1"},
        )


def answered(content, *, status=200):
    return Response(status=status, content_type="application/fhir+json", body=msgspec.json.encode(content))


def outcome(code, *, status, epic=None):
    details = {"details": {"coding": [{"code": epic}]}} if epic else {}
    issue = {"severity": "error", "code": code, **details}
    return answered({"resourceType": "OperationOutcome", "issue": [issue]}, status=status)


@pytest.fixture
def send_to(packet_of, bundle):
    """Give a function that sends a Flag about patient p1 to a server."""

    async def run(server, *, writer=None):
        writer = writer or FhirWriter(base=BASE, transport=server, credentials=NoCredentials())
        plain = Policies().of("hematocrit")
        output = FhirOutput(
            "flag", writer, lambda packet, manifest, it: render_flag(packet, manifest, policy=plain, delivery_id=it)
        )
        return await output.send(packet_of(), bundle, delivery_id="p01.flag")

    return run


@pytest.mark.parametrize("conditional", [True, False])
async def test_a_timeout_after_the_commit_leaves_one_resource(send_to, conditional):
    server = Server(EmrTimeout("slow"), conditional=conditional)
    with pytest.raises(EmrTimeout):
        await send_to(server)
    await send_to(server)
    assert len(server.held) == 1


async def test_the_capabilities_are_asked_for_once(packet_of, bundle, send_to):
    server = Server()
    writer = FhirWriter(base=BASE, transport=server, credentials=NoCredentials())
    await send_to(server, writer=writer)
    await send_to(server, writer=writer)
    assert server.calls.count(("GET", f"{BASE}/metadata")) == 1


async def test_nothing_is_asked_of_another_host_whatever_the_location_says(send_to):
    server = Server()
    assert await send_to(server) == "https://elsewhere.example/Flag/1"
    assert {url.startswith(f"{BASE}/") for _, url in server.calls} == {True}


@pytest.mark.parametrize("location", ["", "x" * 501, "https://emr.example/Flag/1\r\nX: 1"])
async def test_a_location_that_is_none_is_not_kept(send_to, location):
    answer = Response(status=201, content_type="", body=b"", headers={"location": location})
    assert await send_to(Server(answer=answer)) is None


@pytest.mark.parametrize(("wrong", "goes_well"), [(0, False), (1, True), (2, True)])
async def test_several_of_which_all_but_one_are_marked_as_wrong_are_enough(send_to, wrong, goes_well):
    server = Server(answer=outcome("multiple-matches", status=412))
    identifier = [{"system": "urn:deployr:delivery", "value": "p01.flag"}]
    statuses = ["entered-in-error"] * wrong + ["active"] * (2 - wrong)
    server.held = [{"resourceType": "Flag", "identifier": identifier, "status": status} for status in statuses]
    if goes_well:
        assert await send_to(server) is None
    else:
        with pytest.raises(EmrDuplicates):
            await send_to(server)


async def test_a_type_that_is_not_offered_is_not_sent(send_to):
    server = Server(creates=("Observation",))
    with pytest.raises(OutputNotOffered):
        await send_to(server)
    assert server.held == []


async def test_resources_without_our_identifier_do_not_count_as_ours(send_to):
    server = Server(conditional=False)
    server.held = [{"resourceType": "Flag", "identifier": [{"system": "urn:other", "value": "p01.flag"}]}]
    await send_to(server)
    assert len(server.held) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (outcome("invalid", status=400), EmrRefused),
        (outcome("not-supported", status=405), EmrRefused),
        (outcome("conflict", status=409), EmrRefused),
        (outcome("processing", status=422), EmrRefused),
        (outcome("processing", status=200), EmrRefused),
        (outcome("multiple-matches", status=412), EmrDuplicates),
        (outcome("forbidden", status=403), EmrRefused),
        (outcome("throttled", status=429), EmrThrottled),
        (outcome("transient", status=503), EmrUnreachable),
        (answered({}, status=302), EmrBadResponse),
    ],
)
async def test_an_answer_says_whether_it_makes_sense_to_send_again(send_to, answer, error):
    with pytest.raises(error):
        await send_to(Server(answer=answer))


@pytest.mark.parametrize("answer", [outcome("duplicate", status=400), outcome("processing", status=400, epic="59141")])
async def test_a_server_that_says_that_it_has_it_already_has_taken_it(send_to, answer):
    await send_to(Server(answer=answer))


# -- the vendor's services


class Targets:
    async def of(self, packet, *, budget):
        return VendorTarget(patient_id="E7", patient_id_type="EPI", csn="42")


@pytest.fixture
def writer_of(transport_of):
    def make(*answers):
        transport = transport_of(*answers)
        return transport, VendorWriter(base="https://emr.example", transport=transport, credentials=NoCredentials())

    return make


@pytest.fixture
def set_element(writer_of, packet_of, bundle):
    async def run(*answers):
        transport, writer = writer_of(*answers)
        declared = SmartDataOutput(elements={"hematocrit": "DEPLOYR#001"})
        user = VendorUser(id="1", type="External")
        output = SmartData(writer, targets=Targets(), policies=Policies(), declared=declared, user=user)
        await output.send(packet_of(), bundle, delivery_id="p01.smart-data")
        return transport

    return run


def exception(code):
    message = f"An error occurred while executing the command: {code}."
    return Response(
        status=400, content_type="application/json", body=msgspec.json.encode({"ExceptionMessage": message})
    )


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("DATA_NOT_SAVED details: There was an error filing data.  Data was not saved.", EmrUnreachable),
        ("EPT_DAT_RETRIEVAL_ERROR", UnknownPatient),
        ("EPT_ID_RETRIEVAL_ERROR details: 2:InvalidRecord:RecordNotFound:9999999999;UID", UnknownPatient),
        ("NO-ENTITY-FOUND details: EntityID", UnknownPatient),
        ("CONTACT_IS_INVALID", UnknownContext),
        ("INVALID-MESSAGE-TYPE", EmrRefused),
    ],
)
async def test_a_refusal_is_classed_by_the_vendors_code(set_element, code, error):
    with pytest.raises(error) as raised:
        await set_element(exception(code))
    assert "9999999999" not in str(raised.value)


async def test_a_smart_data_element_is_put_with_nothing_of_the_patient_in_the_address(set_element):
    [request] = (await set_element(b'{"Success":true}')).requests
    path = "api/epic/2013/Clinical/Utility/SETSMARTDATAVALUES/SmartData/Values"
    assert (request.method, request.url) == ("PUT", f"https://emr.example/{path}")


@pytest.fixture
def message_of(writer_of, packet_of, bundle, clock):
    """Give a function that sends the one message, over a store that remembers."""
    store = MemoryStore()

    async def run(*answers):
        transport, writer = writer_of(*answers)
        output = InBasket(
            writer,
            targets=Targets(),
            policies=Policies(),
            declared=InBasketOutput(recipients=(Recipient(id="P77"),), sender_id="DEPLOYR"),
            records=store,
            clock=clock,
            remembered=timedelta(hours=24),
        )
        await output.send(packet_of(), bundle, delivery_id="p01.in-basket")
        return transport

    return run


def unsent(error):
    error.requests = 0
    return error


def sent(error):
    error.requests = 1
    return error


async def test_a_message_that_arrived_is_not_sent_again(message_of):
    await message_of(b'{"IDTypes":[{"ID":"1","Type":"Internal"}]}')
    assert (await message_of(b"")).requests == []


@pytest.mark.parametrize(
    "error", [sent(EmrTimeout("slow")), sent(EmrUnreachable("reset")), sent(EmrBadResponse("half"))], ids=str
)
async def test_a_message_that_may_have_arrived_is_never_sent_again(message_of, error):
    for answer in (error, b""):
        with pytest.raises(OutcomeUnknown):
            await message_of(answer)


@pytest.mark.parametrize("error", [sent(EmrThrottled("fewer")), unsent(EmrUnreachable("circuit"))], ids=str)
async def test_a_message_that_did_not_arrive_is_sent_again(message_of, error):
    with pytest.raises(type(error)):
        await message_of(error)
    assert len((await message_of(b"")).requests) == 1
