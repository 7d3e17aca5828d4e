"""Batches of a packed set that stays on the disk: for sets larger than the device's memory."""

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pokegan.data.ahead import Ahead
from pokegan.data.batches import Augmentation, Gather, Line, RealBatch
from pokegan.data.free_memory import free_bytes
from pokegan.data.packed import PackedImages
from pokegan.data.shrink import downscaled

_DEPTH = 2  # batches read ahead: one under way, one ready


class MappedSource:
    """Rows of the file read by a background thread, copied to the device while it computes.

    Gives the bits of `ResidentSource` over the same pictures. Host memory: three batches of bytes,
    pinned for a GPU; what the system keeps of the file is its own and is given up under pressure.
    At first it keeps all of it, where that takes at most half of the free memory: another thread
    reads it from end to end.

    Args:
        packed: the pictures.
        seed: the run's seed.
        device: where the batches are wanted.
        dtype: of the batches, float32 or bfloat16.
        augmentation: flips and shifts, in px of `size`.
        stride: from one request's first sample to the next one's: the global batch.
        chosen: [K] int64 rows of `packed` to show; None for all.
        size: side of the pictures in px, a divisor of the set's; None for the set's own.
    """

    def __init__(
        self,
        packed: PackedImages,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        augmentation: Augmentation | None = None,
        *,
        stride: int,
        chosen: NDArray[np.int64] | None = None,
        size: int | None = None,
    ) -> None:
        self.count = len(packed) if chosen is None else len(chosen)
        self.size = packed.size if size is None else size
        self.gather = Gather(packed.background, seed, dtype, augmentation or Augmentation())
        self._line = Line(self.count, seed, torch.device("cpu"))
        self._chosen = chosen
        self._file = packed.file
        self._stored_size = packed.size
        self._ring = itertools.cycle([_Buffer(device) for _ in range(_DEPTH + 1)])
        self._gpu = _index(device) if device.type == "cuda" else None
        self._ahead = Ahead(self._load, stride, _DEPTH, self._enter_thread)
        self._warming = self._file.warm(free_bytes(torch.device("cpu")) // 2)

    def batch(self, first: int, size: int) -> RealBatch:
        """Return the samples first, ..., first + size - 1 of the run."""
        return self.gather.whole(self._ahead.get(first, size).on_device(), first)

    def close(self) -> None:
        """End the background threads."""
        self._warming.close()
        self._ahead.close()

    def _load(self, first: int, size: int) -> "_Buffer":
        """Read a batch into the next buffer; at most `_DEPTH` calls are ahead of the reader."""
        buffer = next(self._ring)
        pictures = self._line.pictures(first, size).numpy()
        rows = pictures if self._chosen is None else self._chosen[pictures]
        out = buffer.free(size, self.size)
        if self.size == self._stored_size:
            self._file.read(rows, out)
        else:
            stored = np.empty((size, self._stored_size, self._stored_size, 3), np.uint8)
            self._file.read(rows, stored)
            out[:] = downscaled(stored, self.size)
        return buffer

    def _enter_thread(self) -> None:
        """Let the thread's waits and pinned memory belong to our GPU, not to the first one."""
        if self._gpu is not None:
            torch.cuda.set_device(self._gpu)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


class _Buffer:
    """Host memory for one batch, not written to before the copy out of it is over."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned = device.type == "cuda"
        self._bytes = torch.empty(0, dtype=torch.uint8)
        self._images = self._bytes
        self._copied: torch.cuda.Event | None = None

    def free(self, count: int, size: int) -> NDArray[np.uint8]:
        """Return [count, size, size, 3] of it to write to, once nothing reads it any more."""
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None
        wanted = count * size * size * 3
        if len(self._bytes) < wanted:
            self._bytes = torch.empty(wanted, dtype=torch.uint8, pin_memory=self._pinned)
        self._images = self._bytes[:wanted].view(count, size, size, 3)
        array: NDArray[np.uint8] = self._images.numpy()
        return array

    def on_device(self) -> Tensor:
        """Return what was written, [B, H, W, 3] uint8, on the device; queues the copy to a GPU.

        On the CPU it is the buffer itself, good until the next batch is asked for.
        """
        if not self._pinned:
            return self._images
        images = self._images.to(self._device, non_blocking=True)
        self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch's
        self._copied.record(torch.cuda.current_stream(self._device))
        return images
