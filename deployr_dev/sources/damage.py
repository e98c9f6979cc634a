"""What is wrong with a CSV file that could not be read: where, and what to do about it."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

_GZIP = b"\x1f\x8b"


def what_is_wrong(path: Path) -> str | None:
    """Give the first fault of a CSV file, plain or gzipped, in words that name the row and no value.

    The row under the header is row 1. None if this reader finds none.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if path.suffix == ".gz" and start != _GZIP:
        return "cannot be read: expected a gzip file, as its name says; rename it, or compress it"
    try:
        with _opened(path) as lines:
            return _first_fault(lines)
    except (OSError, EOFError, zlib.error):
        return "cannot be read: the gzip file is cut off or damaged; copy or export it again"


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _first_fault(lines: BinaryIO) -> str | None:
    decoded = _Decoded(lines)
    rows = csv.reader(iter(decoded))
    try:
        header = next(rows, [])
        for number, row in enumerate(rows, start=1):
            if row and len(row) != len(header):
                return (
                    f"cannot be read: expected {len(header)} values in row {number}, got {len(row)};"
                    " was the file cut off, or a comma or line break left unquoted?"
                )
    except UnicodeDecodeError:
        return (
            f"cannot be read: line {decoded.line} is not UTF-8 but perhaps Latin-1 or Windows-1252; save the file as"
            " UTF-8, such as with iconv -f WINDOWS-1252 -t UTF-8"
        )
    except csv.Error:
        return f"cannot be read: line {decoded.line} is not CSV; is a quotation mark left open?"
    return None


class _Decoded:
    """Lines of text, with the number of the one that was read last."""

    def __init__(self, lines: BinaryIO) -> None:
        self._lines = lines
        self.line = 0

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._lines, start=1):
            self.line = number
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
