"""Which rows there are, group by group; a row without a file is missing, and `make faults` says so."""

from __future__ import annotations

from pathlib import Path

ROWS_FOLDER = Path(__file__).parent.parent / "rows"

TITLES: dict[str, dict[int, str]] = {
    "E": {
        75: "SMART discovery is absent, no JSON, elsewhere or unsuited",
        77: "The token endpoint asks to wait, rightly or wrongly",
        78: "The token answer is not a bearer token, or its life is odd",
        79: "Fewer scopes are granted than the model needs",
        81: "Many cold requests at once",
        82: "One client id, two tenants or two scopes",
        83: "The signed assertion meets the rules",
        85: "The signing key is rotated",
        86: "The private key cannot be used",
    },
    "F": {
        87: "No connection, no name, no trusted certificate",
        89: "Refusals and failures by status",
        90: "A success that is no whole JSON",
        91: "A success whose root is an OperationOutcome",
        93: "Another resource than was asked for",
        94: "Another patient, or one merged into another",
        95: "A resource about somebody else, or about nobody",
        97: "The next page is elsewhere",
        98: "Pages that do not end",
        99: "Fewer entries than the server counts",
        101: "The same result twice",
        102: "Statuses that mean: not so",
        103: "Units",
        105: "Values that cannot be",
        106: "Dates of every precision",
        107: "Codes of other systems, or none",
        109: "A restricted patient",
        110: "An empty record",
        111: "More bytes or entries than any honest answer",
        113: "A medication on another server",
        114: "A stale replica or a cached answer",
        115: "Contradictory and circular identities within an answer",
    },
}
"""The rows of each group done so far, by number; the titles are ours."""


def row_file(group: str, number: int) -> Path | None:
    """Give the row's file, or None if it has not been written."""
    return next(iter((ROWS_FOLDER / group).glob(f"{number:03d}-*.yaml")), None)
