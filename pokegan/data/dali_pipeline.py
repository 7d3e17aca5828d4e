"""NVIDIA DALI, where it is installed: plainly encoded pictures, in batches, to pixels.

A DALI pipeline is lost with the first picture that it cannot decode; a `Branch` is not. This file
is fed with what `plain.py` lets through and knows no file and no torch.
"""

import importlib
import importlib.util
import io
import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib import metadata
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from pokegan.data.geometry import crop_box, pad_geometry
from pokegan.data.options import RGB
from pokegan.data.plain import Plain
from pokegan.errors import ConfigError

BATCH = 64  # pictures that a pipeline holds at once, times the depth of its queue
MOST_PIXELS = 1 << 21  # of a picture, so that a batch is up to 0.5 GiB; Pillow reads larger ones
HOW_TO_GET = "pip install 'pokegan[dali-cu13]' (or 'pokegan[dali]' beside a CUDA 12 torch)"

Inputs: TypeAlias = tuple[npt.NDArray[Any], ...]  # of one picture, the file first
Node: TypeAlias = Any  # DALI has no type for a list of nodes
Graph: TypeAlias = Callable[..., Node]

_DISTRIBUTIONS = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
_CULPRIT = re.compile(r"sample #(\d+)")


def version() -> str | None:
    """The version of DALI; None where it is not installed."""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def available() -> bool:
    """Whether DALI is installed; it is not loaded to find out."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # there is no package of nvidia at all
        return False


def require(what: str) -> None:
    """Raise ConfigError, naming `what` asked for DALI, where it is not installed."""
    if not available():
        raise ConfigError(f"{what} needs NVIDIA DALI: {HOW_TO_GET}")


def suits(header: Plain | None) -> bool:
    """Whether a file with this header, if it is plainly encoded, is for DALI to decode."""
    return header is not None and header.width * header.height <= MOST_PIXELS


class Taken(NamedTuple):
    """A batch that has come out of a branch.

    Attributes:
        outputs: DALI's list of the pictures that could be decoded, in order; None without any.
        lost: what was wrong with the others, by their place in the batch.
    """

    outputs: Any
    lost: dict[int, str]


class Branch:
    """A DALI pipeline that batches are fed to and taken from, in order, at any pace.

    What cannot be decoded is left out and named; the pipeline is then made anew, and all that was
    in it goes through once more.

    Args:
        graph: nodes of the inputs to the node of the output.
        example: inputs of a picture that is sure to be decoded, to fill the queue at the start.
        batch: the most pictures of a batch.
        threads: of the decoder.
        device: index of the GPU, or None to work without one.
        depth: batches under way at once, in the pipeline.
    """

    def __init__(
        self,
        graph: Graph,
        example: Inputs,
        batch: int,
        threads: int,
        device: int | None = None,
        depth: int = 2,
    ) -> None:
        self._graph = graph
        self._example = example
        self._settings = {
            "batch_size": batch,
            "num_threads": threads,
            "device_id": device,
            "prefetch_queue_depth": depth,
            "exec_dynamic": True,
        }
        self._depth = depth
        self._waiting: deque[list[Inputs]] = deque()
        self._running: deque[list[Inputs]] = deque()
        self._pipeline = self._built()

    def feed(self, pictures: Sequence[Inputs]) -> None:
        """Put a batch, of at least one picture, behind those that are in already."""
        self._waiting.append(list(pictures))
        self._schedule()

    def take(self, stream: Any = None) -> Taken:
        """Wait for the oldest batch; on a GPU its pictures are for use on the CUDA `stream`."""
        places = list(range(len(self._running[0])))
        lost: dict[int, str] = {}
        while places:
            try:
                (outputs,) = self._pipeline.outputs(cuda_stream=stream)
            except RuntimeError as error:
                self._leave_out(error, places, lost)
                continue
            self._running.popleft()
            self._schedule()
            return Taken(outputs, lost)
        return Taken(None, lost)

    def discard(self) -> None:
        """Forget all that is in."""
        self._waiting.clear()
        while self._running:
            self.take()

    def _leave_out(self, error: RuntimeError, places: list[int], lost: dict[int, str]) -> None:
        """Take the culprit out of the oldest batch, or all of it, and start again."""
        found = _CULPRIT.search(str(error))
        culprit = int(found.group(1)) if found else len(places)
        reason = _reason(error)
        if culprit < len(places):
            del self._running[0][culprit]
            lost[places.pop(culprit)] = reason
        else:
            lost.update(dict.fromkeys(places, reason))
            places.clear()
            self._running[0].clear()
        self._waiting.extendleft(reversed([batch for batch in self._running if batch]))
        self._running.clear()
        self._pipeline = self._built()
        self._schedule()

    def _schedule(self) -> None:
        while self._waiting and len(self._running) < self._depth:
            self._running.append(self._waiting.popleft())
            self._run(self._running[-1])

    def _run(self, pictures: list[Inputs]) -> None:
        self._enter(pictures)
        self._pipeline.schedule_run()

    def _enter(self, pictures: list[Inputs]) -> None:
        for number, column in enumerate(zip(*pictures, strict=True)):
            self._pipeline.feed_input(_name(number), list(column))

    def _built(self) -> Any:
        """A pipeline past its first run, which is one of as many batches as the queue holds."""
        fn = _module("fn")
        self._pipeline = _module("pipeline").Pipeline(**self._settings)
        with self._pipeline:
            inputs = [
                fn.external_source(name=_name(i), dtype=_dali_type(value), ndim=1)
                for i, value in enumerate(self._example)
            ]
            self._pipeline.set_outputs(self._graph(*inputs))
        self._pipeline.build()
        for _ in range(self._depth):
            self._enter([self._example])
        self._pipeline.schedule_run()
        for _ in range(self._depth):
            self._pipeline.outputs()
        return self._pipeline


def decoding_branch(alpha: bool, threads: int, batch: int = BATCH) -> Branch:
    """A branch without a GPU: files to uint8 [H, W, 3], or RGBA files to [H, W, 4] with `alpha`."""
    return Branch(partial(_decoded, alpha, "cpu"), (encoded(_example(alpha)),), batch, threads)


def square_branch(
    alpha: bool,
    size: int,
    fit: str,
    background: RGB,
    threads: int,
    device: int | None,
    batch: int = BATCH,
) -> Branch:
    """A branch of files, as `square_inputs`, to uint8 [size, size, 3] on `background`.

    All on the GPU `device`, but for the decoding of PNG; with None, without one.
    """
    graph = partial(_squared, alpha, "cpu" if device is None else "mixed", size, background)
    content = _example(alpha)
    example = square_inputs(content, Plain("PNG", 8, 8, 4 if alpha else 3), size, fit)
    return Branch(graph, example, batch, threads, device)


def encoded(content: bytes) -> npt.NDArray[np.uint8]:
    """A file as DALI takes it."""
    return np.frombuffer(content, np.uint8)


def square_inputs(content: bytes, header: Plain, size: int, fit: str) -> Inputs:
    """The inputs of `square_branch` for one file.

    Besides the file these are, each (rows, columns) in px: where the part of the picture that is
    shown begins and ends, its extent in the square, and where the square begins as seen from there.
    """
    width, height = header.width, header.height
    if fit == "crop":
        left, top, right, bottom = crop_box(width, height)
        extent, corner = (size, size), (0, 0)
    else:
        left, top, right, bottom = 0, 0, width, height
        fitted_width, fitted_height, x, y = pad_geometry(width, height, size)
        extent, corner = (fitted_height, fitted_width), (-y, -x)
    region = [np.array(place, np.float32) for place in ((top, left), (bottom, right), extent)]
    return encoded(content), *region, np.array(corner, np.int32)


def _decoded(alpha: bool, decoder: str, file: Node) -> Node:
    fn, types = _module("fn"), _module("types")
    return fn.decoders.image(
        file,
        device=decoder,
        output_type=types.ANY_DATA if alpha else types.RGB,  # ANY_DATA of grey spoils the heap
        adjust_orientation=False,  # what plain.py lets through is upright
        **({} if decoder == "cpu" else {"jpeg_fancy_upsampling": True}),
    )


def _squared(
    alpha: bool,
    decoder: str,
    size: int,
    background: RGB,
    file: Node,
    start: Node,
    end: Node,
    extent: Node,
    corner: Node,
) -> Node:
    fn, types = _module("fn"), _module("types")
    picture = _decoded(alpha, decoder, file)
    device = "cpu" if decoder == "cpu" else "gpu"
    if alpha:
        under = types.Constant(np.array([[background]], np.float32), device=device)
        over = picture[:, :, 0:3]
        share = picture[:, :, 3:4] / 255.0
        picture = fn.cast(under + (over - under) * share, dtype=types.UINT8)  # rounds
        picture = fn.reshape(picture, layout="HWC")
    scaled = fn.resize(
        picture,
        size=extent,
        roi_start=start,
        roi_end=end,
        min_filter=types.INTERP_LANCZOS3,
        mag_filter=types.INTERP_CUBIC,
        antialias=True,
    )
    return fn.slice(
        scaled,
        start=corner,
        shape=(size, size),
        axes=(0, 1),
        out_of_bounds_policy="pad",
        fill_values=list(background),
    )


@lru_cache(maxsize=2)
def _example(alpha: bool) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA" if alpha else "RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def _module(name: str) -> Any:
    """A module of DALI, which is typed in some releases and is not installed everywhere."""
    return importlib.import_module(f"nvidia.dali.{name}")


def _name(number: int) -> str:
    return f"input{number}"


def _dali_type(value: npt.NDArray[Any]) -> Any:
    types = _module("types")
    kinds = {"uint8": types.UINT8, "int32": types.INT32, "float32": types.FLOAT}
    return kinds[value.dtype.name]


def _reason(error: RuntimeError) -> str:
    """What DALI says is wrong, without its account of where in a pipeline."""
    said = str(error).partition("encountered:")[2] or str(error)
    said = said.partition("Current pipeline")[0].partition(":")[2]
    return " ".join(said.split())[:200] or "no reason given"
