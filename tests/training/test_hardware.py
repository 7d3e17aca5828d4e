"""What a run says of the hardware that it finds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pokegan.config import RunConfig
from pokegan.errors import ConfigError
from pokegan.training.growth import Growth
from pokegan.training.hardware import memory_told
from pokegan.training.session import train


def of_the_processor() -> None:
    torch.empty(1 << 50)


def of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


@pytest.mark.parametrize(
    ("ask", "where"), [(of_the_processor, "memory is"), (of_a_gpu, "the GPU's memory is")]
)
def test_a_run_without_enough_memory_says_what_takes_less(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Any, where: str
) -> None:
    monkeypatch.setattr(Growth, "prepare", lambda *_: ask())
    with pytest.raises(ConfigError, match=f"^{where} not enough; a smaller --batch") as caught:
        train(tiny, tmp_path / "run")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_told():
        raise RuntimeError("shapes do not fit")
