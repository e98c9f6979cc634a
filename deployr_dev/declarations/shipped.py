"""The shipped feature declarations, by name."""

from __future__ import annotations

from pathlib import Path

from deployr_core.features import DeclarationInvalid, FeatureSpec, parse_feature_spec
from deployr_dev.groupings import MappingFileInvalid, resolve_mappings

_SHIPPED = Path(__file__).parent


def load_declaration(path: Path) -> FeatureSpec:
    """Read a declaration file.

    Raises:
        DeclarationInvalid: cannot be read, not JSON, or not a declaration; the message names the file and the place.
    """
    try:
        return resolve_mappings(parse_feature_spec(path.read_bytes()), beside=path.parent)
    except OSError as error:
        raise DeclarationInvalid(f"{path}: cannot be read ({error.strerror})") from None
    except MappingFileInvalid as error:
        raise DeclarationInvalid(f"{path}: {error}") from None
    except DeclarationInvalid as error:
        raise DeclarationInvalid(f"{path}: {error}") from None


def shipped_declaration_names() -> tuple[str, ...]:
    """Name the shipped declarations."""
    return tuple(sorted(file.stem for file in _SHIPPED.glob("*.json")))


def shipped_declaration(name: str) -> FeatureSpec:
    """Read a shipped declaration; it is not fitted yet.

    Raises:
        DeclarationInvalid: none of that name is shipped.
    """
    if name not in shipped_declaration_names():
        raise DeclarationInvalid(
            f"expected a shipped declaration ({', '.join(shipped_declaration_names())}), got {name!r}"
        )
    return load_declaration(_SHIPPED / f"{name}.json")
