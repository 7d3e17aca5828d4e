"""The real pictures of a run: the source that its config asks for, and those kept out of it."""

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pokegan.augment import PictureAugmentation
from pokegan.config import FILTERS, DataConfig, RunConfig
from pokegan.data.batches import Augmentation, BatchSource, Recoloured, ResidentSource, split
from pokegan.data.colours import parse_colour
from pokegan.data.encoded import Chosen
from pokegan.data.loaders import STREAMING, Choice, PictureSet, choose
from pokegan.data.mapped import MappedSource
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.shrink import downscaled
from pokegan.data.streamed import StreamedSet
from pokegan.data.workers import default_workers
from pokegan.errors import ConfigError

HELD_OUT_SEED = 0  # the same pictures are kept out in every run, so that runs compare


def prepare_options(data: DataConfig) -> PrepareOptions:
    """Return how a run's pictures are prepared."""
    return PrepareOptions(
        size=data.size,
        background=parse_colour(data.background),
        fit=data.fit,
        keep_duplicates=data.keep_duplicates,
        **{name: getattr(data, name) for name in FILTERS},
    )


def build_source(
    config: RunConfig, pictures: PictureSet, device: torch.device, dtype: torch.dtype, size: int
) -> tuple[BatchSource, Choice]:
    """Return the source of training pictures at `size` px, and why it is of its kind."""
    data = config.data
    trained, _ = split(len(pictures), data.holdout, HELD_OUT_SEED)
    rows = trained if data.holdout else None
    sharing = _processes_here() if device.type == "cpu" else 1
    loader = choose(data.loader, len(trained) * size * size * 3, device, sharing)
    if isinstance(pictures, StreamedSet):
        source = _streamed(config, pictures, rows, device, dtype, size)
    else:
        source = _packed(config, pictures, rows, device, dtype, size, loader.name)
    change = PictureAugmentation(
        brightness=data.brightness,
        contrast=data.contrast,
        saturation=data.saturation,
        hue=data.hue,
        rotation=data.rotation,
        background=pictures.background,
        seed=config.training.seed,
    )
    return (Recoloured(source, change) if change.active else source), loader


def build_held_out(
    config: RunConfig, pictures: PictureSet, device: torch.device, size: int
) -> Tensor | None:
    """Return the pictures kept out of training, [K, 3, size, size] in [-1, 1], or None."""
    if not config.data.holdout:
        return None
    _, kept_out = split(len(pictures), config.data.holdout, HELD_OUT_SEED)
    images = torch.from_numpy(downscaled(pictures.squares(kept_out), size)).to(device)
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def _processes_here() -> int:
    """How many processes of this run share the computer, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _augmentation(config: RunConfig, size: int) -> Augmentation:
    return Augmentation(config.data.flip, config.data.shift * size // config.data.size)


def _packed(
    config: RunConfig,
    packed: PackedImages,
    rows: NDArray[np.int64] | None,
    device: torch.device,
    dtype: torch.dtype,
    size: int,
    loader: str,
) -> BatchSource:
    """Return the source over pictures that are prepared."""
    seed, augmentation = config.training.seed, _augmentation(config, size)
    if loader in STREAMING:
        raise ConfigError(f"--loader {loader}: decodes picture files, and {packed.path} has none")
    if loader == "mapped":
        batch = config.training.batch
        return MappedSource(
            packed, seed, device, dtype, augmentation, stride=batch, chosen=rows, size=size
        )
    images = downscaled(packed.images if rows is None else packed.squares(rows), size)
    return ResidentSource(images, packed.background, seed, device, dtype, augmentation)


def _streamed(
    config: RunConfig,
    streamed: StreamedSet,
    rows: NDArray[np.int64] | None,
    device: torch.device,
    dtype: torch.dtype,
    size: int,
) -> BatchSource:
    """Return the source that decodes picture files while the run goes on."""
    data, seed, batch = config.data, config.training.seed, config.training.batch
    augmentation = _augmentation(config, size)
    pictures = streamed.pictures if rows is None else Chosen(streamed.pictures, rows)
    options = streamed.options
    if data.loader == "torch":
        workers = data.workers
        if workers is None:
            workers = max(1, default_workers(len(pictures)) // _processes_here())
        from pokegan.data.torch_source import TorchSource  # loads torchvision, 2 s

        return TorchSource(
            *(pictures, options, seed, device, dtype, augmentation),
            stride=batch,
            size=size,
            workers=workers,
        )
    from pokegan.data.dali import DaliSource  # loads DALI, an extra

    return DaliSource(
        *(pictures, options.background, size, options.fit, seed, device, dtype, augmentation),
        stride=batch,
        threads=data.workers,
        max_pixels=options.max_pixels,
    )
