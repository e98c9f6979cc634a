"""The folder that a command works in: its own, and emptied only if it is; and what to type next."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from deployr_cli.failures import CommandFailed

EXTRACT_FOLDER = Path(".deployr/monitor")
"""Where the extract of `deployr monitor extract` lies if nobody says otherwise."""


def extract_of(named: Path | None) -> Path | None:
    """Give the extract that was named, else the one that lies where it does if nobody says otherwise, if any does."""
    return named or (EXTRACT_FOLDER if EXTRACT_FOLDER.is_dir() else None)


def fresh_workspace(workspace: Path, *, of: str) -> Path:
    """Clear the workspace of what the same command left there, and of nothing else; give its absolute path.

    Args:
        workspace: made where it is not there.
        of: the command, such as ``demo``.

    Raises:
        CommandFailed: there is something else in it.
    """
    marker = workspace / f".deployr-{of}"
    if workspace.exists() and any(workspace.iterdir()):
        if not marker.exists():
            raise CommandFailed(
                f"{workspace}: expected an empty folder or an earlier {of}'s; choose another --workspace"
            )
        shutil.rmtree(workspace)
    workspace.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return workspace.resolve()


def as_called() -> str:
    """Give how to call `deployr` again: by its name, or by the path by which it was called where a shell lacks that."""
    program = Path(sys.argv[0])
    if program.name != "deployr":
        return "deployr"
    found = shutil.which("deployr")
    return "deployr" if found is not None and program.exists() and program.samefile(found) else str(program)


def as_typed(folder: Path) -> Path:
    """Give the path as short as it can be typed from here."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
