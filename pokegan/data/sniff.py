"""What kind of file these bytes are, by content alone."""

import contextlib
import re
import struct
import zlib

_MAGIC = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WebP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
}

_FOREIGN = {
    "JPEG 2000": re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    "JPEG XL": re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"),
    "AVIF": re.compile(rb"....ftypavi[fs]", re.DOTALL),
    "HEIC": re.compile(rb"....ftyp(hei|hev|mif|msf)", re.DOTALL),
    "MP4": re.compile(rb"....ftyp", re.DOTALL),
    "Photoshop": re.compile(rb"8BPS"),
    "icon (ICO)": re.compile(rb"\0\0[\x01\x02]\0[^\0]\0"),
    "OpenEXR": re.compile(rb"\x76\x2f\x31\x01"),
    "QOI": re.compile(rb"qoif"),
    "PDF": re.compile(rb"%PDF-"),
    "PostScript": re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"),
    "ZIP archive": re.compile(rb"PK\x03\x04"),
    "gzip": re.compile(rb"\x1f\x8b"),
    "Netpbm": re.compile(rb"P[1-7][\s#]"),
}

_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
_HEAD = 65_536
_SVG_ROOT = re.compile(r"<(?:[A-Za-z_][\w.-]*:)?svg[\s/>]")
_GZIP = b"\x1f\x8b"


def sniff(content: bytes) -> str | None:
    """`PNG`, `JPEG`, `WebP`, `GIF`, `BMP`, `TIFF` or `SVG`; None for anything else."""
    for kind, magic in _MAGIC.items():
        if magic.match(content):
            return kind
    if _is_bmp(content):
        return "BMP"
    return "SVG" if is_svg(content) else None


def is_lossy(content: bytes) -> bool:
    """Whether the file is a JPEG or a lossy WebP: of two twins the other one is kept."""
    kind = sniff(content)
    return kind == "JPEG" or (kind == "WebP" and b"VP8 " in content[12:_HEAD])


def is_svg(content: bytes) -> bool:
    """Whether the first element of a text is `<svg>`; a gzipped file (.svgz) counts as SVG."""
    if content.startswith(_GZIP):
        content = unzipped(content, _HEAD) or b""
    return bool(_SVG_ROOT.match(_after_prolog(as_text(content[:_HEAD]))))


def foreign(content: bytes) -> str:
    """The reason for refusing a file that `sniff` does not know."""
    if not content:
        return "empty file"
    for name, magic in _FOREIGN.items():
        if magic.match(content):
            return f"unsupported format: {name}"
    if content.startswith(b"version https://git-lfs"):
        return "not a picture: a Git LFS pointer, fetch the files with 'git lfs pull'"
    start = _after_prolog(as_text(content[:_HEAD]))
    if start.startswith("<"):
        return "not a picture: HTML or XML"
    return "not a picture: text" if _is_text(content[:1024]) else "not a picture"


def unzipped(content: bytes, limit: int) -> bytes | None:
    """The first `limit` bytes of what a gzip file holds; None where it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(content, limit)
    except zlib.error:
        return None


def as_text(content: bytes) -> str:
    """Decode XML bytes by byte order mark, then UTF-8, then as the XML declaration says."""
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    declared = re.match(rb"\s*<\?xml[^>]*encoding=[\"']([\w.-]{1,40})[\"']", content[:200])
    encoding = declared.group(1).decode() if declared else "utf-8"
    if encoding.lower() != "utf-8":
        with contextlib.suppress(Exception):  # Python knows codecs that raise what they like
            return content.decode(encoding, "replace")
    return content.decode("utf-8-sig", "replace")


def _is_bmp(content: bytes) -> bool:
    if not content.startswith(b"BM") or len(content) < 18:
        return False
    return int(struct.unpack_from("<I", content, 14)[0]) in _BMP_HEADERS


def _after_prolog(text: str) -> str:
    """`text` from its first element on: declaration, comments and document type are skipped."""
    text = text.lstrip("\ufeff \t\r\n")
    while text.startswith(("<?", "<!")):
        end = {"<?": "?>", "<!": ">"}[text[:2]]
        if text.startswith("<!--"):
            end = "-->"
        elif "[" in text.partition(">")[0]:  # a document type with declarations of its own
            end = "]>"
        text = text.partition(end)[2].lstrip()
    return text


def _is_text(content: bytes) -> bool:
    printable = sum(byte >= 32 or byte in b"\t\r\n" for byte in content)
    return b"\0" not in content and printable >= 0.95 * len(content)
