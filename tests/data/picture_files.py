"""Pictures that tests draw, and files of them, put together by hand where Pillow cannot write them.

Expected pixels come from what was drawn and from arithmetic written out here, never from the code
under test.
"""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

WIDTH, HEIGHT = 48, 32

Array = npt.NDArray[np.uint8]


def drawing() -> Array:
    """The picture in most of the files: [32, 48, 4] RGBA, every level of alpha, no symmetry."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    red, green, blue = x * 5, y * 8, 255 - x * 2 - y * 3
    alpha = np.where(y < 8, 255, np.where(y > 26, 0, (x * 5 + y) % 256))
    return np.stack([red, green, blue, alpha], axis=-1).astype(np.uint8)


def on(rgba: Array, background: tuple[int, int, int] = (255, 255, 255)) -> Array:
    """Composite [H, W, 4] straight alpha on a colour, in floating point: [H, W, 3]."""
    colour = rgba[..., :3].astype(np.float64)
    alpha = rgba[..., 3:].astype(np.float64) / 255
    return np.rint(colour * alpha + np.array(background) * (1 - alpha)).astype(np.uint8)


def flat_drawing() -> Array:
    """A picture of few, large, opaque fields, kind to lossy formats: [32, 48, 3]."""
    picture = np.full((HEIGHT, WIDTH, 3), (40, 90, 160), np.uint8)
    picture[:16, :32] = (200, 120, 60)
    picture[16:, 16:] = (90, 180, 80)
    return picture


def grey_of(levels: npt.NDArray[np.integer] | Array) -> Array:
    """[H, W] grey to [H, W, 3]."""
    return np.repeat(np.asarray(levels, np.uint8)[..., None], 3, axis=-1)


def chunk(kind: bytes, content: bytes) -> bytes:
    """One PNG chunk."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(
    rows: list[bytes],
    width: int,
    depth: int,
    colour: int,
    extra: bytes = b"",
    height: int | None = None,
) -> bytes:
    """A PNG from packed rows; `colour` is the colour type, `extra` chunks before the pixels."""
    header = struct.pack(">2I5B", width, height or len(rows), depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def bomb(side: int = 20_000) -> bytes:
    """A true PNG of `side` x `side` black pixels, some 50 kB for 400 million of them."""
    squeeze = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    data = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    header = struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(pixels: bytes, order: str, width: int, height: int, **tags: int) -> bytes:
    """A single-strip TIFF; `order` "<" or ">", tags in the field's terms, equal for all samples."""
    values = {
        256: width,
        257: height,
        258: tags["bits"],
        259: 1,
        262: tags.get("photometric", 1),
        273: 8,
        277: tags.get("samples", 1),
        278: height,
        279: len(pixels),
        339: tags.get("sample_format", 1),
    }
    mark = b"II*\0" if order == "<" else b"MM\0*"
    # BitsPerSample and SampleFormat have a value a sample: those of a few lie before the pixels
    samples = values[277]
    many = b"".join(struct.pack(order + "H", values[t]) * samples for t in (258, 339))
    places = {258: 8, 339: 8 + 2 * samples}
    values[273] += len(many)
    entries = b"".join(
        struct.pack(order + "HHII", t, 3, samples, places[t])
        if t in places and samples > 2
        else struct.pack(order + "HHIHH", t, 3, 2, v, v)
        if t in places and samples == 2
        else struct.pack(order + "HHII", t, 4, 1, v)
        for t, v in values.items()
    )
    directory = struct.pack(order + "H", len(values)) + entries + struct.pack(order + "I", 0)
    return mark + struct.pack(order + "I", 8 + len(many + pixels)) + many + pixels + directory


def bmp32(rgba: Array, alpha_mask: bool) -> bytes:
    """A 32-bit BMP: with a version 5 header that declares alpha, or a plain one that does not."""
    height, width = rgba.shape[:2]
    pixels = np.ascontiguousarray(rgba[::-1, :, [2, 1, 0, 3]]).tobytes()
    size = 124 if alpha_mask else 40
    info = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, 3 if alpha_mask else 0,
                       len(pixels), 2835, 2835, 0, 0)  # fmt: skip
    if alpha_mask:
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        info += masks + b"BGRs" + bytes(size - 40 - 16 - 4)
    offset = 14 + size
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + pixels


def swapped_profile() -> bytes:
    """An sRGB profile whose red and green primaries have changed places (and its name)."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))
    profile = profile.replace(b"sRGB built-in", b"Swap built-in")
    table = profile[128:].replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1)
    return profile[:128] + table.replace(b"????", b"gXYZ", 1)


def saved(picture: Image.Image, form: str, **options: object) -> bytes:
    """`picture` as a file of Pillow format `form`."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def turned(picture: Array, orientation: int) -> Array:
    """What a camera stores with this EXIF orientation for the scene `picture`."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(undo[orientation](picture))


def exif(orientation: int) -> bytes:
    """EXIF data that says nothing but the orientation."""
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(
        ">HHI", orientation, 0, 0
    )


def svg_text(width: int = WIDTH, height: int = HEIGHT) -> str:
    """The flat drawing's like as vectors, half of it transparent."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'viewBox="0 0 48 32"><rect width="24" height="32" fill="#c8783c"/>'
        '<rect x="24" width="12" height="32" fill="#000" fill-opacity="0.5"/></svg>'
    )


def svg_pixels() -> Array:
    """What `svg_text` looks like on white at 48 x 32."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    picture[:, :24] = (0xC8, 0x78, 0x3C)
    picture[:, 24:36] = 128
    return picture
