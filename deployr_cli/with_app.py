"""The site's app, put together for one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from deployr_cli.progress import Tell, bar
from deployr_cli.site_settings import settings_values
from deployr_serve.bootstrap import Application, build
from deployr_serve.settings import Settings, read_settings

_T = TypeVar("_T")


def with_app(
    settings_file: Path | None,
    environ: Mapping[str, str],
    work: Callable[[Settings, Application, Tell], Awaitable[_T]],
    *,
    console: Console,
    title: str,
) -> _T:
    """Do something with the app of these settings, beside a bar with that title, and close it."""
    site = read_settings(settings_values(settings_file, environ))

    async def go() -> _T:
        application = build(site)
        try:
            with bar(console, title) as tell:
                return await work(site, application, tell)
        finally:
            await application.aclose()

    return asyncio.run(go())
