"""Empty figures in the style of all plots, and figures as PNG files.

Figures are made and drawn by matplotlib's objects, never by pyplot: no display is needed and no
figure outlives its file.
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pokegan.files import atomic_path

INK = "#3b3f46"
LINES = "#d9dce1"
# Okabe and Ito's colours, told apart also by the colour-blind; yellow left out on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
KIMG = "images seen (thousands)"


def new_figure(across: str, up: str, height: float = 4.5) -> tuple[Figure, Axes]:
    """Return an empty figure, 8 inches of 144 px wide, with quiet axes labelled `across` and `up`.

    `height` is in inches, 4.5 of them 648 px.
    """
    figure = Figure(figsize=(8.0, height), dpi=144, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    axes.grid(color=LINES, linewidth=0.6)
    axes.set_axisbelow(True)
    quiet(axes)
    return figure, axes


def quiet(axes: Axes) -> None:
    """Take frame and ticks off `axes`, and draw its numbers in ink."""
    axes.tick_params(which="both", colors=INK, length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` as PNG, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
