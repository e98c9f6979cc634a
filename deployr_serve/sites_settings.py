"""The settings of several sites in one app: a folder with a file for each, and nothing that one has from another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployr_serve.core.errors import SettingsInvalid
from deployr_serve.local_host.errors import HostSetupError
from deployr_serve.local_host.local_settings import read_local_settings
from deployr_serve.settings import Settings, read_settings
from deployr_serve.sites_apart import in_common

SITES, AT = "DEPLOYR_SITES", "DEPLOYR_AT"
OF_THE_APP = ("DEPLOYR_PROFILE", "AzureWebJobsStorage", "AzureWebJobsStorage__queueServiceUri")
"""What the environment says for all sites alike, and none for itself. The last two are where the host keeps its queues;
a message in them is a number of a chunk, and of nobody."""

_SUFFIX = ".settings.json"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_LONGEST = 30
"""Names of queues and of functions are made of it; a queue's is lower-case, and 63 characters at most."""
_OWN = re.compile(r"([A-Z][A-Z0-9_]*)__(?:DEPLOYR_|APPLICATIONINSIGHTS_)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sites:
    """The sites of a folder by name. ``refused``: those whose settings cannot be used, each with why.

    ``unread``: the names of settings in the environment that are no site's and not the app's.
    """

    settings: Mapping[str, Settings]
    refused: Mapping[str, str]
    unread: tuple[str, ...]


def read_sites(environ: Mapping[str, str]) -> Sites:
    """Read the settings of every site.

    Where the environment says ``DEPLOYR_AT``, only that one is given, compared with all others as ever.

    Raises:
        SettingsInvalid: there is no such folder, or no site in it.
    """
    names = site_names(environ)
    found: dict[str, Settings] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            found[name] = read_settings(site_values(name, environ))
        except SettingsInvalid as error:
            refused[name] = str(error)
        except Exception as error:  # noqa: BLE001 whatever is wrong with one site's files, the others are read
            refused[name] = f"settings: {type(error).__name__}"
    for name, problems in in_common(found).items():
        refused[name] = "settings: " + "; ".join(f"{setting}: {text}" for setting, text in problems.items())
    wanted = (environ[AT],) if environ.get(AT) else names
    return Sites(
        settings={name: settings for name, settings in found.items() if name not in refused and name in wanted},
        refused={name: why for name, why in refused.items() if name in wanted},
        unread=_unread(environ, names),
    )


def site_names(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Give the names of the sites in the folder that the environment names, in order.

    Raises:
        SettingsInvalid: there is no such folder, no site in it, or ``DEPLOYR_AT`` is none of them.
    """
    folder = Path(environ.get(SITES, ""))
    names = tuple(sorted(file.name.removesuffix(_SUFFIX) for file in folder.glob(f"*{_SUFFIX}")))
    if not names:
        raise SettingsInvalid(f"settings: {SITES}: expected a folder with a NAME{_SUFFIX} for each site")
    wrong = [name for name in names if not _NAME.match(name) or len(name) > _LONGEST]
    if wrong:
        expected = f"expected names of up to {_LONGEST} lower-case letters, digits and hyphens, such as north"
        raise SettingsInvalid(f"settings: {SITES}: {expected}; got {', '.join(wrong)}")
    if environ.get(AT) and environ[AT] not in names:
        raise SettingsInvalid(f"settings: {AT}: expected one of {', '.join(names)}, got {environ[AT]}")
    return names


def site_values(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the settings of one site by name: its file's, and over them the environment's that begin with its name.

    Of what else the environment says only `OF_THE_APP` is a site's too. So secrets need not stand in files, and none of
    them reaches another site.

    Raises:
        SettingsInvalid: the file cannot be read, or says what is the app's alone.
    """
    try:
        values = dict(read_local_settings(Path(environ[SITES]) / f"{name}{_SUFFIX}"))
    except HostSetupError as error:
        raise SettingsInvalid(f"settings: {SITES}: {error}") from None
    prefix = own_prefix(name)
    values |= {key.removeprefix(prefix): value for key, value in environ.items() if key.startswith(prefix)}
    told = sorted({*OF_THE_APP, SITES, AT} & {key for key, value in values.items() if value})
    if told:
        raise SettingsInvalid(f"settings: {', '.join(told)}: expected in the app's environment, for all sites alike")
    # What a copy of the example leaves empty is not said.
    values |= {key: environ[key] for key in OF_THE_APP if environ.get(key)}
    return {**values, "DEPLOYR_SITE": values.get("DEPLOYR_SITE") or name, SITES: environ[SITES], AT: name}


def own_prefix(name: str) -> str:
    """Give what begins the names of a site's own settings in the environment, such as ``NORTH__``."""
    return name.upper().replace("-", "_") + "__"


def _unread(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, ...]:
    prefixes = {own_prefix(name) for name in names}
    read = {SITES, AT, *OF_THE_APP}
    of_nobody = []
    for key in environ:
        own = _OWN.match(key)
        is_stray = key.startswith("DEPLOYR_") and key not in read and not key.startswith("DEPLOYR_HOST_")
        if is_stray or (own is not None and f"{own[1]}__" not in prefixes):
            of_nobody.append(key)
    return tuple(sorted(of_nobody))
