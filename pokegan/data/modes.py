"""Every pixel format that Pillow decodes to, brought to 8-bit RGB or to RGBA with straight alpha.

Pillow's own `convert` clips 16-bit grey and overlooks some transparent colours; this does not.
What takes numpy is in `deep_modes.py`.
"""

import contextlib
import io

from PIL import Image


def to_8_bit(image: Image.Image, kind: str, content: bytes) -> Image.Image:
    """Bring a loaded picture to mode RGB, or to RGBA where any of it may be transparent.

    `kind` is the format as `sniff` names it and `content` the file, of which a few header fields
    are needed that Pillow does not hand out. Raises DecodeError for values that have no meaning as
    a picture.
    """
    if image.mode.startswith("I") or image.mode == "F":
        from pokegan.data.deep_modes import from_wide

        return from_wide(image, kind)
    alpha = _overlooked_alpha(image, kind, content)
    if kind == "PNG":
        _mend_transparent_colour(image, content)
    plain = _from_narrow(image)
    return _with_alpha(plain, alpha) if alpha else plain


def _overlooked_alpha(image: Image.Image, kind: str, content: bytes) -> Image.Image | None:
    """Alpha that is in the file and not in what Pillow decoded; None for nearly all files."""
    if kind == "BMP":
        from pokegan.data.deep_modes import hidden_bmp_alpha

        return hidden_bmp_alpha(content, image.size)
    if kind == "PNG" and image.mode == "RGB" and "transparency" in image.info:
        from pokegan.data.deep_modes import deep_colour_key

        return deep_colour_key(image, content)
    return None


def _from_narrow(image: Image.Image) -> Image.Image:
    """A picture of 8 bits a channel or fewer, to RGB or RGBA, its colour profile applied."""
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        if not profile:
            return whole
        return _with_alpha(_to_srgb(whole.convert("RGB"), profile), whole.getchannel("A"))
    if image.mode in ("L", "CMYK") and profile:
        return _to_srgb(image, profile)
    plain = image.convert("RGB")
    return _to_srgb(plain, profile) if profile else plain


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply a colour profile to a picture without alpha; an unusable profile is ignored."""
    from PIL import ImageCms

    with contextlib.suppress(Exception):  # lcms refuses broken and unfitting profiles
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" not in ImageCms.getProfileDescription(source):
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")


def _mend_transparent_colour(image: Image.Image, content: bytes) -> None:
    """Express the transparent colour of a PNG (tRNS) in the 8-bit values that Pillow decoded.

    The chunk speaks in the file's own depth of 2 or 4 bits (PNG specification, 11.3.2.1).
    """
    key = image.info.get("transparency")
    depth = content[24]
    if image.mode == "L" and isinstance(key, int) and depth in (2, 4):
        image.info["transparency"] = key * (85 if depth == 2 else 17)


def _with_alpha(plain: Image.Image, alpha: Image.Image) -> Image.Image:
    """`plain`, an RGB picture, made RGBA in place with an `alpha` of mode L."""
    plain.putalpha(alpha)
    return plain
