"""Which errors a command line foresees, and how it says them: one line, and what to do next."""

from __future__ import annotations


class CommandFailed(Exception):
    """Something that the command needs is not there or did not work; the message says what to do."""


def is_expected(error: Exception) -> bool:
    """True if it was foreseen: our own refusals are ValueErrors, made to be read; OSErrors name the file."""
    # With it comes much of serving, which the help of a command does not need.
    from deployr_serve.core.errors import SettingsInvalid

    return isinstance(error, CommandFailed | SettingsInvalid | ValueError | OSError)


def explain(error: BaseException) -> str:
    """Give the error as one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
