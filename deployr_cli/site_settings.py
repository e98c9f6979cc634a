"""A site's settings for a command line: a file, and the environment over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployr_cli.failures import CommandFailed
from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.local_settings import read_local_settings


def settings_values(file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the settings by name; the environment wins over the file, None takes the environment alone.

    Raises:
        CommandFailed: there is no such file, or it cannot be read.
    """
    if file is None:
        return dict(environ)
    if not file.is_file():
        raise CommandFailed(f"{file}: no such file")
    try:
        return {**read_local_settings(file), **environ}
    except HostSetupError as error:
        raise CommandFailed(str(error)) from None
