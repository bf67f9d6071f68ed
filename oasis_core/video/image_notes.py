"""What people and programs write beside the pixels of pictures: text, resolution, XMP and so on.

Each kind is kept where the target has a place for it; `note_lines` names the rest. ComfyUI's
workflow, for one, is text of a PNG.

Source: PNG third edition (tEXt, zTXt, iTXt, pHYs, cICP, gAMA, cHRM, sRGB, mDCV, cLLI), JFIF 1.02,
XMP specification part 3 (where XMP lies in each format), TIFF 6.0 section 8.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from .image_chunks import PNG_HEAD, Ifd, jpeg_end, png_chunk, png_chunks

_JFIF, _XMP_HEAD = b"JFIF\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_PHOTOSHOP = b"Photoshop 3.0\x00"
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# How the numbers mean colours; all of it stays true when the picture is larger.
_PNG_COLORS = (b"cICP", b"gAMA", b"cHRM", b"sRGB", b"mDCV", b"cLLI")
_PNG_OWN = (
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf", b"pHYs", b"acTL", b"fcTL",
    b"fdAT",
)  # fmt: skip
_SRGB_GAMMA = struct.pack(">I", 45_455)
_PIECE = 65_000
_LEAST_REST = 16
_MOST = 0xFFFFFFFF
_X_RESOLUTION, _Y_RESOLUTION, _UNIT, _XMP_TAG, _IPTC_TAG = 282, 283, 296, 700, 33723
_TIFF_TEXTS = {
    269: "document name", 270: "description", 271: "make", 272: "model", 285: "page name",
    305: "software", 306: "date", 315: "artist", 316: "computer", 33432: "copyright",
}  # fmt: skip
_TIFF_GEO = (33550, 33922, 34264, 34735)
_METRES = {"m": 1.0, "cm": 100.0, "in": 1 / 0.0254}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What lies beside the pixels and is neither profile nor EXIF."""

    density: tuple[float, float, str] | None = None
    """Pixels across and down for each unit: `m`, `cm` or `in`."""
    texts: tuple[tuple[str, bytes, bytes], ...] = ()
    """Keyword, name of the chunk, its content, of PNG."""
    colors: tuple[tuple[bytes, bytes], ...] = ()
    """Chunks of PNG that say how numbers mean colours."""
    xmp: bytes | None = None
    """An XMP packet."""
    comment: bytes | None = None
    """A JPEG's."""
    iptc: bytes | None = None
    """IPTC records as a JPEG's Photoshop segment holds them."""
    tiff_texts: tuple[tuple[int, bytes], ...] = ()
    """Tag and content."""
    others: tuple[str, ...] = ()
    """Names of what is read by nobody here."""

    @property
    def cicp(self) -> bytes | None:
        """Primaries, transfer, matrix and range as PNG's chunk has them."""
        return dict(self.colors).get(b"cICP")


def png_notes(chunks: list[tuple[bytes, bytes]]) -> Notes:
    """Return the notes in a PNG's chunks."""
    texts, colors, others, density, xmp = [], [], [], None, None
    for name, content in chunks:
        keyword = content.partition(b"\x00")[0]
        if name == b"iTXt" and keyword == _PNG_XMP and content[len(_PNG_XMP) + 1 :][:1] == b"\x00":
            xmp = content[len(_PNG_XMP) + 3 :].split(b"\x00", 2)[-1]
        elif name in _PNG_TEXTS:
            texts.append((keyword.decode("latin-1"), name, content))
        elif name == b"pHYs" and len(content) == 9 and content[8] == 1:
            across, down = struct.unpack(">II", content[:8])
            density = (across, down, "m") if across and down else None
        elif name in _PNG_COLORS:
            colors.append((name, content))
        elif name not in _PNG_OWN:
            others.append(f"PNG chunk {name.decode('latin-1')}")
    return Notes(
        density=density, texts=tuple(texts), colors=tuple(colors), xmp=xmp,
        others=tuple(dict.fromkeys(others)),
    )  # fmt: skip


def behind_jpeg(data: bytes) -> list[str]:
    """Return a name for what lies behind the end of a JPEG's picture."""
    end = jpeg_end(data)
    rest = b"" if end is None else data[end:].strip(b"\x00")
    if len(rest) < _LEAST_REST:
        return []
    if b"ftyp" in rest[:_LEAST_REST] or b"MotionPhoto_Data" in rest:
        return ["a film behind the picture (motion photo)"]
    if rest.startswith(b"\xff\xd8"):
        return ["further pictures in the file (MPF: a second eye, a preview or a gain map)"]
    return [f"{len(rest):,} bytes behind the picture"]


