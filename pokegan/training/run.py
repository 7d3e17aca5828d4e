"""What a finished run is to its caller."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """What training leaves.

    Attributes:
        folder: the run's folder.
        steps: steps done in all.
        images: pictures seen in all.
        seconds: time in the training loop, earlier parts of a resumed run included.
        spent: seconds of this process by part of the loop: data, step, logging, sampling,
            checkpoint, metrics, and other; what the end writes included, plots not.
        signal: the signal that ended the run before its length, or None.
        grid: the newest sample grid.
        animation: the samples over time; not there without --plots.
        weights: the averaged generator.
        report: the HTML report; likewise.
    """

    folder: Path
    steps: int
    images: int
    seconds: float
    spent: Mapping[str, float]
    signal: signal.Signals | None
    grid: Path
    animation: Path
    weights: Path
    report: Path
