"""The vendor's own web services: filing a model's score, and what it lets others read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route

from mock_emr.emr import Emr, gate
from mock_emr.exchange import Answer, Exchange
from mock_emr.journal import Write
from mock_emr.scores import ScoreError, score_in
from mock_emr.vendor_reads import vendor_read_routes
from mock_emr.vendor_site import VendorSite, answer_of, refused
from mock_emr.vendor_writes import vendor_write_routes

SCORE_PATH = "/api/epic/2017/Reporting/Predictive/HANDLEEXTERNALMODELSCORES"


def vendor_routes(emr: Emr, *, site: VendorSite) -> list[Route]:
    """Give the routes of the vendor's web services."""
    endpoint = gate(emr, _file_score, route=SCORE_PATH, face="vendor", fault_route="score")
    score = Route(SCORE_PATH, endpoint, methods=["POST"])
    return [score, *vendor_read_routes(emr, site=site), *vendor_write_routes(emr)]


async def _file_score(emr: Emr, request: Request, exchange: Exchange) -> Answer:
    """File a score under its model and encounter, once per job.

    Source: wire-formats.md section 3, External model score: path, query and bodies [seen]; the answers are
    [assumed], after the flowsheet service's.
    """
    model_id, job_id = (request.query_params.get(name, "") for name in ("modelId", "jobId"))
    for name, value in (("modelId", model_id), ("jobId", job_id)):
        if not value:
            raise refused(f"INVALID-PARAMETER details: {name}: expected in the query")
    try:
        score = score_in(await request.body())
    except ScoreError as error:
        raise refused(f"INVALID-BODY details: {error}") from error
    now = emr.clock.now()
    if emr.store.encounter_with_csn(score.csn, now=now) is None:
        raise refused("NO-ENTITY-FOUND details: EntityId[0].ID: expected the CSN of an encounter")
    is_new = emr.scores.file(score, model_id=model_id, job_id=job_id, now=now)
    exchange.write = Write(kind="score", model_id=model_id, job_id=job_id, is_new=is_new)
    return answer_of({"Success": True, "Errors": []})
