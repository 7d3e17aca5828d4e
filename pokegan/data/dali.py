"""Batches of a set that fits nowhere: its files decoded anew each epoch, ahead of the training.

Which picture a sample shows, and how it is flipped and moved, is a pure function of the run's seed
and the sample's number, as in every source. So there is no state of a reader to keep: a run that
goes on in the middle of an epoch asks for its next sample and gets it, bit for bit.
"""

import os
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pokegan.data import dali_pipeline
from pokegan.data.batches import Augmentation, Gather, Line, RealBatch
from pokegan.data.dali_pipeline import BATCH, Branch
from pokegan.data.decode import decode
from pokegan.data.encoded import EncodedPictures
from pokegan.data.options import MAX_PIXELS, RGB
from pokegan.data.pixel_fit import fit_pixels
from pokegan.data.plain import Plain, plain_header
from pokegan.data.refusals import DecodeError
from pokegan.data.square import fit as fit_picture
from pokegan.data.thread_pool import Call, ThreadPool, close_before_what_is_loaded
from pokegan.errors import ConfigError, DataError

__all__ = ["DaliSource"]


class _File(NamedTuple):
    """A picture's file; `header` is None where Pillow is to read it."""

    picture: int
    content: bytes
    header: Plain | None


@dataclass
class _Job:
    """A batch in the making.

    Attributes:
        first: index of its first sample.
        size: number of its samples.
        reads: the files, a share of the samples each.
        files: the file of each sample, once they are read.
        pieces: what DALI was given: whether it has alpha, and the places of the samples.
        by_pillow: the squares that Pillow makes, by the place of the sample.
        fed: done when DALI has its part.
        taken: [size, px, px, 3] uint8 on the device, and when that is true there.
    """

    first: int
    size: int
    reads: list[Call[list[_File]]]
    files: list[_File] = field(default_factory=list)
    pieces: list[tuple[bool, list[int]]] = field(default_factory=list)
    by_pillow: dict[int, Call[Tensor]] = field(default_factory=dict)
    fed: Call[None] | None = None
    taken: Call[tuple[Tensor, torch.cuda.Event | None]] | None = None


