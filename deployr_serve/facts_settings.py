"""The settings of the facts vault: where kept facts are, and the keys that seal them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deployr_serve.auth_settings import Reader
from deployr_serve.core.sealing_keys import SealingKeys, read_sealing_keys
from deployr_serve.setting_values import existing_file, plain_url


@dataclass(frozen=True, kw_only=True, slots=True)
class FactsSettings:
    """``file``: a SQLite file; or ``blobs``: a storage connection string, or a storage account's blob address.

    ``identity``: the client id of a user-assigned identity, as the store's; None takes the system-assigned one.
    """

    file: Path | None
    blobs: str | None = field(repr=False)
    keys: SealingKeys
    identity: str | None


def read_facts(reader: Reader) -> FactsSettings | None:
    """Read them; None where no facts are kept. What is wrong stands in the reader's problems afterwards."""
    where: tuple[Path | None, str | None] | None = reader.read("DEPLOYR_FACTS_VAULT", _where, default=None)
    file = reader.read("DEPLOYR_FACTS_KEY_FILE", existing_file, default=None)
    keys = reader.read("DEPLOYR_FACTS_KEYS", read_sealing_keys, default=None)
    identity = reader.read("DEPLOYR_STORE_IDENTITY", str, default=None)
    if where is None:
        return None
    if (file is None) == (keys is None):
        expected = "expected either DEPLOYR_FACTS_KEYS or DEPLOYR_FACTS_KEY_FILE, to seal facts with"
        reader.problems.setdefault("DEPLOYR_FACTS_KEYS", expected)
        return None
    if file is not None:
        try:
            keys = read_sealing_keys(file.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            # A file that is no ASCII would be repeated in its error's message.
            told = str(error) if type(error) is ValueError else "expected a file of keys that can be read"
            reader.problems["DEPLOYR_FACTS_KEY_FILE"] = told
    return None if keys is None else FactsSettings(file=where[0], blobs=where[1], keys=keys, identity=identity)


def _where(text: str) -> tuple[Path | None, str | None]:
    kind, _, place = text.partition(":")
    if kind == "sqlite" and place:
        return Path(place), None
    if "AccountKey=" in text and ("AccountName=" in text):
        return None, text
    try:
        return None, plain_url(text).rstrip("/")
    except ValueError:
        raise ValueError(
            "expected sqlite: and the path of a file, a storage connection string, or a storage account's blob address"
        ) from None
