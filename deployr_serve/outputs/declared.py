"""What a site says about its ways out: one file, with one entry for each output that needs more than its name.

What belongs to one model, such as its flowsheet row, stands in a mapping by model id.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

SCHEMA_VERSION = 1


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class FlowsheetOutput(_Declared, frozen=True, kw_only=True):
    """Where scores are filed as flowsheet rows.

    ``rows``: the row's id for each model. ``template``: in which template, by its id; None names none.
    """

    rows: Mapping[str, str]
    row_type: str = "EXTERNAL"
    template: str | None = None
    template_type: str = "EXTERNAL"


class SmartDataContext(StrEnum):
    """What a SmartData element hangs on."""

    PATIENT = "PATIENT"
    ENCOUNTER = "ENCOUNTER"


class SmartDataEncoding(StrEnum):
    """``list``: the REST interface's way to write values in JSON. ``wrapped``: the way that mirrors its XML."""

    LIST = "list"
    WRAPPED = "wrapped"


class SmartDataOutput(_Declared, frozen=True, kw_only=True):
    """Which SmartData element each model's score is set in. ``source``: who set it, as the EMR shows it."""

    elements: Mapping[str, str]
    element_type: str = "SDI"
    context: SmartDataContext = SmartDataContext.ENCOUNTER
    encoding: SmartDataEncoding = SmartDataEncoding.LIST
    source: str = "Web Service"


class Recipient(_Declared, frozen=True, kw_only=True):
    """A user, or a pool of users, by the id that the site's interfaces use."""

    id: str
    is_pool: bool = True


class TextForm(StrEnum):
    """``lines``: a list of lines, as newer versions take it. ``text``: one string."""

    LINES = "lines"
    TEXT = "text"


class InBasketOutput(_Declared, frozen=True, kw_only=True):
    """Who gets a message about a score. ``message_type`` must be on the EMR's safelist for this client."""

    recipients: tuple[Recipient, ...]
    sender_id: str
    sender_type: str = "External"
    message_type: str = "Staff Message"
    priority: str | None = None
    text_form: TextForm = TextForm.LINES

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("expected at least one recipient")


class ObservationOutput(_Declared, frozen=True, kw_only=True):
    """Which flowsheet row each model's score is filed in through FHIR."""

    rows: Mapping[str, str]


class CommunicationOutput(_Declared, frozen=True, kw_only=True):
    """Who a Communication is for: FHIR references, such as ``Practitioner/eM5CWtq15N0WJeuCet5bJlQ3``."""

    recipients: tuple[str, ...] = ()


class FileFormat(StrEnum):
    """How files are written."""

    CSV = "csv"
    PARQUET = "parquet"


class FileDropOutput(_Declared, frozen=True, kw_only=True):
    """Where files are left for a job of the site's. The folder exists already: it may be a share, not mounted yet."""

    folder: str
    format: FileFormat = FileFormat.CSV


class WebhookOutput(_Declared, frozen=True, kw_only=True):
    """Where events are posted. The key that signs them stands in the settings, not here."""

    url: str


class Outputs(_Declared, frozen=True, kw_only=True, rename="kebab"):
    """The whole file. An output that is named in the settings and needs an entry must have one."""

    schema_version: int = msgspec.field(name="schema_version")
    flowsheet: FlowsheetOutput | None = None
    smart_data: SmartDataOutput | None = None
    in_basket: InBasketOutput | None = None
    observation: ObservationOutput | None = None
    communication: CommunicationOutput | None = None
    file_drop: FileDropOutput | None = None
    webhook: WebhookOutput | None = None

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}")


NO_OUTPUTS = Outputs(schema_version=SCHEMA_VERSION)
