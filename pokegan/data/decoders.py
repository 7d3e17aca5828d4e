"""The decoders that `prepare` can use beside Pillow, for files that they read as Pillow does.

Each is imported where it is used: most preparations use none, and start the sooner.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

from pokegan.data.jpeg import has_too_many_scans
from pokegan.data.options import DECODERS
from pokegan.data.quiet import quiet
from pokegan.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pokegan.data.dali_pipeline import Branch
    from pokegan.data.plain import Plain

PILLOW, TORCHVISION, DALI = DECODERS

AtOnce: TypeAlias = "Callable[[Sequence[tuple[bytes, Plain]]], list[Image.Image | None]]"

_DALI_BATCH = 16


def require(decoder: str) -> None:
    """Raise ConfigError where the package of one of `DECODERS` is not installed."""
    if decoder == DALI:
        from pokegan.data import dali_pipeline

        dali_pipeline.require("decoder 'dali'")
    if decoder == TORCHVISION:
        try:
            from torchvision.io import decode_image  # noqa: F401  # it is about to move away
        except ImportError as error:
            raise ConfigError(
                f"decoder 'torchvision' cannot be had ({error}): use decoder 'pillow'"
            ) from error


def versions(decoder: str) -> dict[str, str]:
    """The version of what decodes besides Pillow, by its name."""
    if decoder == DALI:
        from pokegan.data import dali_pipeline

        return {"dali": dali_pipeline.version() or "none"}
    if decoder == TORCHVISION:
        from importlib import metadata

        return {decoder: metadata.version(decoder)}
    return {}


def batch_size(decoder: str) -> int:
    """How many pictures are worth decoding in one call."""
    return _DALI_BATCH if decoder == DALI else 1


def warm_up(decoder: str) -> None:
    """Load the libraries of a decoder: that takes seconds, and is no picture's fault."""
    if decoder != PILLOW:
        _at_once(decoder)([])


def decode_plain(
    contents: Sequence[bytes], decoder: str, max_pixels: int
) -> tuple[list[Image.Image | None], list[int]]:
    """Decode what is plainly encoded of up to `batch_size` files.

    Returns:
        The upright picture of each file, RGB or RGBA, or None where Pillow is to look at it; and
        the places of those that the decoder tried in vain.
    """
    pictures: list[Image.Image | None] = [None] * len(contents)
    if decoder == PILLOW:
        return pictures, []
    from pokegan.data.dali_pipeline import suits
    from pokegan.data.plain import plain_header

    headers = [plain_header(content) for content in contents]
    places = [
        place
        for place, header in enumerate(headers)
        if header
        and suits(header)
        and header.width * header.height <= max_pixels
        and not (header.kind == "JPEG" and has_too_many_scans(contents[place]))
    ]
    if not places:
        return pictures, []
    chosen = [(contents[place], header) for place in places if (header := headers[place])]
    for place, picture in zip(places, _at_once(decoder)(chosen), strict=True):
        pictures[place] = picture
    return pictures, [place for place in places if pictures[place] is None]


def _at_once(decoder: str) -> AtOnce:
    return _by_dali if decoder == DALI else _by_torchvision


def _by_torchvision(files: "Sequence[tuple[bytes, Plain]]") -> list[Image.Image | None]:
    import torch
    from torchvision.io import ImageReadMode, decode_image

    pictures: list[Image.Image | None] = []
    for content, _ in files:
        try:
            with quiet():
                data = torch.frombuffer(content, dtype=torch.uint8)  # read only, and only read
                levels = decode_image(data, ImageReadMode.UNCHANGED)  # [C, H, W]
            pictures.append(_picture(levels.permute(1, 2, 0).contiguous().numpy()))
        except RuntimeError:
            pictures.append(None)
    return pictures


def _by_dali(files: "Sequence[tuple[bytes, Plain]]") -> list[Image.Image | None]:
    import numpy as np

    from pokegan.data.dali_pipeline import encoded

    pictures: list[Image.Image | None] = [None] * len(files)
    for alpha in (False, True):
        places = [i for i, (_, header) in enumerate(files) if (header.channels == 4) == alpha]
        if not places and files:
            continue
        branch = _dali_branch(alpha)
        if not places:
            continue
        branch.feed([(encoded(files[place][0]),) for place in places])
        taken = branch.take()
        decoded = iter(taken.outputs or ())
        for number, place in enumerate(places):
            if number not in taken.lost:
                pictures[place] = _picture(np.asarray(next(decoded)))
    return pictures


@lru_cache(maxsize=2)
def _dali_branch(alpha: bool) -> "Branch":
    from pokegan.data.dali_pipeline import decoding_branch

    return decoding_branch(alpha, threads=1, batch=_DALI_BATCH)


def _picture(levels: "npt.NDArray[np.uint8]") -> Image.Image:
    """[H, W, C] of 1, 3 or 4 channels as a picture of mode RGB or RGBA."""
    if levels.shape[-1] == 1:
        return Image.fromarray(levels[..., 0]).convert("RGB")
    return Image.fromarray(levels)
