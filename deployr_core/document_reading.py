"""A document's bytes as text or as grey pixels: bytes in, text or numbers out, in training as in service.

What cannot be read is refused with a code, and never with a piece of what it holds.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_TEXT_CODECS = {
    "utf-8": "utf-8-sig",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "iso-8859-1",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
}
_UNSEEN = frozenset({"head", "script", "style", "template", "noscript"})
_WITHIN_A_WORD = frozenset({"a", "b", "big", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "u"})
_GREY_ENOUGH = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Modes whose pixels have 8 bits; of others, Pillow would cut the bright ones off."""


class DocumentUnreadable(ValueError):
    """The document cannot be read; ``why`` is a code that is counted in the coverage."""

    def __init__(self, why: str) -> None:
        super().__init__(f"expected a document that can be read: {why}")
        self.why = why


class ReaderMissing(RuntimeError):
    """What reads such documents is not installed here."""


def text_of(content: bytes, content_type: str, *, charset: str = "") -> str:
    """Give the text of a note, without markup.

    Args:
        content: the bytes.
        content_type: ``text/plain`` or ``text/html``.
        charset: as its type's parameter says; none is UTF-8.

    Raises:
        DocumentUnreadable: not text of that charset, or of one that is not read, or empty.
    """
    codec = _TEXT_CODECS.get(charset.lower() or "utf-8")
    if codec is None:
        raise DocumentUnreadable("other_charset")
    try:
        text = content.decode(codec)
    except UnicodeError:
        raise DocumentUnreadable("not_text") from None
    text = _without_markup(text) if content_type == "text/html" else text
    if not text.strip():
        raise DocumentUnreadable("empty")
    return text


def grey_pixels(content: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Unpack a PNG or a JPEG, upright as its camera says, transparency left out; shape (height, width).

    Raises:
        DocumentUnreadable: neither of the two, cut off, of more than ``max_pixels``, or of more than 8 bits a channel.
        ReaderMissing: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ReaderMissing("expected the packages of deployr[images]") from None

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            # Only the header has been read so far.
            if image.width * image.height > max_pixels:
                raise DocumentUnreadable("too_many_pixels")
            if image.mode not in _GREY_ENOUGH:
                raise DocumentUnreadable("other_mode")
            return np.asarray(ImageOps.exif_transpose(image).convert("L"), dtype=np.uint8)
    except DocumentUnreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DocumentUnreadable("too_many_pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error):
        # Its message may repeat bytes of the picture.
        raise DocumentUnreadable("not_an_image") from None


def _without_markup(text: str) -> str:
    from lxml import etree

    parser = etree.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(text.encode("utf-8", errors="replace"), parser)
    except (etree.LxmlError, ValueError):
        raise DocumentUnreadable("not_html") from None
    if any(error.level_name == "FATAL" for error in parser.error_log):
        # Such as nested too deeply: the parser ends there, and what it has read would pass for the whole note.
        raise DocumentUnreadable("not_html")
    if root is None:
        return ""
    # Two words in two cells of a table are two words; a bold letter does not end one.
    said: list[str] = []
    inside = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        gap = "" if element.tag in _WITHIN_A_WORD else " "
        if event == "start":
            inside += element.tag in _UNSEEN
            said.append(gap if inside else gap + (element.text or ""))
        else:
            inside -= element.tag in _UNSEEN
            said.append(gap if inside else gap + (element.tail or ""))
    return "".join(said)
