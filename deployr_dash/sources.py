"""What the pages read, given once when the dashboard starts; every page runs in that process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from deployr_core.packet import InferencePacket
from deployr_dash.deeds import SendsDeeds
from deployr_dash.registry import RegistryReader
from deployr_dash.sign_in import SignIn


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where everything comes from. Nothing here can write but ``deeds``, and that only under somebody's own proof.

    ``extract``: the folder of `deployr monitor extract`. ``now``: the time, by which sign-ins run out; figures are of
    the extract's. ``plans``: a folder with monitoring plans. ``packet``: reads
    one packet of the store by its id, None if there is none, and raises `StoreAway`; without it the explorer
    shows what the extract holds. ``environment``: the EMR's, as the settings name it; empty where nobody says.
    ``registry``: reads the site's registry; None without settings. ``deeds``: the way by which somebody's deeds reach
    the app, under their own proof; None where there is none. ``authorization``: the one proof of a machine of one's
    own; None where everybody has theirs.
    """

    extract: Path
    sign_in: SignIn
    now: Callable[[], datetime]
    plans: Path | None = None
    packet: Callable[[str], InferencePacket | None] | None = None
    environment: str = ""
    registry: RegistryReader | None = None
    deeds: SendsDeeds | None = None
    authorization: str | None = field(default=None, repr=False)


_installed: list[Sources] = []


def install(sources: Sources) -> None:
    """Say what the pages read, before the first is asked for."""
    _installed[:] = [sources]


def installed() -> Sources:
    """Give what the pages read.

    Raises:
        RuntimeError: nobody said; `deployr dash` does.
    """
    if not _installed:
        raise RuntimeError("expected the dashboard to be started by `deployr dash`")
    return _installed[0]
