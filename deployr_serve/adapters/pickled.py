"""Deserialises the one kind of model that runs code. Reached only where the site allows it, and after the digest."""

from __future__ import annotations

import io
import pickle
from importlib.metadata import PackageNotFoundError, version

from deployr_core.bundle import BundleInvalid, Manifest
from deployr_core.model_format import JOBLIB_FILE

_MUST_MATCH = ("scikit-learn", "numpy")


def load_estimator(manifest: Manifest, content: bytes) -> object:
    """Load an estimator from the bytes of a joblib file, whose digest the caller has checked.

    scikit-learn only warns when another version of it reads what one has written, and may then score differently; here
    the versions that the manifest names must be the installed ones, or nothing is loaded.

    Raises:
        BundleInvalid: a library is missing or has another version, or the bytes cannot be loaded.
    """
    for library in _MUST_MATCH:
        trained_with = manifest.training.library_versions.get(library)
        if trained_with is not None and _installed(library) != trained_with:
            raise BundleInvalid(
                f"{JOBLIB_FILE}: expected {library} {trained_with}, which it was trained with; "
                f"{_installed(library) or 'none'} is installed here"
            )
    try:
        import joblib
    except ImportError as error:
        raise BundleInvalid(
            f"{JOBLIB_FILE}: expected joblib to be installed, to load a model that runs code"
        ) from error
    try:
        estimator: object = joblib.load(io.BytesIO(content))
    except (
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise BundleInvalid(f"{JOBLIB_FILE}: expected an estimator saved by joblib ({type(error).__name__})") from error
    return estimator


def _installed(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
