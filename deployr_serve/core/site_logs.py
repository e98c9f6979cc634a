"""Which site a log line is about, where several are served: every line that is written on its behalf ends with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any

_site: ContextVar[str | None] = ContextVar("deployr_site", default=None)


@contextmanager
def on_behalf_of(site: str) -> Iterator[None]:
    """Have what is logged inside, and in the tasks that are begun there, end with the site's name."""
    token = _site.set(site)
    try:
        yield
    finally:
        _site.reset(token)


def fresh_context() -> Context:
    """Give a context that holds nothing of who is being answered now, but for whose site it is."""
    context = Context()
    context.run(_site.set, _site.get())
    return context


def tell_sites() -> None:
    """Have every log line of this process say on whose behalf it is written; done twice it is done once."""
    made = logging.getLogRecordFactory()
    if isinstance(made, _Telling):
        return
    logging.setLogRecordFactory(_Telling(made))


class _Telling:
    """Makes log records as ever, and adds the site to their message.

    To the message, because a host passes on that alone.
    """

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*arguments, **named)
        site = _site.get()
        if site is not None:
            # A name has no percent sign, which would be taken for a place to fill.
            record.msg = f"{record.msg} site={site}"
        return record
