"""Gradient flow as PNG files: the layers of a network at one step, and over a run.

A record is one of gradients.jsonl: `kimg`, `network`, and the lists `layers`, `mean` and `max` of
|gradient|, null where it was not finite.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from pokegan.render.figures import COLOURS, INK, KIMG, LINES, new_figure, quiet, save_figure

Record = Mapping[str, Any]
ROW = 0.21  # height of a layer in inches, where there is room
MOST_ROWS = 60  # with more layers they stand closer, and not every one is named
TICKS = "{x:g}"


def plot_gradient_flow(record: Record, path: Path, title: str | None = None) -> bool:
    """Draw mean and maximum of |gradient| a layer to the PNG file `path`, atomically.

    Args:
        record: one of gradients.jsonl.
        path: the PNG file.
        title: such as "generator, step 1000"; none by default.

    Returns:
        False, and nothing is written, when the record has no layer.
    """
    layers: list[str] = record["layers"]
    if not layers:
        return False
    mean, most = (np.array(record[key], np.float64) for key in ("mean", "max"))  # [L], null is NaN
    figure, axes = new_figure("|gradient|", "", _height(len(layers)))
    rows = np.arange(len(layers))
    low, high = _span(np.concatenate([mean, most]))
    axes.set_xscale("log")
    axes.set_xlim(low / 2, high * 2)
    axes.hlines(rows, _shown(mean, low), _shown(most, low), color=LINES, linewidth=2.5, zorder=2)
    for index, (label, values) in enumerate({"mean": mean, "maximum": most}.items()):
        known = np.where(values > 0, values, np.nan)
        marker = "os"[index]
        axes.plot(known, rows, marker, color=COLOURS[index], markersize=5, label=label, zorder=3)
    for row in rows[~(mean > 0)]:
        note = "not finite" if math.isnan(mean[row]) else "zero"
        axes.annotate(note, (0.01, row), xycoords=("axes fraction", "data"), color=INK, va="center")
    axes.xaxis.set_major_locator(LogLocator(numticks=9))
    axes.xaxis.set_major_formatter(StrMethodFormatter(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    _name_rows(axes, layers)
    figure.legend(frameon=False, labelcolor=INK, ncols=2, loc="outside lower center")
    if title:
        axes.set_title(title, color=INK, loc="left")
    save_figure(figure, path)
    return True


def plot_gradient_history(records: Sequence[Record], path: Path, network: str) -> bool:
    """Draw the mean |gradient| of the layers of `network` over `kimg` as a heat map to a PNG file.

    Grey is where a layer had no gradient (frozen, or not yet there) or none that is finite; black
    is a gradient of zeros. Layers that come in the middle of a run stand where they do in the
    network. Returns False, and writes nothing, when `records` tell of no layer of `network`.
    """
    own = [record for record in records if record["network"] == network and record["layers"]]
    columns = {
        record["kimg"]: dict(zip(record["layers"], record["mean"], strict=True)) for record in own
    }
    if not columns:
        return False
    layers = _merged([record["layers"] for record in own])
    table = [[column.get(layer) for column in columns.values()] for layer in layers]
    values = np.array(table, np.float64)  # [L, n], null is NaN
    low, high = _span(values)
    values[values == 0] = low / 2  # below the scale
    figure, axes = new_figure(KIMG, "", _height(len(layers)))
    axes.grid(visible=False)
    axes.set_facecolor(LINES)
    colours = colormaps["viridis"].with_extremes(under="black", bad=LINES)
    edges = _edges(np.array(list(columns), np.float64))
    sides = np.arange(len(layers) + 1) - 0.5
    image = axes.pcolorfast(edges, sides, values, cmap=colours, norm=LogNorm(low, high))
    _name_rows(axes, layers)
    bar = figure.colorbar(
        image, pad=0.02, aspect=10 * figure.get_figheight(), format=StrMethodFormatter(TICKS)
    )
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)
    quiet(bar.ax)
    axes.set_title(f"mean |gradient| of the {network}", color=INK, loc="left")
    save_figure(figure, path)
    return True


def _height(layers: int) -> float:
    """Return the height of a figure in inches."""
    return max(2.5, 1.4 + ROW * min(layers, MOST_ROWS))


def _name_rows(axes: Axes, layers: Sequence[str]) -> None:
    """Name the rows 0, 1, ... from the top down; of very many only every second or so."""
    every = -(-len(layers) // MOST_ROWS)
    axes.set_yticks(range(0, len(layers), every), layers[::every], fontsize="small")
    axes.set_ylim(len(layers) - 0.5, -0.5)


def _span(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the least and the largest positive value, never equal; (0.1, 1) when there is none."""
    positive = values[values > 0]  # not NaN
    if not positive.size:
        return 0.1, 1.0
    low, high = float(positive.min()), float(positive.max())
    return (low, high) if high > 1.01 * low else (low / 2, high * 2)


def _shown(values: NDArray[np.float64], low: float) -> NDArray[np.float64]:
    """Return values with zeros moved to where a logarithmic axis from `low` / 2 on starts."""
    return np.where(values == 0, low / 2, values)


def _merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of all `orders`, a new one behind the name that it follows in its own."""
    merged: list[str] = []
    for names in orders:
        place = 0
        for name in names:
            if name in merged:
                place = merged.index(name) + 1
            else:
                merged.insert(place, name)
                place += 1
    return merged


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where columns of rising `centres` [n] begin and end, [n + 1]: half-way between."""
    if len(centres) == 1:
        half = centres[0] / 2 or 0.5
        return np.array([centres[0] - half, centres[0] + half])
    middles = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - middles[0], 2 * centres[-1] - middles[-1]
    return np.concatenate([[first], middles, [last]])