class DaliSource:
    """Picture files, decoded by NVIDIA DALI while the training works on the batch before.

    On a GPU, JPEG is decoded there and PNG by the processor, and all the rest is done there.
    Without one, DALI decodes in its threads, and the squares have the bits that `prepare` gives
    them, but for a level here and there. Files that decoders read in different ways (`plain.py`),
    very large ones, and those that DALI fails at, which a RuntimeWarning names, are Pillow's.

    Args:
        pictures: the files.
        background: RGB bytes under transparent pixels, around pictures, and where shifts uncover.
        size: side of the pictures in px.
        fit: "pad" or "crop", as for `prepare`.
        seed: the run's seed.
        device: where the batches are wanted.
        dtype: of the batches, float32 or bfloat16.
        augmentation: flips and shifts.
        stride: from one request's first sample to the next one's: the global batch; None for the
            size of the requests. Other requests are served too, without a head start.
        threads: of DALI, and as many beside it that read and resize; None for one a processor.
        prefetch: batches under way behind the one that is asked for.
        max_pixels: larger pictures are an error.

    Raises:
        ConfigError: DALI is not installed.
    """

    def __init__(
        self,
        pictures: EncodedPictures,
        background: RGB,
        size: int,
        fit: str,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        augmentation: Augmentation | None = None,
        *,
        stride: int | None = None,
        threads: int | None = None,
        prefetch: int = 2,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        dali_pipeline.require("--loader dali")
        self.count = len(pictures)
        self.gather = Gather(background, seed, dtype, augmentation or Augmentation())
        self._line = Line(self.count, seed, torch.device("cpu"))
        self._pictures = pictures
        self._background, self._size, self._fit = background, size, fit
        self._max_pixels = max_pixels
        self._device = device
        self._side = _new_stream(device)
        self._stride = stride
        self._prefetch = max(1, prefetch)
        self._threads = threads or _processors()
        self._pool = ThreadPool(self._threads)
        self._driver = ThreadPool(1)  # alone talks to DALI
        self._branches: dict[bool, Branch] = {}
        self._given_up: set[int] = set()
        self._jobs: deque[_Job] = deque()
        self._held: deque[tuple[torch.cuda.Event, list[Tensor]]] = deque()  # being read on a GPU
        self._closed = False

    def batch(self, first: int, size: int) -> RealBatch:
        """Return the samples first, ..., first + size - 1 of the run.

        Raises:
            DataError: a file cannot be read, or holds no picture; the message names it.
            ConfigError: DALI cannot start, as on a GPU with too old a driver.
        """
        if self._closed:
            raise RuntimeError("the source is closed")
        if not self._jobs or (self._jobs[0].first, self._jobs[0].size) != (first, size):
            self._discard()
            self._begin(first, size)
        while len(self._jobs) <= self._prefetch:
            self._begin(self._jobs[-1].first + (self._stride or size), size)
        taken = self._jobs.popleft().taken
        assert taken is not None  # begun with the job that came after
        squares, ready = taken.result()
        if ready is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(ready)
            squares.record_stream(stream)
        return self.gather.whole(squares, first)

    def close(self) -> None:
        """End the threads and the pipelines; there are no more batches afterwards."""
        if not self._closed:
            self._discard()
            self._closed = True
            self._driver.close()
            self._pool.close()
            self._branches.clear()

    def _begin(self, first: int, size: int) -> None:
        """Start a batch, and let the one before it, which DALI has by then, be taken."""
        order = self._line.pictures(first, size).tolist()
        share = -(-size // self._threads)
        shares = [order[start : start + share] for start in range(0, size, share)]
        job = _Job(first, size, [self._pool.submit(self._read, some) for some in shares])
        job.fed = self._driver.submit(self._feed, job)
        if self._jobs:
            self._jobs[-1].taken = self._driver.submit(self._take, self._jobs[-1])
        self._jobs.append(job)

    def _discard(self) -> None:
        """Forget the batches that are under way."""
        for job in self._jobs:
            for call in (*job.reads, job.fed, job.taken):
                if call is not None:
                    call.cancel()
        self._jobs.clear()
        self._driver.submit(self._discard_fed).result()

    def _discard_fed(self) -> None:
        self._let_go(all_but=0)
        for branch in self._branches.values():
            branch.discard()

    def _read(self, pictures: list[int]) -> list[_File]:
        files = []
        for picture in pictures:
            content = self._pictures.read(picture)
            header = None if picture in self._given_up else plain_header(content)
            suits = dali_pipeline.suits(header)
            files.append(_File(picture, content, header if suits else None))
        return files

    def _feed(self, job: _Job) -> None:
        """Divide a batch between DALI's branches and Pillow."""
        job.files = [file for read in job.reads for file in read.result()]
        kinds: dict[bool, list[int]] = {False: [], True: []}
        for place, file in enumerate(job.files):
            if file.header is None:
                job.by_pillow[place] = self._pool.submit(self._by_pillow, file)
            else:
                kinds[file.header.channels == 4].append(place)
        for alpha, chosen in kinds.items():
            for start in range(0, len(chosen), BATCH):
                places = chosen[start : start + BATCH]
                self._branch(alpha).feed([self._inputs(job.files[place]) for place in places])
                job.pieces.append((alpha, places))

    def _inputs(self, file: _File) -> dali_pipeline.Inputs:
        if self._side is None:
            return (dali_pipeline.encoded(file.content),)
        assert file.header is not None
        return dali_pipeline.square_inputs(file.content, file.header, self._size, self._fit)

    def _branch(self, alpha: bool) -> Branch:
        if alpha not in self._branches:
            try:
                self._branches[alpha] = self._new_branch(alpha)
                close_before_what_is_loaded()  # DALI's end would fail all batches under way
            except RuntimeError as error:
                said = " ".join(str(error).split())[:200]
                raise ConfigError(
                    f"--loader dali: DALI cannot start here ({said}): use --loader torch"
                ) from error
        return self._branches[alpha]

    def _new_branch(self, alpha: bool) -> Branch:
        if self._side is None:
            return dali_pipeline.decoding_branch(alpha, self._threads)
        shape = (self._size, self._fit, self._background)
        number = self._side.device.index
        return dali_pipeline.square_branch(alpha, *shape, self._threads, number)

    def _take(self, job: _Job) -> tuple[Tensor, torch.cuda.Event | None]:
        """Put a batch together from what DALI and Pillow made."""
        assert job.fed is not None
        job.fed.result()
        return self._take_on_host(job) if self._side is None else self._take_on_device(job)

    def _take_on_host(self, job: _Job) -> tuple[Tensor, None]:
        squares = torch.empty(job.size, self._size, self._size, 3, dtype=torch.uint8)
        work = []
        for places, outputs in self._outputs(job):
            share = -(-len(places) // self._threads)
            pieces = (
                torch.split(from_dlpack(outputs.as_tensor()), share)  # all of one shape
                if outputs.is_dense_tensor()
                else [from_dlpack(picture)[None] for picture in outputs]
            )
            for pixels in pieces:
                target, places = places[: len(pixels)], places[len(pixels) :]
                work.append(self._pool.submit(self._resize, squares, target, pixels))
        for call in work:
            call.result()
        for place, square in job.by_pillow.items():
            squares[place] = square.result()
        return squares, None

    def _take_on_device(self, job: _Job) -> tuple[Tensor, torch.cuda.Event]:
        """The thread does not wait for the GPU; its stream there follows DALI's."""
        order: list[int] = []
        parts: list[Tensor] = []
        ready = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch's
        with torch.cuda.stream(self._side):
            for places, outputs in self._outputs(job):
                order += places
                parts.append(from_dlpack(outputs.as_tensor()))
            if job.by_pillow:
                order += list(job.by_pillow)
                rows = torch.stack([square.result() for square in job.by_pillow.values()])
                parts.append(rows.pin_memory().to(self._device, non_blocking=True))
            sorting = torch.tensor(order).argsort().pin_memory()
            sorted_on_device = sorting.to(self._device, non_blocking=True)
            squares = torch.cat(parts).index_select(0, sorted_on_device)
            ready.record()
        self._held.append((ready, parts))
        self._let_go(all_but=1)
        return squares, ready

    def _let_go(self, all_but: int) -> None:
        """Drop DALI's pictures once they are read: it takes their memory back at once."""
        while len(self._held) > all_but:
            self._held[0][0].synchronize()
            self._held.popleft()

    def _outputs(self, job: _Job) -> Iterator[tuple[list[int], Any]]:
        """Places and pictures of each piece of a batch; what DALI lost is handed to Pillow."""
        for alpha, places in job.pieces:
            taken = self._branches[alpha].take(self._side)
            for number, reason in taken.lost.items():
                self._give_up(job, places[number], reason)
            if taken.outputs is not None:
                yield [p for i, p in enumerate(places) if i not in taken.lost], taken.outputs

    def _give_up(self, job: _Job, place: int, reason: str) -> None:
        """Leave a picture to Pillow, now and in the epochs to come."""
        file = job.files[place]
        job.by_pillow[place] = self._pool.submit(self._by_pillow, file)
        if file.picture not in self._given_up:
            self._given_up.add(file.picture)
            name = self._pictures.names[file.picture]
            said = f"{name}: DALI failed ({reason}); Pillow reads it"
            warnings.warn(said, RuntimeWarning, stacklevel=1)

    def _resize(self, squares: Tensor, places: list[int], pixels: Tensor) -> None:
        squares[places] = fit_pixels(pixels, self._size, self._fit, self._background)

    def _by_pillow(self, file: _File) -> Tensor:
        """One picture as `prepare` makes it: [size, size, 3] uint8."""
        target = self._size if self._fit == "pad" else 2 * self._size
        try:
            picture = decode(file.content, self._background, self._max_pixels, target)
        except DecodeError as error:
            raise DataError(f"{self._pictures.names[file.picture]}: {error}") from error
        square = fit_picture(picture, self._size, self._fit, self._background)
        return torch.from_numpy(np.array(square))


def _new_stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
