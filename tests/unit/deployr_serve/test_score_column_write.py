"""The write of a score over the vendor's interface, and what its answers mean."""

from __future__ import annotations

import json

import pytest

from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.epic import ScoreColumn
from deployr_serve.adapters.vendor_write import VendorWriter
from deployr_serve.core.errors import EmrBadResponse, EmrRefused, EmrThrottled, EmrTimeout, EmrUnreachable
from deployr_serve.core.policy import Policies


@pytest.fixture
def column_of():
    def make(transport, credentials=None):
        writer = VendorWriter(
            base="https://emr.example/interconnect",
            transport=transport,
            credentials=credentials or NoCredentials(),
        )
        return ScoreColumn(writer, policies=Policies(), namespace="SHC")

    return make


@pytest.fixture
def send(column_of, transport_of, packet_of, bundle):
    async def run(*answers):
        await column_of(transport_of(*answers)).send(packet_of(), bundle, delivery_id="p01.score-column")

    return run


async def test_the_score_goes_to_the_vendors_path_with_nothing_of_the_patient_in_the_url(
    column_of, transport_of, packet_of, bundle
):
    transport = transport_of(b"")
    packet = packet_of(patient_id="CANARY", order_id="CANARY")
    await column_of(transport).send(packet, bundle, delivery_id="p01.score-column")
    [request] = transport.requests
    address, _, query = request.url.partition("?")
    path = "api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"
    assert (request.method, address) == ("POST", f"https://emr.example/interconnect/{path}")
    assert query.startswith("modelId=SHC.HCT%401&jobId=")
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body)["result"]["results"]["EntityId"] == [{"ID": "42", "Type": "CSN"}]


async def test_the_same_delivery_sent_again_is_the_same_request(column_of, transport_of, packet_of, bundle):
    transport = transport_of(b"")
    for _ in range(2):
        await column_of(transport).send(packet_of(), bundle, delivery_id="p01.score-column")
    first, second = transport.requests
    assert (first.url, first.body) == (second.url, second.body)


@pytest.mark.parametrize(
    "body", [b"", b" \r\n", b"{}", b'{"Success":true,"Errors":[]}', b'{"Error":""}', b"[]", b"null", b'"ok"', b"1"]
)
async def test_success_without_an_error_body_is_accepted(send, body):
    await send(body)


@pytest.mark.parametrize(
    "body",
    [
        {"Success": False},
        {"Success": True, "Errors": ["INVALID"]},
        {"ErrorMessage": "no"},
        {"ExceptionMessage": "no"},
        {"Error": {"Code": 1}},
        {"Status": 0},
    ],
)
async def test_an_error_in_a_successful_answer_is_a_refusal(send, body):
    with pytest.raises(EmrRefused):
        await send(body)


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b'{"Success":tr', b"\xff"])
async def test_a_successful_answer_that_is_no_json_may_have_arrived_or_not(send, body):
    with pytest.raises(EmrBadResponse):
        await send(body)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, EmrRefused),
        (403, EmrRefused),
        (404, EmrRefused),
        (409, EmrRefused),
        (410, EmrRefused),
        (412, EmrRefused),
        (422, EmrRefused),
        (302, EmrBadResponse),
        (408, EmrUnreachable),
        (429, EmrThrottled),
        (500, EmrUnreachable),
        (503, EmrUnreachable),
    ],
)
async def test_a_status_says_whether_it_makes_sense_to_send_again(send, status_of, status, error):
    with pytest.raises(error, match=str(status)):
        await send(status_of(status))


async def test_a_lost_answer_comes_out_as_it_is(send):
    with pytest.raises(EmrTimeout):
        await send(EmrTimeout("slow"))


class Tokens:
    def __init__(self):
        self.number = 1

    origins = None

    async def headers(self, *, budget=None):
        return {"Authorization": f"Bearer t{self.number}"}

    def refused(self, headers):
        self.number += 1
        return True


async def test_a_withdrawn_token_does_not_cost_the_score(column_of, transport_of, status_of, packet_of, bundle):
    transport = transport_of(status_of(401), b"")
    await column_of(transport, Tokens()).send(packet_of(), bundle, delivery_id="p01.score-column")
    first, second = transport.requests
    assert (first.headers["Authorization"], second.headers["Authorization"]) == ("Bearer t1", "Bearer t2")
    assert (first.url, first.body) == (second.url, second.body)


async def test_a_second_401_is_a_refusal(column_of, transport_of, status_of, packet_of, bundle):
    transport = transport_of(status_of(401))
    with pytest.raises(EmrRefused):
        await column_of(transport, Tokens()).send(packet_of(), bundle, delivery_id="p01.score-column")
    assert len(transport.requests) == 2
