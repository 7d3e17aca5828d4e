"""Which batch source a run reads from: the names of `--loader`, and the rule of `auto`."""

from dataclasses import dataclass
from typing import TypeAlias

import torch

from pokegan.data import dali_pipeline
from pokegan.data.fetch import Say, tell
from pokegan.data.free_memory import free_bytes
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.data.preparation import Progress
from pokegan.data.sources import open_data
from pokegan.data.streamed import StreamedSet, open_streamed
from pokegan.errors import ConfigError

RESIDENT_SHARE = 0.25  # of the free memory; the rest is for networks, activations and optimisers
STREAMING = ("torch", "dali")

PictureSet: TypeAlias = PackedImages | StreamedSet


@dataclass(frozen=True)
class Choice:
    """A loader, and why it is this one.

    Attributes:
        name: resident, mapped, torch or dali.
        why: for the people who start a run.
    """

    name: str
    why: str


def open_pictures(
    data: str,
    options: PrepareOptions,
    loader: str,
    progress: Progress | None = None,
    say: Say = tell,
) -> PictureSet:
    """The pictures that `data` means: packed, or as files where `loader` decodes them each epoch.

    Raises DataError as `open_data` and `open_streamed` do.
    """
    if loader in STREAMING:
        return open_streamed(data, options, progress=progress, say=say)
    return open_data(data, options, progress=progress, say=say)


def choose(loader: str, pixels: int, device: torch.device, processes: int = 1) -> Choice:
    """Return the loader for a set of `pixels` bytes when `loader` is asked for.

    `auto` is resident when the set takes at most `RESIDENT_SHARE` of what is free on the device,
    divided by the `processes` that share it, and mapped otherwise. Both give the same batches.

    Raises:
        ConfigError: resident is asked for, and the set is larger than what is free.
    """
    if loader in STREAMING:
        return Choice(loader, "picture files are decoded anew each epoch")
    free = free_bytes(device) // processes
    takes = f"the pictures take {_amount(pixels)}"
    if loader == "auto":
        limit = int(RESIDENT_SHARE * free)
        share = f"{RESIDENT_SHARE:.0%} of the {_amount(free)} free on {device.type}"
        if pixels <= limit:
            return Choice("resident", f"{takes}, at most {share}")
        return Choice("mapped", f"{takes}, more than {share}")
    if loader == "resident" and pixels > free:
        raise ConfigError(
            f"--loader resident: {takes}, and {_amount(free)} is free on {device.type}; use "
            "--loader auto or mapped"
        )
    return Choice(loader, takes)


def check_loader(loader: str, workers: int | None) -> None:
    """Raise ConfigError when `loader` cannot be had here, or `workers` would have no effect."""
    if workers is not None and loader not in STREAMING:
        raise ConfigError(
            f"--workers {workers} has no effect without --loader {' or '.join(STREAMING)}"
        )
    if loader == "dali" and workers == 0:
        raise ConfigError("--workers 0: DALI decodes in threads of its own, at least 1 is wanted")
    if loader == "dali" and not dali_pipeline.available():
        raise ConfigError(
            "--loader dali: DALI is not installed: pip install 'pokegan[dali]' (CUDA 12) or "
            "'pokegan[dali-cu13]', or use --loader torch"
        )


def _amount(count: int) -> str:
    """Bytes for people, such as 59 MB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
