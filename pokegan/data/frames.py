"""Where the first frame of an animation lies on its canvas.

Decoders fill the rest of the canvas with black or with a palette's first colour; nothing was drawn
there, so it is transparent.
"""

from typing import TypeAlias

from PIL import Image, ImageFile

Box: TypeAlias = tuple[int, int, int, int]

_CHUNKS = 12  # where the chunks of a WebP file begin, after "RIFF", a length and "WEBP"


def first_frame(image: ImageFile.ImageFile, kind: str, content: bytes) -> Box | None:
    """`(left, top, right, bottom)` in px of the first frame; None where it is the whole canvas.

    `image` is opened and not yet loaded, `kind` the format as `sniff` names it.
    """
    box = None
    if kind == "GIF" and image.tile:
        box = image.tile[0][1]
    elif kind == "WebP":
        box = _first_webp_frame(content)
    return None if box == (0, 0, *image.size) else box


def clear_outside(picture: Image.Image, box: Box) -> Image.Image:
    """An RGB or RGBA picture as RGBA, transparent outside of `box`."""
    canvas = Image.new("RGBA", picture.size)
    canvas.paste(picture.crop(box).convert("RGBA"), box[:2])
    return canvas


def _first_webp_frame(content: bytes) -> Box | None:
    """The rectangle in the first ANMF chunk (WebP container specification), if there is one."""
    offset = _CHUNKS
    while offset + 8 <= len(content):
        length = int.from_bytes(content[offset + 4 : offset + 8], "little")
        if content[offset : offset + 4] == b"ANMF" and offset + 20 <= len(content):
            fields = [content[offset + i : offset + i + 3] for i in (8, 11, 14, 17)]
            x, y, width, height = (int.from_bytes(field, "little") for field in fields)
            return 2 * x, 2 * y, 2 * x + width + 1, 2 * y + height + 1
        offset += 8 + length + length % 2
    return None
