"""`deployr dash`: the dashboard, over an extract that is already there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from deployr_cli.failures import CommandFailed
from deployr_cli.site_settings import settings_values
from deployr_core.packet import InferencePacket
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.core.errors import StoreUnavailable
from deployr_serve.settings import Profile, Settings, read_settings
from deployr_serve.store_bootstrap import open_store
from deployr_serve.store_settings import InFile, InMemory


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

    from deployr_dash import app, theme
    from deployr_dash.sign_in import SignIn, SignInKind, check_auth, check_start
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
    try:
        how = SignIn(
            kind=kind,
            header=os.environ.get("DEPLOYR_DASH_USER_HEADER", "X-Forwarded-User"),
            secret=os.environ.get("DEPLOYR_DASH_PROXY_SECRET"),
            client_id=check_auth(_auth_section()) if kind is SignInKind.ENTRA else "",
            roles=frozenset(filter(None, map(str.strip, os.environ.get("DEPLOYR_DASH_ROLES", "").split(",")))),
        )
        check_start(how, is_production=profile == Profile.PROD, address=host)
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
    """Give what reads one packet of the site's store, opened for that and closed again; it never writes."""
    from deployr_dash.sources import PacketUnavailable

    def read(packet_id: str) -> InferencePacket | None:
        match site.store:
            case InMemory():
                raise PacketUnavailable("DEPLOYR_STORE is memory, which is one process's own.")
            case InFile(file=file) if not file.is_file():
                # SQLite would make an empty one.
                raise PacketUnavailable("DEPLOYR_STORE names a file that is not there.")

        async def ask() -> InferencePacket | None:
            store = open_store(site.store, clock=SystemClock(), deadline_s=site.deadline_s)
            try:
                stored = await store.read(packet_id)
            finally:
                await store.aclose()
            return None if stored is None else stored.packet

        try:
            return asyncio.run(ask())
        except StoreUnavailable:
            raise PacketUnavailable("look at DEPLOYR_STORE and at whether it runs.") from None

    return read
