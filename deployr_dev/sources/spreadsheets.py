"""Excel workbooks as CSV, so that they are typed by the same rules as every other extract."""

from __future__ import annotations

import csv
import warnings
import zipfile
from datetime import date, datetime, time
from pathlib import Path
from xml.etree.ElementTree import ParseError


class WorkbookInvalid(ValueError):
    """The workbook cannot be read as a table; the message says why and what to do, and names no value."""


def csv_of_workbook(path: Path, target: Path, *, sheet: str) -> Path:
    """Write one sheet as CSV: the one named like the table, in any case, else the only one.

    Rows without any value are left out. Numbers, dates and truth values are written as Excel holds them, not as it
    shows them.

    Raises:
        WorkbookInvalid: no workbook, several sheets of which none has the table's name, or a formula that has no value.
    """
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions that do not touch the values
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError, ParseError):
        raise WorkbookInvalid(
            "cannot be read: expected an Excel workbook (.xlsx); if it is another kind of file, rename it, or export it"
            " as CSV in UTF-8"
        ) from None
    try:
        names = {name.lower(): name for name in book.sheetnames}
        if sheet not in names and len(names) != 1:
            raise WorkbookInvalid(f"expected a sheet called {sheet}, or one sheet only, got {len(names)} sheets")
        rows = book[names.get(sheet, book.sheetnames[0])].iter_rows(values_only=True)
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            header = next(rows, ())
            while header and header[-1] is None:
                header = header[:-1]
            writer.writerow([_text(cell).strip() for cell in header])
            for row in rows:
                if any(cell is not None for cell in row):
                    cells = [_text(cell) for cell in row[: len(header)]]
                    writer.writerow([*cells, *[""] * (len(header) - len(cells))])
    except (zipfile.BadZipFile, EOFError, ParseError):
        raise WorkbookInvalid("cannot be read: the workbook is cut off or damaged; export it again") from None
    finally:
        book.close()
    return target


def _text(cell: object) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case datetime():
            return cell.isoformat(sep=" ", timespec="microseconds" if cell.microsecond else "seconds")
        case date() | time():
            return cell.isoformat()
        case float() if cell.is_integer() and abs(cell) < 1e15:
            return str(int(cell))
        case float():
            return repr(cell)
        case _:
            return str(cell)
