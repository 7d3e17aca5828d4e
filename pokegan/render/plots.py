"""Curves of a run as PNG files: losses, scores, penalties and the like over the images seen."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from pokegan.render.figures import COLOURS, INK, KIMG, new_figure, save_figure

Record = Mapping[str, float | None]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

SCORE_LABELS = {
    "score/real": "D(x)",
    "score/fake": "D(G(z))",
    "score/fake_after": "D(G(z)) in the generator's turn",
}
WIDE = 100.0  # curves whose values span more than this are drawn on a logarithmic axis


def plot_losses(records: Sequence[Record], path: Path) -> bool:
    """Draw every `loss/...` of `records` over `kimg` to the PNG file `path`, atomically.

    A record is a line of stats.jsonl; null leaves a gap, a record without the key is passed over.
    With `epoch` in the records the top axis counts epochs. Returns False, and writes nothing, when
    no record has a loss.
    """
    return _plot(records, path, "loss/", "loss")


def plot_penalties(records: Sequence[Record], path: Path) -> bool:
    """Draw every `penalty/...` as `plot_losses` draws losses; logarithmic when they span > 100."""
    return _plot(records, path, "penalty/", "penalty", may_be_log=True)


def plot_gradient_norms(records: Sequence[Record], path: Path) -> bool:
    """Draw every `gradient/...`, the norm of a network's gradient, as `plot_penalties` does."""
    return _plot(records, path, "gradient/", "Euclidean norm of the gradient", may_be_log=True)


def plot_learning_rates(records: Sequence[Record], path: Path) -> bool:
    """Draw every `lr/...` of `records` over `kimg` to the PNG file `path`, atomically.

    Every value is drawn as it is; networks of the same rates share a curve. The axis starts at 0,
    or is logarithmic when the rates span more than a factor of 10. Returns False, and writes
    nothing, when no record has a learning rate.
    """
    curves = _curves(records, "lr/")
    if not curves:
        return False
    figure, axes = new_figure(KIMG, "learning rate")
    for index, (label, (kimg, rates)) in enumerate(_shared(curves, "lr/").items()):
        marker = "o" if len(rates) == 1 else None
        axes.plot(kimg, rates, **_style(index), linewidth=1.8, marker=marker, label=label)
    every = np.concatenate([rates for _, rates in curves.values()])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    if low > 0 and high > 10 * low:
        _make_logarithmic(axes, low, high)
    else:
        axes.set_ylim(0.0, 1.08 * high or 1.0)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.margins(x=0.01)
    _finish(figure, axes, records, path)
    return True


def plot_scores(records: Sequence[Record], path: Path, probabilities: bool | None = None) -> bool:
    """Draw the mean judgements D(x) and D(G(z)) over `kimg` to the PNG file `path`, atomically.

    They are `score/real` and `score/fake` of `records`, any further `score/...` goes by its name.

    Args:
        records: lines of stats.jsonl.
        path: the PNG file.
        probabilities: whether the scores are the probability of being real (of a cross-entropy
            loss) and not raw outputs (of any other). Probabilities have an axis from 0 to 1, and
            1/2, where the discriminator cannot tell, is marked. None: when all lie in [0, 1].
            Scores outside are drawn as raw outputs in any case.

    Returns:
        False, and nothing is written, when no record has a score.
    """
    curves = _curves(records, "score/")
    if not curves:
        return False
    values = np.concatenate([values for _, values in curves.values()])
    possible = bool(np.nanmin(values) >= 0.0 and np.nanmax(values) <= 1.0)
    as_probabilities = possible and probabilities is not False
    label = "mean probability of being real" if as_probabilities else "mean raw output of D"
    figure, axes = new_figure(KIMG, label)
    keys = [key for key in SCORE_LABELS if key in curves]  # first, for their colours
    keys += [key for key in curves if key not in SCORE_LABELS]
    _draw(axes, {SCORE_LABELS.get(key, key.removeprefix("score/")): curves[key] for key in keys})
    if as_probabilities:
        axes.set_ylim(-0.02, 1.02)
        axes.axhline(0.5, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    _finish(figure, axes, records, path)
    return True


def _plot(
    records: Sequence[Record], path: Path, prefix: str, label: str, may_be_log: bool = False
) -> bool:
    curves = _curves(records, prefix)
    if not curves:
        return False
    figure, axes = new_figure(KIMG, label)
    low, high = _draw(axes, {key.removeprefix(prefix): curve for key, curve in curves.items()})
    if may_be_log and low > 0 and high > WIDE * low:
        _make_logarithmic(axes, low, high)
    _finish(figure, axes, records, path)
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


def _shared(curves: Mapping[str, Curve], prefix: str) -> dict[str, Curve]:
    """Return the curves that differ, those that do not under the names of all, without `prefix`."""
    names: dict[bytes, list[str]] = {}
    different: dict[bytes, Curve] = {}
    for key, curve in curves.items():
        identity = np.stack(curve).tobytes()
        names.setdefault(identity, []).append(key.removeprefix(prefix))
        different[identity] = curve
    return {", ".join(names[identity]): curve for identity, curve in different.items()}


def _style(index: int) -> dict[str, Any]:
    """Return the colour of a curve, and its dashes when the colours come round again."""
    linestyle = "-" if index < len(COLOURS) else "--"
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": linestyle}


def _draw(axes: Axes, curves: Mapping[str, Curve]) -> tuple[float, float]:
    """Draw each curve raw and faint under its smoothed self, spikes cut off; return the range."""
    lows, highs = [], []
    for index, (label, (kimg, values)) in enumerate(curves.items()):
        style = _style(index)
        low, high = _range(values)
        marker = "o" if len(values) == 1 else None
        axes.plot(kimg, values, color=style["color"], alpha=0.22, linewidth=0.8)
        smooth = _smooth(np.clip(values, low, high))
        axes.plot(kimg, smooth, **style, linewidth=1.8, marker=marker, label=label)
        lows.append(low)
        highs.append(high)
    margin = 0.05 * (max(highs) - min(lows)) or 0.5
    axes.set_ylim(min(lows) - margin, max(highs) + margin)
    axes.margins(x=0.01)
    return min(lows), max(highs)


def _make_logarithmic(axes: Axes, low: float, high: float) -> None:
    """Make the y axis logarithmic over [low, high], both positive, and a margin."""
    margin = (high / low) ** 0.05
    axes.set_yscale("log")
    axes.set_ylim(low / margin, high * margin)
    decades = math.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _finish(figure: Figure, axes: Axes, records: Sequence[Record], path: Path) -> None:
    """Add the legend and the epochs, and write the figure."""
    figure.legend(frameon=False, labelcolor=INK, ncols=4, loc="outside lower center")
    _add_epochs(axes, records)
    save_figure(figure, path)


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
