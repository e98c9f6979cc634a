"""A site's settings for a command line: a file, and the environment over it; of several, the site that is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployr_cli.failures import CommandFailed
from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.local_settings import read_local_settings
from deployr_serve.sites_settings import AT, SITES, site_names, site_values


def settings_values(file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the settings by name; the environment wins over the file, None takes the environment alone.

    Where they say that several sites are served, what is given is of the one that ``DEPLOYR_AT`` names, and nothing of
    another's.

    Raises:
        CommandFailed: there is no such file, it cannot be read, or of several sites none is named.
        SettingsInvalid: there is no such site, or its settings cannot be read.
    """
    values = app_values(file, environ)
    if not values.get(SITES):
        return values
    names = site_names(values)
    if not values.get(AT):
        raise CommandFailed(f"several sites are served here: say which, as in deployr --at {names[0]} COMMAND")
    return site_values(values[AT], values)


def app_values(file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the settings by name as the app has them, of several sites as of one.

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
