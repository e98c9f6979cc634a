"""How this app speaks TLS to whomever: 1.2 or later, with certificates that are always verified."""

from __future__ import annotations

import ssl
from pathlib import Path


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Give what connections are made with. ``ca_file``: a hospital's own authority (PEM), besides the system's.

    Raises:
        OSError, ssl.SSLError: the file cannot be read, or holds no certificates.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
