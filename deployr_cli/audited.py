"""What an operator does at a command line is written down like what a caller asks: who, when, what came of it."""

from __future__ import annotations

import getpass
from collections.abc import Mapping

from deployr_cli.failures import CommandFailed
from deployr_serve.adapters.clock import SystemClock
from deployr_serve.audit_bootstrap import audit_of
from deployr_serve.core.audit import Act, Ending, of_operator
from deployr_serve.settings import Settings


def who(by: str | None) -> str:
    """Give whoever decided it; None: who is logged in here.

    Raises:
        CommandFailed: nobody's name is known.
    """
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        raise CommandFailed("--by: expected who decided it; nobody's name is known here") from None


def write_down(
    settings: Settings,
    act: Act,
    *,
    by: str,
    said: str,
    ending: Ending = Ending.SUCCESS,
    patient_hash: str = "",
    packet_id: str = "",
    model_id: str = "",
    details: Mapping[str, str] | None = None,
    must: bool = False,
) -> None:
    """Write an act down, on the disk when this returns; where no audit is kept, nothing is.

    Raises:
        CommandFailed: it could not be written; or it ``must`` be, and no audit is kept.
    """
    clock = SystemClock()
    audit = audit_of(settings.audit, site=settings.site, environment=settings.environment, clock=clock, transport=None)
    if audit is None:
        if must:
            raise CommandFailed("DEPLOYR_AUDIT: expected folder: and the path of a folder; this must leave a record")
        return
    record = of_operator(
        act,
        at=clock.now(),
        by=by,
        said=said,
        ending=ending,
        patient_hash=patient_hash,
        packet_id=packet_id,
        model_id=model_id,
        details=details,
    )
    audit.folder.record(record)
    audit.folder.close()
    if audit.folder.waiting:
        raise CommandFailed(f"DEPLOYR_AUDIT: {audit.folder.folder}: expected a folder that can be written")
