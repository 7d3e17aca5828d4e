"""Colours as a user writes them."""

from PIL import ImageColor

from pokegan.errors import ConfigError


def parse_colour(text: str) -> tuple[int, int, int]:
    """Return red, green, blue in 0..255 of a colour's name or `#rrggbb`.

    Raises:
        ConfigError: `text` is no colour, or a transparent one.
    """
    wrong = ConfigError(f"--background {text}: use white, black, another name, or #rrggbb")
    try:
        levels = ImageColor.getrgb(text)
    except ValueError:
        raise wrong from None
    if len(levels) != 3:
        raise wrong
    return levels
