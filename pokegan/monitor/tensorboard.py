"""TensorBoard events of a run. torch and tensorboard are imported when a writer is made."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pokegan.monitor.layers import layer_weights

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.tensorboard import SummaryWriter

BINS = 64  # of a histogram; TensorBoard shows 30
NARROW = 1e-30  # a range in which float32 has no room for bins


class TensorBoardWriter:
    """Writes scalars, pictures and histograms for TensorBoard, or does nothing and says why.

    Attributes:
        disabled: None, or one line that says why nothing is written; the caller shows it, once.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        """Open a new event file in `folder`.

        Args:
            folder: holds the event files of one run; made when missing.
            purge_step: TensorBoard forgets older events of this step and later ones, so a run
                resumed after step s gives s + 1. None for a new run.
        """
        self.disabled: str | None = None
        self._writer: SummaryWriter | None = None
        try:
            from torch.utils import tensorboard
        except ImportError as error:
            self.disabled = f"no TensorBoard events are written ({error}): pip install tensorboard"
            return
        self._writer = tensorboard.SummaryWriter(str(folder), purge_step=purge_step)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write each value under its own name; one that is None or not finite is left out."""
        if self._writer is None:
            return
        for tag, value in values.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(tag, value, step)

    def picture(self, step: int, tag: str, image: NDArray[np.uint8]) -> None:
        """Write one picture, [H, W, 3] uint8."""
        if self._writer is not None:
            self._writer.add_image(tag, image, step, dataformats="HWC")

    def histogram(self, step: int, tag: str, values: "Tensor") -> None:
        """Write how the elements of `values` are distributed: 64 bins, from the least to the most.

        Counted on the tensor's device, which is waited for. Elements that are not finite are left
        out; without any other nothing is written.
        """
        if self._writer is None:
            return
        import torch

        kept = values.detach().flatten().float()
        kept = kept[kept.isfinite()]
        if not kept.numel():
            return
        low, high = (float(value) for value in kept.aminmax())
        counts, limits = _counted(kept, low, high)
        self._writer.add_histogram_raw(
            tag,
            min=low,
            max=high,
            num=len(kept),
            sum=float(kept.sum(dtype=torch.float64)),
            sum_squares=float(kept.square().sum(dtype=torch.float64)),
            bucket_limits=limits,
            bucket_counts=counts,
            global_step=step,
        )

    def network(self, step: int, name: str, network: "nn.Module") -> None:
        """Write a histogram of each layer's weight and, where it has one, of its gradient.

        They are `weights/<name>/<layer>` and `gradients/<name>/<layer>`. Waits for the device: for
        some moments of a run, after a backward pass.
        """
        if self._writer is None:
            return
        for layer, weight in layer_weights(network).items():
            self.histogram(step, f"weights/{name}/{layer}", weight)
            if weight.grad is not None:
                self.histogram(step, f"gradients/{name}/{layer}", weight.grad)

    def close(self) -> None:
        """Put everything on disk and close the file; nothing can be written after."""
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _counted(values: "Tensor", low: float, high: float) -> tuple[list[int], list[float]]:
    """Return how many of `values` [n] lie in each bin of [low, high], and the bins' upper limits.

    Counts are whole numbers: those of `torch.histc` are float32, which cannot count beyond 2^24.
    """
    if high - low < NARROW:
        return [len(values)], [high]
    bins = values.sub(low).mul_(BINS / (high - low)).clamp_(0, BINS - 1).byte()
    counts: list[int] = bins.bincount(minlength=BINS).tolist()
    return counts, np.linspace(low, high, BINS + 1)[1:].tolist()
