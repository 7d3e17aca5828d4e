"""Batches: the protocol that training reads, and the source that keeps the set on the device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pokegan.data.options import RGB
from pokegan.errors import ConfigError
from pokegan.ops import batch_gather
from pokegan.ops.random import Stream, permutation, uniform


@dataclass(frozen=True)
class Augmentation:
    """What the gather does to a real picture.

    Attributes:
        flip: mirror with probability one half.
        shift: move by up to this many pixels each way, filled with the background.
    """

    flip: bool = False
    shift: int = 0


@dataclass(frozen=True)
class RealBatch:
    """Real pictures of one step and one rank.

    Attributes:
        images: [B, 3, H, W] in [-1, 1], channels_last.
        samples: [B] int64 global sample indices; picture and augmentation follow from them.
    """

    images: Tensor
    samples: Tensor


class BatchSource(Protocol):
    """Where batches come from. Sample i of a run is the same picture from every source."""

    count: int

    def batch(self, first: int, size: int) -> RealBatch:
        """Return the samples first, first + 1, ..., first + size - 1 of the run."""
        ...


class ResidentSource:
    """The whole set on the device as uint8; a batch is one gather, with nothing to load.

    The run's samples are an endless line of epochs, each a permutation of the pictures. A batch is
    a piece of that line: it may span epochs, none is short, and none is dropped, so any set works
    with any batch.

    Args:
        images: [N, H, W, 3] uint8, the pictures.
        background: RGB bytes that fill what a shift uncovers.
        seed: the run's seed.
        device: where the set lives.
        dtype: of the batches, float32 or bfloat16.
        augmentation: flips and shifts.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        background: RGB,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.count = len(images)
        self.background = background
        self.images = torch.from_numpy(np.array(images)).to(device)  # [N, H, W, 3] uint8
        self.seed = seed
        self.dtype = dtype
        self.augmentation = augmentation or Augmentation()
        self._orders: dict[int, Tensor] = {}

    def batch(self, first: int, size: int) -> RealBatch:
        """Return the samples first, ..., first + size - 1 of the run."""
        samples = torch.arange(first, first + size, device=self.images.device)
        images = batch_gather(
            self.images,
            self._pictures(first, size),
            self._flips(samples),
            self._shifts(samples),
            self.background,
            self.dtype,
        )
        return RealBatch(images, samples)

    def _pictures(self, first: int, size: int) -> Tensor:
        """Return [size] int64: which picture each sample shows."""
        pieces = []
        while size > 0:
            epoch, place = divmod(first, self.count)
            take = min(size, self.count - place)
            pieces.append(self._order(epoch)[place : place + take])
            first, size = first + take, size - take
        return torch.cat(pieces)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {key: value for key, value in self._orders.items() if key == epoch - 1}
            self._orders[epoch] = permutation(self.seed, epoch, self.count, self.images.device)
        return self._orders[epoch]

    def _flips(self, samples: Tensor) -> Tensor | None:
        if not self.augmentation.flip:
            return None
        return uniform(self.seed, Stream.FLIP, 0, samples, 1)[:, 0] < 0.5

    def _shifts(self, samples: Tensor) -> Tensor | None:
        most = self.augmentation.shift
        if most == 0:
            return None
        draws = uniform(self.seed, Stream.SHIFT, 0, samples, 2)
        return (draws * (2 * most + 1)).to(torch.int64) - most


class Recoloured:
    """A source whose pictures are changed on the device: colours, rotation.

    Args:
        source: where they come from.
        change: ([B, 3, H, W] pictures, [B] sample indices) to the changed pictures.
    """

    def __init__(self, source: BatchSource, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.source = source
        self.count = source.count
        self.change = change

    def batch(self, first: int, size: int) -> RealBatch:
        """Return the samples first, first + 1, ..., first + size - 1 of the run."""
        plain = self.source.batch(first, size)
        return RealBatch(self.change(plain.images, plain.samples), plain.samples)


def split(count: int, holdout: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the pictures to train on, in order, and of `holdout` kept out.

    Raises:
        ConfigError: fewer than two pictures would be left to train on.
    """
    if count - holdout < 2:
        raise ConfigError(
            f"--holdout {holdout}: of {count} pictures at least 2 must stay to train on"
        )
    order = permutation(seed, 0, count, torch.device("cpu")).numpy()
    return np.sort(order[: count - holdout]), np.sort(order[count - holdout :])
