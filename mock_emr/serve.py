"""The EMR as an ASGI app, with everything it depends on handed in."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from starlette.applications import Starlette

from mock_emr.admin_routes import admin_routes
from mock_emr.assertion import Key, UsedAssertions
from mock_emr.bulk import Exports
from mock_emr.clock import EmrClock
from mock_emr.emr import Emr
from mock_emr.faults import Faults
from mock_emr.fhir_routes import fhir_routes
from mock_emr.journal import Journal
from mock_emr.loading import load_folder
from mock_emr.oauth_routes import oauth_routes
from mock_emr.paging import Searches
from mock_emr.scopes import ScopePolicy
from mock_emr.scores import ScoreColumn
from mock_emr.screens.routes import screen_routes
from mock_emr.store import Store
from mock_emr.stu3_routes import stu3_routes
from mock_emr.timeline import Timeline
from mock_emr.tokens import AccessTokens
from mock_emr.vendor_patients import PatientIdentifiers
from mock_emr.vendor_routes import vendor_routes
from mock_emr.vendor_site import VendorSite
from mock_emr.whose import Whose
from mock_emr.written import WriteSite, Written


def real_now() -> datetime:
    """Give the machine's instant, aware UTC."""
    return datetime.now(UTC)


def create_app(
    chart: Path | Store,
    *,
    clock: EmrClock | None = None,
    clients: Mapping[str, tuple[Key, ...]] | None = None,
    users: Mapping[str, str] | None = None,
    open_access: bool = False,
    delay_s: float = 0.0,
    base_url: str | None = None,
    token_lifetime_s: int = 300,
    token_bytes: Callable[[int], bytes] = secrets.token_bytes,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    vendor_site: VendorSite | None = None,
    write_site: WriteSite | None = None,
) -> Starlette:
    """Give an EMR over a chart; `app.state.emr` holds its parts, for callers in the same process.

    Bind it to loopback only: the admin routes ask for no token.

    Args:
        chart: a loaded store, or a folder of FHIR NDJSON to load.
        clock: the EMR's clock; None follows the real time until it is put.
        clients: each client's public keys by client id, see `assertion.keys_in`.
        users: passwords by user, for those who prove themselves by HTTP Basic, see `basic.client_of`.
        open_access: answer FHIR and vendor calls without a token.
        delay_s: wait so long before every FHIR and vendor call.
        base_url: the origin in every URL that is given out, and in the audience of assertions, without a slash
            at its end; None takes each request's own.
        token_lifetime_s: how long an access token is good.
        token_bytes: gives that many random bytes, for tokens and search sessions.
        monotonic: seconds that never go back; tokens end on it.
        sleep: waits so many seconds.
        vendor_site: how the vendor's web services answer here; None is a site in UTC.
        write_site: what may be written here; None is a site that takes all that it knows.

    Raises:
        LoadError, StoreError: the folder cannot be loaded.
    """
    store = load_folder(chart) if isinstance(chart, Path) else chart
    clock = clock or EmrClock(real_now=real_now)
    searches, identifiers = Searches(token_bytes=token_bytes), PatientIdentifiers(store)
    emr = Emr(
        store=store,
        clock=clock,
        clients=clients or {},
        users=users or {},
        open_access=open_access,
        delay_s=delay_s,
        base_url=base_url,
        tokens=AccessTokens(lifetime_s=token_lifetime_s, token_bytes=token_bytes, monotonic=monotonic),
        assertions=UsedAssertions(),
        searches=searches,
        scopes=ScopePolicy(),
        scores=ScoreColumn(),
        written=Written(now=clock.now),
        write_site=write_site or WriteSite(),
        journal=Journal(),
        faults=Faults(),
        identifiers=identifiers,
        whose=Whose(store, searches=searches, identifiers=identifiers),
        timeline=Timeline(store),
        exports=Exports(store, token_bytes=token_bytes),
        monotonic=monotonic,
        sleep=sleep,
    )
    vendor = vendor_routes(emr, site=vendor_site or VendorSite())
    app = Starlette(
        routes=[
            *fhir_routes(emr),
            *stu3_routes(emr),
            *oauth_routes(emr),
            *vendor,
            *admin_routes(emr),
            *screen_routes(emr),
        ]
    )
    app.state.emr = emr
    return app
