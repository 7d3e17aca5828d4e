"""Batches decoded anew each epoch by the workers of a DataLoader, for where DALI cannot be had."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pokegan.data.batches import Augmentation, Gather, Line, RealBatch
from pokegan.data.encoded import EncodedPictures
from pokegan.data.options import PrepareOptions
from pokegan.data.plain import plainly_encoded
from pokegan.data.quiet import quiet
from pokegan.data.shrink import downscaled
from pokegan.data.square import fit
from pokegan.data.streamed import Pixels, pillow_square
from pokegan.errors import DataError

try:  # torchvision means to give its decoders away to another package
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:
    decode_jpeg = None

_JPEG = b"\xff\xd8"
_REDUCED = 16  # from so many times the size on, preparation decodes at a half or less


class TorchSource:
    """Files decoded and made square anew for each batch, a batch at a time in each worker.

    JPEG files that all decoders read alike (`plainly_encoded`) are decoded by torchvision, all
    others as `prepare` does it. So a picture has the bits that `prepare` gives it.

    Args:
        pictures: the files.
        options: size, background, fit and limits.
        seed: the run's seed.
        device: where the batches are wanted.
        dtype: of the batches, float32 or bfloat16.
        augmentation: flips and shifts, in px of `size`.
        stride: from one request's first sample to the next one's: the global batch.
        size: side of the batches' pictures in px, a divisor of `options.size`; None for the same.
        workers: processes that decode, two batches ahead each; 0 decodes in this one.
    """

    def __init__(
        self,
        pictures: EncodedPictures,
        options: PrepareOptions,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        augmentation: Augmentation | None = None,
        *,
        stride: int,
        size: int | None = None,
        workers: int = 1,
    ) -> None:
        self.count = len(pictures)
        self.gather = Gather(options.background, seed, dtype, augmentation or Augmentation())
        self._device = device
        self._stride = stride
        self._requests = _Requests(Line(self.count, seed, torch.device("cpu")))
        self._loader: DataLoader[Any] | None = DataLoader(
            _Squares(pictures, options, options.size if size is None else size),
            batch_sampler=self._requests,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_parent,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            generator=torch.Generator(),  # its draws are not the run's
        )
        self._batches: Iterator[Tensor | str] | None = None
        self._coming = (-1, 0)

    def batch(self, first: int, size: int) -> RealBatch:
        """Return the samples first, ..., first + size - 1 of the run.

        Raises:
            DataError: a file is gone or damaged, or a worker process is gone.
        """
        if self._loader is None:
            raise RuntimeError("the source is closed")
        if self._batches is None or self._coming != (first, size):
            self._requests.begin(first, size, self._stride)
            self._batches = _begun(self._loader)
        self._coming = (first + self._stride, size)
        try:
            squares = next(self._batches)
        except (RuntimeError, OSError, EOFError) as error:
            self.close()
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"--loader torch: a process that decodes pictures failed ({reason}); give fewer "
                "--workers, or use --loader mapped"
            ) from error
        if isinstance(squares, str):
            raise DataError(squares)
        return self.gather.whole(squares.to(self._device, non_blocking=True), first)

    def close(self) -> None:
        """End the worker processes."""
        self._batches = self._loader = None  # they end with the last reference to the iterator


class _Requests:
    """The pictures of each request to come, without end."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.begin(0, 1, 1)

    def begin(self, first: int, size: int, stride: int) -> None:
        """Let the next iteration begin with the samples first, ..., first + size - 1."""
        self._first, self._size, self._stride = first, size, stride

    def __iter__(self) -> Iterator[list[int]]:
        first, size, stride = self._first, self._size, self._stride
        while True:
            yield self._line.pictures(first, size).tolist()
            first += stride


class _Squares(Dataset[Any]):
    """What a worker does: a list of numbers to one tensor of squares, or to what is wrong."""

    def __init__(self, pictures: EncodedPictures, options: PrepareOptions, size: int) -> None:
        self._pictures = pictures
        self._options = options
        self._size = size

    def __getitems__(self, indices: list[int]) -> Tensor | str:
        """Return [B, size, size, 3] uint8, or the one line that says what is wrong."""
        name = ""
        try:
            squares = []
            for index in indices:
                name = self._pictures.names[index]
                squares.append(square(self._pictures.read(index), name, self._options))
            return torch.from_numpy(downscaled(np.stack(squares), self._size))
        except DataError as error:
            return str(error)
        except Exception as error:  # an exception would cross the border as many lines
            said = " ".join(str(error).split())[:100]
            return f"{name}: failed: {type(error).__name__}: {said}"


def square(content: bytes, name: str, options: PrepareOptions) -> Pixels:
    """Decode one file, a plain JPEG with torchvision: [size, size, 3] uint8.

    Other files are left to Pillow: it is as fast at PNG, and torchvision's PNG reader ends the
    process on some damaged files. Raises DataError, which calls the file `name`.
    """
    picture = None
    if content.startswith(_JPEG) and plainly_encoded(content):
        with quiet():
            picture = _decoded_jpeg(content, options)
    if picture is None:
        return pillow_square(content, name, options)
    return np.asarray(fit(picture, options.size, options.fit, options.background))


def _decoded_jpeg(content: bytes, options: PrepareOptions) -> Image.Image | None:
    """An RGB picture by torchvision; None where it cannot, or should not as it is too large."""
    if decode_jpeg is None:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if min(width, height) >= _REDUCED * options.size or width * height > options.max_pixels:
        return None
    data = torch.frombuffer(content, dtype=torch.uint8)  # read only, and only read
    try:
        pixels = decode_jpeg(data, ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError:
        return None
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _begun(loader: DataLoader[Any]) -> Iterator[Tensor | str]:
    """Return the iterator of `loader`, whose `next` alone raises when a worker is gone.

    Torch also installs a handler that raises then in the midst of whatever the main thread does.
    """
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return batches


def _as_it_is(batch: Any) -> Any:
    """Leave a batch, which is made whole, as it is."""
    return batch


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; a worker goes on until it is told to stop.

    torchrun signals the whole group of a rank's processes, of which a worker therefore is none.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
