"""The routes of the vendor's web services that read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from mock_emr.emr import Emr, gate
from mock_emr.exchange import Answer, Exchange
from mock_emr.vendor_patients import (
    census,
    demographics_of_2010,
    demographics_of_2019,
    identifiers_answer,
    location_answer,
    resource_of,
)
from mock_emr.vendor_results import flowsheet_rows, result_components
from mock_emr.vendor_site import VendorSite, answer_of, object_in, refused, text_in

IDENTIFIERS_PATH = "/api/epic/2010/Common/Patient/GETPATIENTIDENTIFIERS/Patient/Identifiers"
DEMOGRAPHICS_2010_PATH = "/api/epic/2010/Common/Patient/GETPATIENTDEMOGRAPHICS/Patient/Demographics"
DEMOGRAPHICS_2019_PATH = "/api/epic/2019/PatientAccess/Patient/GetPatientDemographics/Patient/Demographics"
RESULTS_PATH = "/api/epic/2014/Results/Utility/GETPATIENTRESULTCOMPONENTS/ResultComponents"
RESULTS_URN_PATH = "/urn:Epic-com:Results.2014.Services.Utility.GetPatientResultComponents"
FLOWSHEET_ROWS_PATH = "/api/epic/2014/Clinical/Patient/GETFLOWSHEETROWS/FlowsheetRows"
CENSUS_PATH = "/api/epic/2012/Access/Patient/GETCENSUSBYUNIT/UnitCensus"
LOCATION_PATH = "/api/epic/2012/Access/Patient/GETPATIENTLOCATION/Location"

_Read = Callable[[Mapping[str, Any], Exchange, datetime], Mapping[str, Any]]


def vendor_read_routes(emr: Emr, *, site: VendorSite) -> list[Route]:
    """Give the routes; each speaks with the EMR's clock, behind its gate. Source: wire-formats.md section 2 [seen]."""
    reads = _Reads(emr, site=site)

    def route(path: str, name: str, read: _Read, method: str) -> Route:
        endpoint = gate(emr, _handler(read, method), route=path, face="vendor", fault_route=name)
        return Route(path, endpoint, methods=[method])

    return [
        route(IDENTIFIERS_PATH, "identifiers", reads.identifiers, "GET"),
        route(DEMOGRAPHICS_2010_PATH, "demographics", reads.demographics_of_2010, "GET"),
        route(DEMOGRAPHICS_2019_PATH, "demographics", reads.demographics_of_2019, "GET"),
        route(RESULTS_PATH, "result-components", reads.results, "POST"),
        route(RESULTS_URN_PATH, "result-components", reads.results, "POST"),
        route(FLOWSHEET_ROWS_PATH, "flowsheet-rows", reads.flowsheet, "POST"),
        route(CENSUS_PATH, "census", reads.census, "GET"),
        route(LOCATION_PATH, "location", reads.location, "POST"),
    ]


class _Reads:
    """What each service does with what was sent to it: query or JSON body, as one mapping."""

    def __init__(self, emr: Emr, *, site: VendorSite) -> None:
        self._emr = emr
        self._store = emr.store
        self._site = site
        self._identifiers = emr.identifiers

    def identifiers(self, sent: Mapping[str, Any], exchange: Exchange, now: datetime) -> Mapping[str, Any]:
        is_contact = sent.get("PatientIDType") == "CSN" and exchange.fault.body != "foreign-subject"
        patient_id = self._patient(sent, exchange, now)
        contact = [("CSN", str(sent["PatientID"]))] if is_contact else []
        return identifiers_answer([*self._identifiers.of(patient_id, now=now), *contact])

    def demographics_of_2010(self, sent: Mapping[str, Any], exchange: Exchange, now: datetime) -> Mapping[str, Any]:
        return demographics_of_2010(self._chart(sent, exchange, now))

    def demographics_of_2019(self, sent: Mapping[str, Any], exchange: Exchange, now: datetime) -> Mapping[str, Any]:
        return demographics_of_2019(self._chart(sent, exchange, now))

    def results(self, sent: Mapping[str, Any], exchange: Exchange, now: datetime) -> Mapping[str, Any]:
        _check_user(sent)
        return result_components(self._store, self._patient(sent, exchange, now), sent, site=self._site, now=now)

    def flowsheet(self, sent: Mapping[str, Any], exchange: Exchange, now: datetime) -> Mapping[str, Any]:
        _check_user(sent)
        patient_id = self._patient(sent, exchange, now)
        if text_in(sent, "ContactIDType") != "CSN":
            raise refused("INVALID-ID-TYPE details: ContactIDType: expected CSN")
        encounter = self._store.encounter_with_csn(text_in(sent, "ContactID"), now=now)
        if encounter is None or encounter.patient_id != patient_id:
            raise refused("CONTACT_IS_INVALID")
        csn = str(sent["ContactID"])
        filed = {
            row_id: [one for one in self._emr.written.flowsheet if (one.row_id, one.csn) == (row_id, csn)]
            for row_id in self._emr.write_site.flowsheet_rows
        }
        return flowsheet_rows(self._store, patient_id, resource_of(encounter), sent, filed=filed, now=now)

    def census(self, sent: Mapping[str, Any], _: Exchange, now: datetime) -> Mapping[str, Any]:
        return census(self._store, self._identifiers, text_in(sent, "UnitID"), now=now)

    def location(self, sent: Mapping[str, Any], exchange: Exchange, now: datetime) -> Mapping[str, Any]:
        _check_user(sent)
        return location_answer(self._store, self._patient(sent, exchange, now), now=now)

    def _patient(self, sent: Mapping[str, Any], exchange: Exchange, now: datetime) -> str:
        """Give the patient who is asked about; somebody else, where that is the fault to be played."""
        asked = self._identifiers.patient(text_in(sent, "PatientIDType"), text_in(sent, "PatientID"), now=now)
        if exchange.fault.body != "foreign-subject":
            return asked
        others = (record.settled.patient_id for record in self._store.all_of("Patient"))
        return next((one for one in others if one is not None and one != asked), asked)

    def _chart(self, sent: Mapping[str, Any], exchange: Exchange, now: datetime) -> Mapping[str, Any]:
        form = self._store.read("Patient", self._patient(sent, exchange, now), now=now)
        if form is None:
            raise refused("EPT_DAT_RETRIEVAL_ERROR")
        return resource_of(form)


def _handler(read: _Read, method: str) -> Callable[[Emr, Request, Exchange], Awaitable[Answer]]:
    async def handle(emr: Emr, request: Request, exchange: Exchange) -> Answer:
        sent = dict(request.query_params) if method == "GET" else await object_in(request)
        exchange.parameters = tuple(sorted(sent))
        return answer_of(read(sent, exchange, emr.clock.now()))

    return handle


def _check_user(sent: Mapping[str, Any]) -> None:
    """Refuse a call in nobody's name: both members must be there, though they may be empty."""
    for name in ("UserID", "UserIDType"):
        if not isinstance(sent.get(name), str):
            raise refused(f"INVALID-PARAMETER details: {name}: expected text")
