"""Scripting trouble while the EMR runs: list, add, put in place of all, take back one, take back all."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mock_emr.admin_json import answer, refusal
from mock_emr.emr import Emr
from mock_emr.faults import FaultError, rules_in


def fault_routes(emr: Emr) -> list[Route]:
    """Give the routes under /admin/faults. Every rule that comes in here has a name afterwards."""

    async def listed(_: Request) -> Response:
        return answer(emr.faults.rules())

    async def added(request: Request) -> Response:
        try:
            return answer(emr.faults.add(rules_in(await request.body())), status=201)
        except FaultError as error:
            return refusal(error)

    async def put(request: Request) -> Response:
        try:
            rules = rules_in(await request.body())
        except FaultError as error:
            return refusal(error)
        emr.faults.put(())
        return answer(emr.faults.add(rules))

    async def cleared(_: Request) -> Response:
        emr.faults.put(())
        return answer(emr.faults.rules())

    async def removed(request: Request) -> Response:
        if not emr.faults.remove(request.path_params["name"]):
            return refusal(FaultError("expected the name of a rule in force: GET /admin/faults"), status=404)
        return answer(emr.faults.rules())

    return [
        Route("/admin/faults", listed, methods=["GET"]),
        Route("/admin/faults", added, methods=["POST"]),
        Route("/admin/faults", put, methods=["PUT"]),
        Route("/admin/faults", cleared, methods=["DELETE"]),
        Route("/admin/faults/{name}", removed, methods=["DELETE"]),
    ]
