"""`deployr dash`: the dashboard, over an extract that is already there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_core.packet import InferencePacket
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.settings import Profile, Settings, read_settings
from deployr_serve.store_bootstrap import Store


def run_dash(
    extract: Path,
    *,
    sign_in: str,
    host: str,
    port: int,
    plans: Path | None,
    settings: Path | None,
) -> None:
    """Serve the dashboard until Ctrl-C.

    Raises:
        CommandFailed: streamlit is not installed, or anybody could look who should not.
    """
    if find_spec("streamlit") is None:
        raise CommandFailed("expected streamlit, which deployr[dash] installs")
    from streamlit.web import bootstrap

    from deployr_cli.dash_deeds import AppDeeds
    from deployr_cli.dash_registry import SiteRegistry
    from deployr_dash import app, theme
    from deployr_dash.sign_in import SignIn, SignInKind, check_auth, check_deeds, check_start
    from deployr_dash.sources import Sources, install

    # What is the dashboard's own is no setting of the app, which refuses what it does not know.
    of_app = {name: value for name, value in os.environ.items() if not name.startswith("DEPLOYR_DASH_")}
    site = read_settings(settings_values(settings, of_app)) if settings is not None else None
    profile = os.environ.get("DEPLOYR_PROFILE", "") if site is None else site.profile
    options = {**theme.options(), "server.address": host, "server.port": port}
    flags = {name.replace(".", "_"): value for name, value in options.items()}
    bootstrap.load_config_options(flag_options=flags)
    if sign_in not in set(SignInKind):
        raise CommandFailed(f"--sign-in: expected {', '.join(SignInKind)}")
    kind = SignInKind(sign_in)
    auth = _auth_section() if kind is SignInKind.ENTRA else {}
    to_app, authorization = os.environ.get("DEPLOYR_DASH_APP", ""), os.environ.get("DEPLOYR_DASH_AUTHORIZATION")
    try:
        how = SignIn(
            kind=kind,
            header=os.environ.get("DEPLOYR_DASH_USER_HEADER", "X-Forwarded-User"),
            secret=os.environ.get("DEPLOYR_DASH_PROXY_SECRET"),
            client_id=check_auth(auth) if kind is SignInKind.ENTRA else "",
            roles=frozenset(filter(None, map(str.strip, os.environ.get("DEPLOYR_DASH_ROLES", "").split(",")))),
        )
        check_start(how, is_production=profile == Profile.PROD, address=host)
        check_deeds(how, app=to_app, authorization=authorization, is_production=profile == Profile.PROD, auth=auth)
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    install(
        Sources(
            extract=extract,
            sign_in=how,
            now=SystemClock().now,
            plans=plans,
            packet=None if site is None else _reader(site),
            environment="" if site is None else site.environment,
            registry=None if settings is None else SiteRegistry(settings, environ=of_app, extract=extract, plans=plans),
            deeds=AppDeeds(to_app, key=os.environ.get("DEPLOYR_DASH_APP_KEY", "")) if to_app else None,
            authorization=authorization,
        )
    )
    Console().print(f"The dashboard is at http://{host}:{port}; Ctrl-C stops it.", highlight=False)
    bootstrap.run(app.__file__, False, [], flags)


def _auth_section() -> Mapping[str, object]:
    """Give how Streamlit signs people in, as its secrets say.

    Raises:
        CommandFailed: what it needs for that is not installed.
    """
    if find_spec("authlib") is None or find_spec("httpx") is None:
        raise CommandFailed("expected Authlib and httpx, which deployr[dash] installs")
    import streamlit
    from streamlit.errors import StreamlitSecretNotFoundError

    try:
        found: Mapping[str, object] = streamlit.secrets.get("auth", {})
    except StreamlitSecretNotFoundError:
        return {}
    return found


def _reader(site: Settings) -> Callable[[str], InferencePacket | None]:
    """Give what reads one packet of the site's store."""
    from deployr_cli.dash_store import in_store

    def read(packet_id: str) -> InferencePacket | None:
        async def ask(store: Store) -> InferencePacket | None:
            stored = await store.read(packet_id)
            return None if stored is None else stored.packet

        return in_store(site, ask)

    return read
