"""Which errors a command line foresees, and how it says them: one line, and what to do next."""

from __future__ import annotations

from deployr_serve.core.errors import SettingsInvalid


class CommandFailed(Exception):
    """Something that the command needs is not there or did not work; the message says what to do."""


EXPECTED = (CommandFailed, SettingsInvalid, ValueError, OSError)
"""Our own refusals are ValueErrors with a message made to be read; OSErrors name the file."""


def explain(error: BaseException) -> str:
    """Give the error as one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
