"""Where a picture of any shape lies in its square."""


def pad_geometry(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """`(width, height, left, top)` in px of a picture fitted whole into a square of `size`."""
    longest = max(width, height)
    fitted_width = max(1, round(width * size / longest))
    fitted_height = max(1, round(height * size / longest))
    return fitted_width, fitted_height, (size - fitted_width) // 2, (size - fitted_height) // 2


def crop_box(width: int, height: int) -> tuple[int, int, int, int]:
    """`(left, top, right, bottom)` in px of the largest centred square of a picture."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