def jpeg_notes(segments: list[tuple[int, bytes]], others: list[str]) -> Notes:
    """Return the notes in a JPEG's segments.

    Args:
        segments: before the picture.
        others: names of what lies behind it.
    """
    density, xmp, comment, iptc = None, None, None, None
    for marker, content in segments:
        if marker == 0xE0 and content.startswith(_JFIF) and len(content) >= 12:
            unit = {1: "in", 2: "cm"}.get(content[7])
            across, down = struct.unpack(">HH", content[8:12])
            density = (across, down, unit) if unit and across and down else None
        elif marker == 0xE1 and content.startswith(_XMP_HEAD):
            xmp = content[len(_XMP_HEAD) :]
        elif marker == 0xFE:
            comment = content
        elif marker == 0xED and content.startswith(_PHOTOSHOP):
            iptc = content
        elif 0xE0 <= marker <= 0xEF:
            others += _name_of_segment(marker, content)
    return Notes(
        density=density, xmp=xmp, comment=comment, iptc=iptc, others=tuple(dict.fromkeys(others))
    )


def _name_of_segment(marker: int, content: bytes) -> list[str]:
    if content.startswith((b"Exif\x00", b"ICC_PROFILE\x00", b"Adobe", b"JFXX")):
        return []
    if content.startswith(b"MPF\x00"):
        return ["further pictures in the file (MPF: a second eye, a preview or a gain map)"]
    if content.startswith(b"http://ns.adobe.com/xmp/extension/\x00"):
        return ["extended XMP"]
    if marker == 0xEB:
        return ["content credentials (JUMBF)"]
    name = re.sub(rb"[^ -~].*", b"", content[:20], flags=re.DOTALL).decode()
    return [f"JPEG segment APP{marker - 0xE0}" + (f" ({name})" if name else "")]


def webp_notes(chunks: dict[bytes, bytes]) -> Notes:
    """Return the notes in a WebP's chunks."""
    known = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")
    others = (f"WebP chunk {name.decode('latin-1')}" for name in chunks if name not in known)
    return Notes(xmp=chunks.get(b"XMP "), others=tuple(others))


def bmp_notes(data: bytes) -> Notes:
    """Return the resolution of a BMP."""
    if len(data) < 46 or struct.unpack_from("<I", data, 14)[0] < 40:
        return Notes()
    across, down = struct.unpack_from("<ii", data, 38)
    return Notes(density=(across, down, "m") if across > 0 and down > 0 else None)


