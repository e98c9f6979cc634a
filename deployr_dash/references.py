"""Reference periods of an extract: one a bundle, kept beside what its bundle says."""

from __future__ import annotations

from pathlib import Path

from deployr_core.monitoring.drift_reference import ReferencePeriod
from deployr_dash.parts import MODELS, aside

REFERENCE_FILE = "drift-reference.json"


def write_reference(folder: Path, reference: ReferencePeriod) -> Path:
    """Keep a reference period for its bundle, in the place of an earlier one."""
    place = reference_file(folder, reference.bundle_sha256)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with aside(place) as part:
        part.write_bytes(reference.to_json())
    return place


def read_reference(folder: Path, bundle_sha256: str) -> ReferencePeriod | None:
    """Give a bundle's reference period; None where there is none.

    Raises:
        ReferenceInvalid: the file cannot be read.
        ReferenceOfAnotherBundle: it was put there for another bundle.
    """
    try:
        content = reference_file(folder, bundle_sha256).read_bytes()
    except FileNotFoundError:
        return None
    reference = ReferencePeriod.from_json(content)
    reference.expect_bundle(bundle_sha256)
    return reference


def reference_file(folder: Path, bundle_sha256: str) -> Path:
    """Give where a bundle's reference period is, or is to be."""
    return folder / MODELS / bundle_sha256 / REFERENCE_FILE
