"""XML from strangers, read without trust: bytes to an element tree, or a refusal. Nothing is ever fetched or expanded.

Only the text and its own markup count: a DOCTYPE is refused before anything is parsed, so that there are no entities,
and XInclude, ``xml-stylesheet`` and ``xsi:schemaLocation`` are never acted on.

Source: XML 1.0, sections 2.8 and 4.3.3; RFC 7303, section 3 (a byte order mark before a charset before a declaration).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from deployr_serve.core.errors import MalformedRequest, RequestTooLarge

MAX_BYTES = 1_000_000
"""A document that an alert sends has some 30 KB; one of a long stay a few hundred."""
MAX_MARKS = 60_000
"""How many ``<`` and how many ``=`` there may be: each may become a node, and nodes are what memory goes into."""

Path = Callable[[Any], Any]
"""A compiled XPath: from an element to what it selects there."""

_DECLARATION = re.compile(r"<\?xml\s[^>]*?\?>")
_ENCODING = re.compile(r"""encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_BEFORE_ROOT = re.compile(r"(?:\s+|<!--.*?-->|<\?.*?\?>)*", re.DOTALL)
_XSLT = "http://www.w3.org/1999/XSL/Transform"
_EXTENSIONS = (
    "http://exslt.org/",
    "http://xmlsoft.org/",
    "http://icl.com/saxon",
    "http://www.jclark.com/xt",
)
_DOCUMENT = re.compile(r"\bdocument\s*\(")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document may hold. Source: XML 1.0, section 2.2."""
_LITERAL = re.compile(r"""'[^']*'|"[^"]*\"""")
_CALLED = re.compile(r"([\w.:-]+)\s*\(")
_FUNCTIONS = re.compile(
    r"(last|position|count|local-name|namespace-uri|name|string|concat|starts-with|contains|substring-before"
    r"|substring-after|substring|string-length|normalize-space|translate|boolean|not|true|false|lang|number|sum|floor"
    r"|ceiling|round|text|node|and|or|div|mod)\Z"
)
"""Source: XPath 1.0, section 4; node tests and operators, which look like calls, are among them."""
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: ("utf-8-sig", {"utf-8"}),
    codecs.BOM_UTF16_LE: ("utf-16", {"utf-16", "utf-16-le"}),
    codecs.BOM_UTF16_BE: ("utf-16", {"utf-16", "utf-16-be"}),
}
_WITHOUT_MARK = {"utf-8": "utf-8", "ascii": "ascii", "iso8859-1": "iso8859-1", "cp1252": "cp1252"}


def read_xml(body: bytes, *, charset: str | None = None) -> Any:
    """Read a document; give its root element, without comments and processing instructions.

    UTF-8, UTF-16 with its byte order mark, US-ASCII, ISO-8859-1 and Windows-1252 are read, as declared.

    Args:
        body: the document as it came.
        charset: the one of its Content-Type, if any.

    Raises:
        RequestTooLarge: more bytes, or more markup, than any honest document.
        MalformedRequest: not well-formed, a DOCTYPE, nested too deep, or not in the encoding that it says.
    """
    if len(body) > MAX_BYTES:
        raise RequestTooLarge(f"expected a document of at most {MAX_BYTES} bytes")
    text = _decoded(body, charset)
    if text.count("<") > MAX_MARKS or text.count("=") > MAX_MARKS:
        raise RequestTooLarge(f"expected a document of at most {MAX_MARKS} tags and as many attributes")
    start = _BEFORE_ROOT.match(text)
    if text.startswith("<!", start.end() if start else 0):
        raise MalformedRequest("expected a document without a DOCTYPE")
    etree = _etree()
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(text.encode(), parser)
    except (etree.XMLSyntaxError, ValueError):
        # libxml2's message quotes the document.
        raise MalformedRequest("expected one well-formed XML document") from None
    if _has_doctype(root):
        raise MalformedRequest("expected a document without a DOCTYPE")
    return root


def compile_path(path: str, *, namespaces: Mapping[str, str]) -> Path:
    """Compile an XPath 1.0 expression; it has the functions of the language and no others.

    Raises:
        ValueError: not an expression, or a prefix or a function that there is not.
    """
    etree = _etree()
    called = _CALLED.findall(_LITERAL.sub("''", path))
    if not all(_FUNCTIONS.match(name) for name in called):
        raise ValueError("expected no functions but those of XPath 1.0")
    try:
        compiled: Path = etree.XPath(path, namespaces=dict(namespaces), regexp=False, smart_strings=False)
        compiled(etree.Element("nothing"))
    except (etree.XPathError, ValueError):
        raise ValueError("expected an XPath 1.0 expression, with prefixes that are declared") from None
    return compiled


