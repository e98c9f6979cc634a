"""What monitoring reads of a replay's store, and the command that shows it in a browser."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from deployr_cli.demo.processes import SETTINGS_FILE
from deployr_cli.monitor import brought_up_to_date
from deployr_cli.site_settings import settings_values
from deployr_cli.workspaces import as_called, as_typed
from deployr_serve.settings import read_settings

EXTRACT = "monitor"
"""The extract's folder in a workspace."""


def monitored(workspace: Path, *, console: Console, reports: str | None = None) -> str | None:
    """Extract what the replay left in a workspace's store, as of the instant at which it ended.

    Args:
        workspace: of the replay.
        console: where progress is shown.
        reports: the folder in the workspace with training's reports, whose curves stand beside those in service.

    Returns:
        The command that opens the dashboard on it, to be typed here; None where no dashboard is installed.

    Raises:
        CommandFailed: the store does not answer.
    """
    if find_spec("streamlit") is None:
        return None
    site = read_settings(settings_values(workspace / SETTINGS_FILE, {}))
    brought_up_to_date(site, workspace / EXTRACT, console=console)
    place = as_typed(workspace)
    command = [as_called(), "dash", f"{place / EXTRACT}"]
    if reports is not None:
        command += ["--plans", f"{place / reports}"]
    return shlex.join([*command, "--settings", f"{place / SETTINGS_FILE}"])
