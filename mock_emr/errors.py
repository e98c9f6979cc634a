"""Error bodies that are no OperationOutcome: the vendor's, OAuth's, the admin's."""

from __future__ import annotations

import msgspec

from mock_emr.exchange import JSON, Answer

NOT_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def vendor_error(status: int, what: str) -> Answer:
    """Give an Epic web service's error; ``what`` is its code, with details where there are any.

    Source: the members and `An error occurred while executing the command:` from ADDFLOWSHEETVALUE's recorded errors,
    wire-formats.md section 3 [seen]; that the score service answers likewise is [assumed].
    """
    body = {
        "Message": "An error has occurred.",
        "ExceptionMessage": f"An error occurred while executing the command: {what}.",
        "ExceptionType": "Epic.ServiceModel.Internal.ServiceCommandException",
        "StackTrace": None,
        "InnerException": None,
    }
    return Answer(status=status, body=msgspec.json.encode(body), media_type=JSON)


def oauth_error(status: int, error: str, description: str) -> Answer:
    """Give the token endpoint's error. Source: RFC 6749 section 5.2."""
    body = {"error": error, "error_description": description}
    return Answer(status=status, body=msgspec.json.encode(body), media_type=JSON, headers=NOT_KEPT)
