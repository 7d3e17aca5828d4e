"""TensorBoard events of a run. torch and tensorboard are imported when a writer is made."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardWriter:
    """Writes scalars, pictures and text for TensorBoard, or does nothing and says why.

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

    def text(self, step: int, tag: str, text: str) -> None:
        """Write text, shown as Markdown."""
        if self._writer is not None:
            self._writer.add_text(tag, text, step)

    def flush(self) -> None:
        """Put on disk what has been written so far; TensorBoard itself does so twice a minute."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Put everything on disk and close the file; nothing can be written after."""
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
