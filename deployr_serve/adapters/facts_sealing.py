"""Seals kept facts: AES-256-GCM under the site's keys, each record bound to its packet and its digest.

A record names the key that sealed it, so that keys are rotated by adding one: the newest seals, all of them open. What
is sealed cannot be moved to another packet, nor changed, without being noticed.

Source: NIST SP 800-38D; a random nonce of 96 bits under one key is good for 2^32 records (section 8.3).
"""

from __future__ import annotations

import hashlib
import os
import zlib

from deployr_serve.core.facts_kept import FactsUnreadable
from deployr_serve.core.sealing_keys import SealingKeys

_FORMAT, _NONCE_BYTES = 1, 12
_LEVEL = 1
"""Facts are repetitive text: the fastest level makes a tenth of it, a higher one hardly less."""


def sealed(content: bytes, keys: SealingKeys, *, packet_id: str, digest: str) -> bytes:
    """Give a record that only who has the key can read: format, key id, nonce, and the content, packed and sealed."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key_id, nonce = keys.newest, os.urandom(_NONCE_BYTES)
    head = bytes((_FORMAT, len(key_id))) + key_id.encode()
    bound = _bound_to(head, packet_id, digest)
    return head + nonce + AESGCM(keys.keys[key_id]).encrypt(nonce, zlib.compress(content, _LEVEL), bound)


def opened(record: bytes, keys: SealingKeys, *, packet_id: str, digest: str) -> bytes:
    """Give the content of a record.

    Raises:
        FactsUnreadable: its key is not here, it was changed, or it is another packet's.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(record) < 2 or record[0] != _FORMAT:
        raise FactsUnreadable("expected a record as this version of deployr seals it")
    end = 2 + record[1]
    head, nonce, rest = record[:end], record[end : end + _NONCE_BYTES], record[end + _NONCE_BYTES :]
    key_id = head[2:].decode("ascii", errors="replace")
    key = keys.keys.get(key_id)
    if key is None:
        raise FactsUnreadable(f"expected the key {key_id!r}, which sealed it, among the site's keys")
    try:
        content = zlib.decompress(AESGCM(key).decrypt(nonce, rest, _bound_to(head, packet_id, digest)))
    except (InvalidTag, ValueError, zlib.error):
        raise FactsUnreadable("expected the record as it was sealed for this packet; it was changed or moved") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise FactsUnreadable("expected the facts that the packet names")
    return content


def _bound_to(head: bytes, packet_id: str, digest: str) -> bytes:
    return b"\0".join((b"deployr facts", head, packet_id.encode(), digest.encode()))
