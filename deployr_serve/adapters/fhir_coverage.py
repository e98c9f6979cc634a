"""Who pays, by the patient's Coverage resources: their type alone is read, and no number of a member or a plan.

Source: FHIR R4 coverage.html, http://hl7.org/fhir/R4/coverage.html; search parameters ``patient`` and ``status``.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

import msgspec

from deployr_core.packet import FetchRecord
from deployr_core.patient_groups import Payer, payer_among, payer_of
from deployr_serve.adapters import fhir_wire as wire
from deployr_serve.adapters.fhir_about import dates_expected
from deployr_serve.adapters.fhir_elements import codes_of, instants_of, local_id
from deployr_serve.adapters.fhir_search import FhirClient, Search
from deployr_serve.core.errors import EmrBadResponse, WrongPatient
from deployr_serve.core.ports import Budget


class _Coverage(msgspec.Struct, frozen=True, kw_only=True):
    status: str | None = None
    type: wire.CodeableConcept | None = None
    beneficiary: wire.Reference | None = None
    period: wire.Period | None = None
    order: int | None = None

    def __repr__(self) -> str:
        return "<_Coverage>"


_decoder = msgspec.json.Decoder(_Coverage)


class FhirCoverages:
    """See `deployr_serve.core.who_pays.Coverages`.

    Args:
        client: the server; it is asked with our own credentials, whatever token came with a request.
        zone: the site's, for dates that carry none.
    """

    def __init__(self, client: FhirClient, *, zone: tzinfo = UTC) -> None:
        self._client = client
        self._zone = zone

    async def payer(
        self, patient_id: str, *, as_of: datetime, budget: Budget | None
    ) -> tuple[Payer | None, FetchRecord]:
        """Give who pays by the coverages that are active and hold at ``as_of``; their order says which comes first.

        Raises:
            WrongPatient: one of them is somebody else's, and none is believed.
            EmrBadResponse: an answer that is no Coverage, or a date that is none.
        """
        search = Search(resource_type="Coverage", parameters=(("patient", patient_id), ("status", "active")))
        found = await self._client.search(search, name="coverage", budget=budget, whole=True)
        known = []
        for coverage in (_read(each) for each in found.resources):
            reference = coverage.beneficiary.reference if coverage.beneficiary else None
            if reference is None or local_id(reference, "Patient", fhir_base=self._client.base) != patient_id:
                raise WrongPatient("expected coverages of the patient that was asked for")
            payer = payer_of(codes_of(coverage.type))
            if payer is not None and coverage.status == "active" and self._holds(coverage.period, as_of):
                known.append((coverage.order, payer))
        return payer_among(known), found.record

    def _holds(self, period: wire.Period | None, at: datetime) -> bool:
        """Tell whether a period holds an instant; the day of its end is in it, and without bounds it has none."""
        if period is None:
            return True
        with dates_expected():
            begun = period.start is None or instants_of(period.start, self._zone)[0] <= at
            return begun and (period.end is None or at <= instants_of(period.end, self._zone)[1])


def _read(resource: wire.Resource) -> _Coverage:
    if not isinstance(resource, wire.Whole) or resource.kind != "Coverage":
        raise EmrBadResponse("expected Coverage resources")
    try:
        return _decoder.decode(resource.body)
    except msgspec.MsgspecError:
        # Its message may repeat a part of the record.
        raise EmrBadResponse("expected Coverage resources as FHIR writes them") from None
