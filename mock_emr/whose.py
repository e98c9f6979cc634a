"""Which patients a call is about, so that trouble can be scripted for one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from mock_emr.elements import child, each, local_reference, reference_text
from mock_emr.exchange import Refused
from mock_emr.paging import Searches
from mock_emr.store import Store
from mock_emr.vendor_patients import PatientIdentifiers

_PATIENT = ("patient", "subject")
_VENDOR = (("PatientID", "PatientIDType"), ("EntityID", "EntityIDType"))


class Whose:
    """Finds the patients of calls, by whatever they are named: FHIR ids, the vendor's identifiers, other resources."""

    def __init__(self, store: Store, *, searches: Searches, identifiers: PatientIdentifiers) -> None:
        """Look things up in this chart, pages in these searches, patients by these identifiers."""
        self._store = store
        self._searches = searches
        self._identifiers = identifiers

    async def patients(self, request: Request, *, now: datetime) -> frozenset[str]:
        """Give the FHIR ids of all whom a call names, in its path, query, form or JSON; unknown ones are left out."""
        resource_type = str(request.path_params.get("type", ""))
        body = await request.body()
        named = [*request.query_params.multi_items(), *_form(request, body)]
        sent = _json(request, body)
        found = set(self._of_pairs(resource_type, named, now=now))
        found.update(self._of_vendor({**dict(named), **sent}, now=now))
        if "id" in request.path_params:
            found.update(self._of_resource(resource_type, str(request.path_params["id"]), now=now))
        for name in _PATIENT:
            kind, _, patient_id = (reference_text(sent.get(name)) or "").partition("/")
            found.update({patient_id} if kind == "Patient" else ())
        found.update(_scored(sent, self._store, now=now))
        for entry in each(sent.get("entry")):
            found.update(self._of_url(str(child(entry, "request").get("url", "")), now=now))
        return frozenset(found)

    def _of_url(self, url: str, *, now: datetime) -> Iterator[str]:
        """Give whom an entry of a batch names: `Type/id` or `Type?query`."""
        path, _, query = url.partition("?")
        resource_type, _, resource_id = path.partition("/")
        yield from self._of_resource(resource_type, resource_id, now=now)
        yield from self._of_pairs(resource_type, parse_qsl(query), now=now)

    def _of_pairs(self, resource_type: str, pairs: list[tuple[str, str]], *, now: datetime) -> Iterator[str]:
        for name, value in pairs:
            for text in value.split(","):
                match name.partition(":")[0]:
                    case "patient" | "subject":
                        patient_id = local_reference(text).rpartition("/")[2]
                        yield patient_id
                        with suppress(Refused):
                            yield self._identifiers.patient("FHIR STU3", patient_id, now=now)
                    case "_id":
                        yield from self._of_resource(resource_type, text, now=now)
                    case "identifier":
                        system, _, value_ = text.rpartition("|")
                        term = (system or None, value_)
                        for record in self._store.identified_by(resource_type, [term]):
                            yield from [record.settled.patient_id] if record.settled.patient_id else []
                    case "sessionID":
                        yield from self._searches.patients_of(text)

    def _of_resource(self, resource_type: str, resource_id: str, *, now: datetime) -> Iterator[str]:
        form = self._store.read(resource_type, resource_id, now=now)
        if form is not None and form.patient_id is not None:
            yield form.patient_id

    def _of_vendor(self, sent: Mapping[str, Any], *, now: datetime) -> Iterator[str]:
        for name, kind in _VENDOR:
            if isinstance(sent.get(name), str) and isinstance(sent.get(kind), str):
                # An id that is nobody's is refused by the route itself.
                with suppress(Refused):
                    yield self._identifiers.patient(sent[kind], sent[name], now=now)


def _scored(sent: Mapping[str, Any], store: Store, *, now: datetime) -> Iterator[str]:
    """Give whose encounter a score is filed for."""
    flat = child(child(sent, "result"), "results") or sent
    entities = flat.get("EntityId")
    for entity in entities if isinstance(entities, list) else ():
        encounter = store.encounter_with_csn(str(entity.get("ID")), now=now) if isinstance(entity, dict) else None
        if encounter is not None and encounter.patient_id is not None:
            yield encounter.patient_id


def _form(request: Request, body: bytes) -> list[tuple[str, str]]:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return []
    return parse_qsl(body.decode("utf-8", errors="replace"))


def _json(request: Request, body: bytes) -> Mapping[str, Any]:
    if "json" not in request.headers.get("content-type", ""):
        return {}
    try:
        sent = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return sent if isinstance(sent, dict) else {}
