"""Curves of a run as PNG files: losses and scores over the images seen.

Figures are made and drawn by matplotlib's objects, never by pyplot: no display is needed and no
figure outlives its file.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pokegan.files import atomic_path

Record = Mapping[str, float | None]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

INK = "#3b3f46"
LINES = "#d9dce1"
# Okabe and Ito's colours, told apart also by the colour-blind; yellow left out on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
SCORE_LABELS = {"score/real": "D(x)", "score/fake": "D(G(z))"}


def plot_losses(records: Sequence[Record], path: Path) -> bool:
    """Draw every `loss/...` of `records` over `kimg` to the PNG file `path`, atomically.

    A record is a line of stats.jsonl; values that are missing or null leave a gap. With `epoch`
    in the records the top axis counts epochs. Returns False, and writes nothing, when no record
    has a loss.
    """
    curves = _curves(records, "loss/")
    if not curves:
        return False
    figure, axes = _figure("loss")
    _draw(axes, {key.removeprefix("loss/"): curve for key, curve in curves.items()})
    _add_epochs(axes, records)
    _save(figure, path)
    return True


def plot_scores(records: Sequence[Record], path: Path) -> bool:
    """Draw the mean judgements D(x) and D(G(z)) over `kimg` to the PNG file `path`, atomically.

    They are `score/real` and `score/fake` of `records`, any further `score/...` goes by its name.
    When all lie in [0, 1] they are taken as probabilities, and 1/2, where the discriminator cannot
    tell, is marked. Returns False, and writes nothing, when no record has a score.
    """
    curves = _curves(records, "score/")
    if not curves:
        return False
    figure, axes = _figure("mean output of the discriminator")
    keys = [key for key in SCORE_LABELS if key in curves]  # first, for their colours
    keys += [key for key in curves if key not in SCORE_LABELS]
    _draw(axes, {SCORE_LABELS.get(key, key.removeprefix("score/")): curves[key] for key in keys})
    values = np.concatenate([values for _, values in curves.values()])
    if np.nanmin(values) >= 0.0 and np.nanmax(values) <= 1.0:
        axes.set_ylim(-0.02, 1.02)
        axes.axhline(0.5, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    _add_epochs(axes, records)
    _save(figure, path)
    return True


def _curves(records: Sequence[Record], prefix: str) -> dict[str, Curve]:
    """Return kimg and values, [n] float64 each, by key; not finite is NaN, all NaN is left out."""
    points: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        kimg = record.get("kimg")
        for key, value in record.items():
            if key.startswith(prefix) and kimg is not None:
                number = math.nan if value is None or math.isinf(value) else value
                points.setdefault(key, []).append((kimg, number))
    arrays = {key: np.array(found, np.float64) for key, found in points.items()}  # [n, 2]
    return {
        key: (array[:, 0], array[:, 1])
        for key, array in arrays.items()
        if not np.isnan(array[:, 1]).all()
    }


def _figure(label: str) -> tuple[Figure, Axes]:
    """Return an empty figure of 1152 x 648 px with quiet axes over kimg."""
    figure = Figure(figsize=(8.0, 4.5), dpi=144, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel("images seen (thousands)", color=INK)
    axes.set_ylabel(label, color=INK)
    axes.grid(color=LINES, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure, axes


def _draw(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """Draw each curve raw and faint under its smoothed self, spikes cut off, with a legend."""
    lows, highs = [], []
    for index, (label, (kimg, values)) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        style = "-" if index < len(COLOURS) else "--"
        low, high = _range(values)
        marker = "o" if len(values) == 1 else None
        axes.plot(kimg, values, color=colour, alpha=0.22, linewidth=0.8)
        axes.plot(
            kimg,
            _smooth(np.clip(values, low, high)),
            color=colour,
            linewidth=1.8,
            linestyle=style,
            marker=marker,
            label=label,
        )
        lows.append(low)
        highs.append(high)
    margin = 0.05 * (max(highs) - min(lows)) or 0.5
    axes.set_ylim(min(lows) - margin, max(highs) + margin)
    axes.margins(x=0.01)
    axes.figure.legend(frameon=False, labelcolor=INK, ncols=4, loc="outside lower center")


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the range worth showing: without the lowest and the highest hundredth.

    One spike of a GAN's loss would flatten all the rest; below 100 values nothing is cut.
    """
    ordered = np.sort(values[~np.isnan(values)])
    cut = len(ordered) // 100
    return float(ordered[cut]), float(ordered[-1 - cut])


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over a Hann window of a twentieth of the curve, [n]; gaps count for nothing.

    The window is cut at the ends, so the curve starts and ends where the values do.
    """
    width = len(values) // 40 * 2 + 1  # odd, so that nothing is shifted
    window = np.hanning(width + 2)[1:-1]
    known = ~np.isnan(values)
    total = np.convolve(np.where(known, values, 0.0), window, mode="same")
    weight = np.convolve(known.astype(np.float64), window, mode="same")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, total / weight, np.nan)


def _add_epochs(axes: Axes, records: Sequence[Record]) -> None:
    """Count epochs along the top, when the last record tells how many images make one."""
    kimg, epoch = (records[-1].get(key) for key in ("kimg", "epoch"))
    if not kimg or not epoch:
        return
    each = kimg / epoch
    top = axes.secondary_xaxis(
        "top", functions=(lambda x: np.divide(x, each), lambda x: np.multiply(x, each))
    )
    top.set_xlabel("epochs", color=INK)
    top.tick_params(colors=INK, length=0)
    top.spines["top"].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
