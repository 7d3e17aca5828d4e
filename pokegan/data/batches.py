"""Batches: the protocol that training reads, what all its sources share, the set on the device."""

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

_STRETCH = 64 << 20  # bytes of a set that are copied to its device at a time


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
    """Where batches come from. Sample i of a run is the same picture from every source.

    Rank r of R reads the slice `batch(step * B + r * B // R, B // R)` of a global batch of B, so
    over the ranks every picture is shown once an epoch, in an order that R has no part in. The
    position is in the call: a resumed run asks for the next samples, and there is nothing to save.
    A source that reads ahead drops what it has read when other samples are asked for.
    """

    count: int

    def batch(self, first: int, size: int) -> RealBatch:
        """Return the samples first, first + 1, ..., first + size - 1 of the run.

        Raises:
            DataError: the pictures can no longer be read.
        """
        ...

    def close(self) -> None:
        """End threads and processes; there are no more batches afterwards."""
        ...


class Line:
    """The order of a run: an endless line of epochs, each a permutation of the pictures.

    A batch is a piece of the line: it may span epochs, none is short, and none is dropped, so any
    set works with any batch.

    Args:
        count: pictures in an epoch.
        seed: the run's seed.
        device: where the answers are wanted.
    """

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self.count = count
        self.seed = seed
        self.device = device
        self._orders: dict[int, Tensor] = {}

    def pictures(self, first: int, size: int) -> Tensor:
        """Return [size] int64: which picture each of the samples first, first + 1, ... shows."""
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
            self._orders[epoch] = permutation(self.seed, epoch, self.count, self.device)
        return self._orders[epoch]


@dataclass(frozen=True)
class Gather:
    """From bytes on the device to a batch: flip, shift and normalise, drawn by sample index.

    Attributes:
        background: RGB bytes that fill what a shift uncovers.
        seed: the run's seed.
        dtype: of the batches, float32 or bfloat16.
        augmentation: flips and shifts.
    """

    background: RGB
    seed: int
    dtype: torch.dtype = torch.float32
    augmentation: Augmentation = Augmentation()

    def __call__(self, images: Tensor, pictures: Tensor, first: int) -> RealBatch:
        """Return the batch whose sample first + i shows `images[pictures[i]]`.

        Args:
            images: [N, H, W, 3] uint8 on the device.
            pictures: [B] int64 in [0, N), on the device.
            first: index of the first sample.
        """
        samples = torch.arange(first, first + len(pictures), device=images.device)
        flips, shifts = self.flips(samples), self.shifts(samples)
        gathered = batch_gather(images, pictures, flips, shifts, self.background, self.dtype)
        return RealBatch(gathered, samples)

    def whole(self, images: Tensor, first: int) -> RealBatch:
        """Return the batch whose sample first + i shows `images[i]`, [B, H, W, 3] uint8."""
        return self(images, torch.arange(len(images), device=images.device), first)

    def flips(self, samples: Tensor) -> Tensor | None:
        """Return [B] bool, which samples are mirrored; None where nothing is."""
        if not self.augmentation.flip:
            return None
        return uniform(self.seed, Stream.FLIP, 0, samples, 1)[:, 0] < 0.5

    def shifts(self, samples: Tensor) -> Tensor | None:
        """Return [B, 2] int64, px (down, right) that each sample moves; None where none does."""
        most = self.augmentation.shift
        if most == 0:
            return None
        draws = uniform(self.seed, Stream.SHIFT, 0, samples, 2)
        return (draws * (2 * most + 1)).to(torch.int64) - most


class ResidentSource:
    """The whole set on the device as uint8; a batch is one gather, with nothing to load.

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
        self.images = torch.empty(images.shape, dtype=torch.uint8, device=device)  # [N, H, W, 3]
        some = max(1, _STRETCH // max(1, images[0].nbytes)) if self.count else 1
        for first in range(0, self.count, some):  # of a mapped file little is in memory at a time
            copied = np.array(images[first : first + some])
            self.images[first : first + some].copy_(torch.from_numpy(copied))
        self.line = Line(self.count, seed, device)
        self.gather = Gather(background, seed, dtype, augmentation or Augmentation())

    def batch(self, first: int, size: int) -> RealBatch:
        """Return the samples first, ..., first + size - 1 of the run."""
        return self.gather(self.images, self.line.pictures(first, size), first)

    def close(self) -> None:
        """Do nothing: there is nothing to end."""


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

    def close(self) -> None:
        """Close the source behind it."""
        self.source.close()


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