class Stylesheet:
    """A site's XSLT 1.0 stylesheet, which makes another document of an answer and can reach nothing else.

    Args:
        content: the stylesheet.

    Raises:
        ValueError: not a stylesheet, or one with extensions, or that includes, reads or writes other documents.
    """

    def __init__(self, content: bytes) -> None:
        etree = _etree()
        try:
            root = read_xml(content)
            for one in root.iter():
                self._check(one)
            # What is refused above by its name is refused here by its deed.
            self._transform = etree.XSLT(root, access_control=etree.XSLTAccessControl.DENY_ALL)
        except (etree.XSLTParseError, MalformedRequest, RequestTooLarge):
            raise ValueError("expected an XSLT 1.0 stylesheet without a DOCTYPE") from None

    def transformed(self, document: bytes) -> bytes:
        """Give what the stylesheet makes of a document of ours, without a declaration.

        Raises:
            ValueError: it stopped, or made something that is no element.
        """
        etree = _etree()
        try:
            made = self._transform(read_xml(document)).getroot()
        except etree.XSLTError:
            made = None
        if made is None:
            raise ValueError("expected the stylesheet to make one element of an answer")
        return written(made)

    @staticmethod
    def _check(one: Any) -> None:
        spaces = set(one.nsmap.values()) | {_XSLT}
        if one.tag in {f"{{{_XSLT}}}{name}" for name in ("include", "import", "document", "message")}:
            raise ValueError("expected a stylesheet without xsl:include, xsl:import, xsl:document and xsl:message")
        if any("extension-element-prefixes" in name for name in one.keys()) or any(  # noqa: SIM118 lxml's attributes
            space.startswith(_EXTENSIONS) for space in spaces
        ):
            raise ValueError("expected a stylesheet without extensions")
        if any(_DOCUMENT.search(value) for value in one.values()):
            raise ValueError("expected a stylesheet that does not call document()")


def element(tag: str, *children: Any, text: str | None = None, **attributes: str) -> Any:
    """Make an element; characters that XML has no place for are left out of its text."""
    made = _etree().Element(tag, {name: _legal(value) for name, value in attributes.items()}, nsmap=_default(tag))
    made.text = None if text is None else _legal(text)
    made.extend(children)
    return made


def written(root: Any) -> bytes:
    """Write an element and all in it, in UTF-8, without a declaration."""
    content: bytes = _etree().tostring(root, encoding="utf-8", xml_declaration=False, with_tail=False)
    return content


def _has_doctype(root: Any) -> bool:
    """True if a DOCTYPE came through all the same: nothing that it declares may count."""
    return root.getroottree().docinfo.internalDTD is not None


def _decoded(body: bytes, charset: str | None) -> str:
    mark = next((mark for mark in _BYTE_ORDER_MARKS if body.startswith(mark)), None)
    how, agreeing = ("utf-8", set()) if mark is None else _BYTE_ORDER_MARKS[mark]
    told = _codec(charset) if charset else None
    declared = None
    if mark is None:
        # All encodings that need no mark write the declaration in the same bytes.
        declared = _declared(body[:200].decode("latin-1"))
        if told is not None and declared is not None and told != declared:
            raise MalformedRequest("expected one encoding, the Content-Type and the document declare two")
        how = _WITHOUT_MARK.get(told or declared or "utf-8", "")
    try:
        if not how:
            raise MalformedRequest("expected UTF-8, or UTF-16 with its byte order mark")
        text = body.decode(how)
    except UnicodeError:
        raise MalformedRequest("expected the document in the encoding that it declares") from None
    if mark is not None and {told, _declared(text[:200])} - {None} - agreeing:
        raise MalformedRequest("expected the declared encoding to be the one of the byte order mark")
    return text


def _declared(beginning: str) -> str | None:
    declaration = _DECLARATION.match(beginning)
    encoding = _ENCODING.search(declaration[0]) if declaration else None
    return _codec(encoding[1]) if encoding else None


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "unknown"


def _legal(text: str) -> str:
    return _NO_XML.sub("", text)


def _default(tag: str) -> dict[None, str] | None:
    namespace = tag[1:].partition("}")[0] if tag.startswith("{") else None
    return {None: namespace} if namespace else None


@cache
def _etree() -> Any:
    from lxml import etree

    return etree