def tiff_notes(entries: Ifd) -> Notes:
    """Return the notes in the first directory of a TIFF."""
    unit = {2: "in", 3: "cm"}.get(entries.number(_UNIT) or 2)
    density = [_fraction(entries, tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    texts = ((tag, entries.value(tag)) for tag in _TIFF_TEXTS if tag in entries.entries)
    others = ["georeference (GeoTIFF)"] if any(t in entries.entries for t in _TIFF_GEO) else []
    others += ["Photoshop layers"] if 37724 in entries.entries else []
    others += ["IPTC records"] if _IPTC_TAG in entries.entries else []
    return Notes(
        density=(*density, unit) if unit and all(density) else None,
        xmp=entries.value(_XMP_TAG),
        tiff_texts=tuple((tag, content) for tag, content in texts if content and any(content)),
        others=tuple(others),
    )


def _fraction(entries: Ifd, tag: int) -> float:
    kind, _, _ = entries.entries.get(tag, (0, 0, 0))
    content = entries.value(tag)
    if kind != 5 or content is None or len(content) < 8:
        return 0.0
    above, below = struct.unpack(entries.order + "II", content[:8])
    return above / below if below else 0.0


def png_with(data: bytes, new: list[tuple[bytes, bytes]], notes: Notes) -> bytes:
    """Return a PNG with chunks and notes put in, instead of those of its encoder.

    Args:
        data: the file.
        new: further chunks.
        notes: what to put in.
    """
    has_profile = any(name == b"iCCP" for name, _ in new)
    for name, content in notes.colors:
        if not (has_profile and name == b"sRGB"):  # the two exclude each other
            new.append((name, content))
    if notes.density is not None:
        across, down, unit = notes.density
        metre = _METRES[unit]
        counts = (min(round(number * metre), _MOST) for number in (across, down))
        new.append((b"pHYs", struct.pack(">IIB", *counts, 1)))
    new += [(name, content) for _, name, content in notes.texts]
    if notes.xmp is not None:
        new.append((b"iTXt", _PNG_XMP + bytes(5) + notes.xmp))
    if notes.comment is not None:
        new.append((b"tEXt", b"Comment\x00" + notes.comment.rstrip(b"\x00")))
    own = (b"pHYs", *_PNG_TEXTS, *(_PNG_COLORS if new else ()))
    chunks = [(name, content) for name, content in png_chunks(data) if name not in own]
    return PNG_HEAD + b"".join(png_chunk(*c) for c in (chunks[0], *new, *chunks[1:]))


def jpeg_with(data: bytes, segments: bytes, notes: Notes) -> bytes:
    """Return a JPEG with segments and notes put in.

    Args:
        data: the file.
        segments: whole ones, to come first.
        notes: what to put in.
    """
    first, rest = b"", data[2:]
    if rest[:2] == b"\xff\xe0":
        length = struct.unpack(">H", rest[2:4])[0] + 2
        first, rest = rest[:length], rest[length:]
    if notes.density is not None:
        across, down, unit = notes.density
        if unit == "m":
            across, down, unit = across * 0.0254, down * 0.0254, "in"
        counts = (min(65_535, max(1, round(n))) for n in (across, down))
        body = _JFIF + b"\x01\x02" + struct.pack(">BHHBB", 1 if unit == "in" else 2, *counts, 0, 0)
        first = struct.pack(">BBH", 0xFF, 0xE0, len(body) + 2) + body
    contents = []
    if notes.xmp is not None and len(notes.xmp) <= _PIECE:
        contents.append((0xE1, _XMP_HEAD + notes.xmp))
    if notes.iptc is not None:
        contents.append((0xED, notes.iptc))
    if notes.comment is not None:
        contents.append((0xFE, notes.comment))
    new = b"".join(struct.pack(">BBH", 0xFF, m, len(c) + 2) + c for m, c in contents)
    return b"\xff\xd8" + first + segments + new + rest


def tiff_with(data: bytes, notes: Notes) -> bytes:
    """Return a TIFF with notes put in.

    Args:
        data: the file.
        notes: what to put in.
    """
    for tag, content in notes.tiff_texts:
        data = Ifd(data).with_entry(tag, 2, len(content), content)
    if notes.xmp is not None:
        data = Ifd(data).with_entry(_XMP_TAG, 1, len(notes.xmp), notes.xmp)
    if notes.density is not None:
        *counts, unit = notes.density
        if unit == "m":
            counts, unit = [n / 100 for n in counts], "cm"
        for tag, count in zip((_X_RESOLUTION, _Y_RESOLUTION), counts, strict=True):
            order = Ifd(data).order
            content = struct.pack(order + "II", min(round(count * 1000), _MOST), 1000)
            data = Ifd(data).with_entry(tag, 5, 1, content)
        content = struct.pack(Ifd(data).order + "H", 2 if unit == "in" else 3)
        data = Ifd(data).with_entry(_UNIT, 3, 1, content)
    return data


def note_lines(notes: Notes, suffix: str) -> tuple[list[str], list[str]]:
    """Return a line for each kind of note that a target keeps, and for each that it does not.

    Args:
        notes: of the source.
        suffix: of the target: `.png`, `.mp4` and so on.
    """
    kind = {".jpeg": ".jpg", ".tiff": ".tif"}.get(suffix, suffix)
    texts = ", ".join(dict.fromkeys(keyword for keyword, _, _ in notes.texts))
    names = ", ".join(_TIFF_TEXTS[tag] for tag, _ in notes.tiff_texts)
    size = len(notes.xmp or b"")
    found = [
        (notes.density, "resolution (dpi), as in the source", (".png", ".jpg", ".tif")),
        (notes.texts, f"text ({texts})", (".png",)),
        (notes.tiff_texts, f"text ({names})", (".tif",)),
        (notes.xmp, "XMP", (".png", ".webp", ".tif", *((".jpg",) if size <= _PIECE else ()))),
        (notes.comment, "comment", (".png", ".jpg")),
        (notes.iptc, "IPTC records", (".jpg",)),
        *((name, text, (".png",)) for name, text in _color_lines(notes)),
    ]
    kept, dropped = [], [f"{name}: not written" for name in notes.others]
    for content, text, holders in found:
        if content and kind in holders:
            kept.append(text)
        elif content:
            dropped.append(f"{text}: {suffix} has no place for it")
    return kept, dropped


def _color_lines(notes: Notes) -> list[tuple[bytes, str]]:
    lines = []
    for name, content in notes.colors:
        if name == b"cICP":
            points = "/".join(str(value) for value in content[:2])
            hdr = {16: " (PQ, HDR)", 18: " (HLG, HDR)"}.get(
                content[1] if len(content) > 1 else 0, ""
            )
            lines.append((name, f"colour tags cICP {points}{hdr}"))
        elif name == b"gAMA" and content != _SRGB_GAMMA and len(content) == 4:
            gamma = struct.unpack(">I", content)[0] / 100_000
            lines.append((name, f"gamma (gAMA) {gamma:g}"))
        elif name == b"cHRM" and (b"gAMA", _SRGB_GAMMA) not in notes.colors:
            lines.append((name, "primaries (cHRM)"))
        elif name in (b"mDCV", b"cLLI"):
            lines.append((name, f"HDR mastering data ({name.decode()})"))
    return lines
