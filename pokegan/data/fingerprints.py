"""What is kept of a prepared picture to find it again in another: two small pictures of it."""

from PIL import Image

THUMBNAIL = 16
LUMA = 32


def thumbnail(picture: Image.Image) -> bytes:
    """The mean colours of a 16 x 16 grid over an RGB picture: 16 * 16 * 3 bytes."""
    return picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()


def luma(picture: Image.Image) -> bytes:
    """The mean luma (ITU-R BT.601) of a 32 x 32 grid over an RGB picture: 32 * 32 bytes."""
    return picture.convert("L").resize((LUMA, LUMA), Image.Resampling.BOX).tobytes()
