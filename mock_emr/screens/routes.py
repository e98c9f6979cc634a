"""All screens of a running EMR, put together."""

from __future__ import annotations

from starlette.routing import Route

from mock_emr.emr import Emr
from mock_emr.screens.bridge import Bridge
from mock_emr.screens.clinic_routes import ClinicScreens
from mock_emr.screens.operator_routes import OperatorScreens
from mock_emr.screens.ordering import Ordering
from mock_emr.screens.pages import Pages, static
from mock_emr.screens.wire import Wire


def screen_routes(emr: Emr) -> list[Route]:
    """Give the routes of the screens. They ask for no login, and are not journaled: they are no interface."""
    pages, wire = Pages(emr.clock), Wire()
    bridge = Bridge(emr, wire)
    clinic = ClinicScreens(emr=emr, pages=pages, ordering=Ordering(emr, bridge))
    operator = OperatorScreens(emr=emr, pages=pages, bridge=bridge, wire=wire)
    return [*clinic.routes(), *operator.routes(), Route("/screens/{file}", static, methods=["GET"])]
