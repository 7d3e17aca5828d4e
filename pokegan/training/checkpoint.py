"""Complete states on disk: `checkpoints/step-00001000.pt`, loaded without unpickling code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pokegan.damage import UNUSABLE
from pokegan.errors import CheckpointError
from pokegan.files import atomic_path

FORMAT = 1


def save(folder: Path, step: int, state: Mapping[str, Any], keep: int) -> Path:
    """Write `state` as the checkpoint of `step`, then remove all but the newest `keep`.

    `state` holds only tensors, numbers, strings, lists and dictionaries.
    """
    path = folder / f"step-{step:08d}.pt"
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, "step": step, **state}, temporary)
    others = [other for other in available(folder) if other != path]
    for old in others[: max(0, len(others) + 1 - keep)]:
        old.unlink(missing_ok=True)
    return path


def available(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read one checkpoint.

    Raises:
        CheckpointError: it is missing, damaged, or of another format.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint") from None
    except UNUSABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged or no checkpoint ({reason[:120]})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this pokegan (format {FORMAT})")
    return state


def newest(folder: Path) -> tuple[Path, dict[str, Any], list[CheckpointError]]:
    """Return the newest checkpoint that can be read: its path, its state, and the errors of newer.

    Raises:
        CheckpointError: there is none; the message is that of the newest damaged one, if any.
    """
    passed_over: list[CheckpointError] = []
    for path in reversed(available(folder)):
        try:
            return path, load(path), passed_over
        except CheckpointError as failure:
            passed_over.append(failure)
    nothing = CheckpointError(f"{folder}: no checkpoint here to resume from")
    raise passed_over[0] if passed_over else nothing


def set_aside_newer(folder: Path, path: Path) -> None:
    """Rename checkpoints newer than `path` to `*.damaged`: they are never taken for good."""
    for other in available(folder):
        if other.name > path.name:
            other.replace(other.with_name(other.name + ".damaged"))
