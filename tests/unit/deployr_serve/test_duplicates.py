"""Scores that stand in an EMR more than once: told by our identifier, reported, and marked only when asked."""

from __future__ import annotations

import msgspec
import pytest

from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.http import Response
from deployr_serve.adapters.outputs_fhir import FhirWriter
from deployr_serve.core.duplicates import duplicates_of
from deployr_serve.core.errors import EmrUnreachable

BASE = "https://emr.example/api/FHIR/R4"


def flag(flag_id, *, delivery="p01.flag", patient="p1", status="active", changed="2015-01-06T20:55:00Z"):
    return {
        "resourceType": "Flag",
        "id": flag_id,
        "meta": {"versionId": "3", "lastUpdated": changed},
        "identifier": [{"system": "urn:deployr:delivery", "value": delivery}],
        "status": status,
        "subject": {"reference": f"Patient/{patient}"},
    }


class Server:
    """A FHIR server that lets flags be changed, if ``updates``; answers a change with ``status``."""

    def __init__(self, *held, updates=True, status=200):
        self.held, self.updates, self.status = {one["id"]: one for one in held}, updates, status
        self.changes = []

    async def send(self, request):
        if request.url.endswith("/metadata"):
            codes = ["create", "update"] if self.updates else ["create"]
            kind = {"type": "Flag", "interaction": [{"code": code} for code in codes]}
            return answered({"resourceType": "CapabilityStatement", "rest": [{"mode": "server", "resource": [kind]}]})
        if request.url.endswith("/_search"):
            return answered({"resourceType": "Bundle", "entry": [{"resource": one} for one in self.held.values()]})
        assert request.method == "PUT"
        changed = msgspec.json.decode(request.body)
        self.changes.append((request.url.removeprefix(BASE), request.headers["If-Match"], changed["status"]))
        if self.status == 200:
            self.held[changed["id"]] = changed
        return answered({}, status=self.status)


def answered(content, *, status=200):
    return Response(status=status, content_type="application/fhir+json", body=msgspec.json.encode(content))


@pytest.fixture
def look(packet_of, delivery_of):
    async def run(server, *, mark=False):
        writer = FhirWriter(base=BASE, transport=server, credentials=NoCredentials())
        return await duplicates_of(delivery_of(output="flag"), packet_of(), ("Flag",), server=writer, mark=mark)

    return run


FIRST = flag("f2", changed="2015-01-06T20:55:00Z")
LATER = flag("f1", changed="2015-01-06T20:56:00Z")


async def test_they_are_reported_and_nothing_is_changed(look):
    server = Server(LATER, FIRST, flag("f9", delivery="p02.flag"))
    [found] = await look(server)
    assert (found.delivery_id, found.kind, found.kept, found.others) == ("p01.flag", "Flag", "f2", ("f1",))
    assert (found.marked, found.refusal, server.changes) == ((), None, [])


async def test_asked_to_it_marks_all_but_the_first_and_then_there_are_none(look):
    server = Server(LATER, FIRST, flag("f3", changed="2015-01-06T20:57:00Z"))
    [found] = await look(server, mark=True)
    assert found.marked == found.others == ("f1", "f3")
    assert server.changes == [(f"/Flag/{each}", 'W/"3"', "entered-in-error") for each in ("f1", "f3")]
    assert await look(server) == ()
    assert server.held["f2"] == FIRST


@pytest.mark.parametrize("held", [(), (FIRST,), (FIRST, flag("f1", status="entered-in-error"))])
async def test_one_that_is_left_is_no_duplicate(look, held):
    assert await look(Server(*held), mark=True) == ()


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Server(LATER, FIRST, updates=False), "output-not-offered"),
        (Server(LATER, FIRST, status=412), "emr-refused"),
        (Server(FIRST, flag("f1", patient="p2", changed="2016-01-01T00:00:00Z")), "wrong-patient"),
    ],
)
async def test_what_may_not_be_marked_is_told_with_the_reason(look, server, reason):
    [found] = await look(server, mark=True)
    assert (found.marked, found.refusal) == ((), reason)
    assert server.held["f1"]["status"] == "active"


async def test_a_server_that_cannot_be_asked_is_an_error(look):
    class Down:
        async def send(self, request):
            raise EmrUnreachable("expected a connection")

    with pytest.raises(EmrUnreachable):
        await look(Down())
