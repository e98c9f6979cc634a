"""Which rows there are, group by group; a row without a file is missing, and `make faults` says so."""

from __future__ import annotations

from pathlib import Path

ROWS_FOLDER = Path(__file__).parent.parent / "rows"

TITLES: dict[str, dict[int, str]] = {
    "A": {
        1: "A call without proof of who calls",
        2: "A token without a signature",
        3: "A token signed with the public key as a shared secret",
        5: "Keys named at an address that is no web server",
        6: "Keys named at another place than the configured one",
        7: "An issuer that is not configured to the letter",
        9: "A token that has just expired",
        10: "A token that lives too long",
        11: "An expiry that is no whole number",
        13: "A token id that cannot be one",
        14: "A token used again",
        15: "The store of used tokens is down",
        17: "The key set cannot be had, or cannot be used",
        18: "A critical header that nobody understands",
        19: "Something that is no token",
        21: "A function key without an identity",
        22: "Basic credentials that are not the right ones",
        23: "A forged client certificate header",
        25: "A correlation id that could break a line",
        26: "One tenant's token on another's route",
        27: "One caller's flood",
    },
    "C": {
        45: "An entity that stands for something elsewhere",
        46: "Any DOCTYPE",
        47: "References that another reader would fetch",
        49: "Something that is no XML in the encoding that it declares",
        50: "The wrong root or namespace, and the right one under any prefix",
        51: "Nobody, or several, or somebody under an unknown root",
        53: "What the document says that it does not know",
        54: "Times of every precision",
        55: "In an envelope",
        57: "Text that names somebody else than the header",
        58: "The same document several times",
        59: "Anything that fails behind it",
    },
    "D": {
        61: "Another path or method than there is",
        62: "Another hook than the service's, or an odd instance of it",
        63: "A context that lacks what the hook promises",
        65: "Another FHIR server than the configured one",
        66: "A FHIR server without TLS",
        67: "Facts handed over that are missing, odd, or somebody else's",
        69: "What was handed over and the EMR disagree on who this is",
        70: "The EMR is slower than the deadline",
        71: "Words that must not become HTML",
        73: "Twelve services of one hook instance at once",
        74: "A token of the public sandbox",
    },
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
    "G": {
        117: "The identifiers of the one who was scored lead to several, to nobody, or elsewhere",
        118: "A success whose body says that it failed",
        119: "The answer is lost after the EMR took the score",
        121: "The EMR refuses the score for good",
        122: "A FHIR server that does not know conditional create",
        123: "The worker dies between the EMR's answer and its own note of it",
        125: "A packet of another environment",
        126: "A score that is no number to be shown",
        127: "Two scores out of order",
        129: "An address on another host for what was created",
    },
}
"""The rows of each group done so far, by number; the titles are ours."""


def row_file(group: str, number: int) -> Path | None:
    """Give the row's file, or None if it has not been written."""
    return next(iter((ROWS_FOLDER / group).glob(f"{number:03d}-*.yaml")), None)
