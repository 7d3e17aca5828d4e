"""Plots of gradient flow: marks in their places, one file a figure, nothing left behind."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from pokegan.render.figures import COLOURS, LINES
from pokegan.render.gradient_plots import plot_gradient_flow, plot_gradient_history


def record(mean, kimg=1.0, network="generator", layers=None):
    layers = layers or [f"layers.{i}" for i in range(len(mean))]
    most = [None if value is None else 10 * value for value in mean]
    return {"kimg": kimg, "network": network, "layers": layers, "mean": mean, "max": most}


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def where(image, colour):
    """Return [n, 2]: row and column of the pixels of `colour`."""
    wanted = np.array([round(255 * c) for c in to_rgb(colour)])
    return np.argwhere(np.abs(image - wanted).max(axis=2) < 12)


def test_marks_stand_where_their_values_are(tmp_path):
    assert plot_gradient_flow(record([1e-1, 1e-3]), tmp_path / "flow.png", "generator") is True
    image = pixels(tmp_path / "flow.png")
    image = image[: int(0.75 * len(image))]  # without the legend
    mean, most = (where(image, colour) for colour in COLOURS[:2])
    middle = (mean[:, 0].min() + mean[:, 0].max()) / 2
    first, second = (mean[side] for side in (mean[:, 0] < middle, mean[:, 0] > middle))
    assert first[:, 1].mean() > second[:, 1].mean()  # the first layer above, and larger
    decade = (first[:, 1].mean() - second[:, 1].mean()) / 2
    top = most[most[:, 0] < middle]
    assert top[:, 1].mean() - first[:, 1].mean() == pytest.approx(decade, abs=3)


@pytest.mark.parametrize("mean", [[0.0, 0.0], [None, 1.0], [None], [1.0] * 150])
def test_awkward_values_are_drawn(tmp_path, mean):
    made = record(mean)
    assert plot_gradient_flow(made, tmp_path / "flow.png")
    assert plot_gradient_history([made], tmp_path / "history.png", "generator")
    assert all(pixels(path).std() > 1 for path in tmp_path.iterdir())


def test_history_shows_when_a_layer_came(tmp_path):
    early = [record([1.0, 2.0], k, layers=["a", "c"]) for k in (1.0, 2.0, 3.0)]
    late = [record([1.0, 1.5, 2.0], k, layers=["a", "b", "c"]) for k in (4.0, 5.0, 6.0)]
    other = record([1.0], 9.0, "discriminator")
    assert plot_gradient_history([*early, *late, other], tmp_path / "h.png", "generator")
    image = pixels(tmp_path / "h.png")
    height, width, _ = image.shape
    grey = np.zeros((height, width), bool)
    grey[tuple(where(image, LINES).T)] = True
    rows, columns = grey.sum(axis=1) > 0.3 * width, grey.sum(axis=0) > 0.1 * height
    rows, columns = np.flatnonzero(rows), np.flatnonzero(columns)
    assert 0.25 * height < rows.min() < rows.max() < 0.7 * height  # the middle layer
    assert columns.max() < 0.6 * width  # the first half


def test_history_of_zeros_is_black(tmp_path):
    made = [record([1.0, 0.0 if k == 2 else 3.0], float(k)) for k in range(1, 4)]
    plot_gradient_history(made, tmp_path / "h.png", "generator")
    image = pixels(tmp_path / "h.png")
    assert len(where(image, "black")) > 0.05 * image.shape[0] * image.shape[1]


def test_nothing_to_draw(tmp_path):
    assert plot_gradient_flow(record([]), tmp_path / "a.png") is False
    assert plot_gradient_history([], tmp_path / "a.png", "generator") is False
    assert plot_gradient_history([record([1.0])], tmp_path / "a.png", "encoder") is False
    assert not list(tmp_path.iterdir())


def test_drawing_twice_gives_equal_files(tmp_path):
    first, second = record([1.0, 0.5]), record([0.1, 1e-4, 1e-6])
    for name, made in (("a", first), ("b", second), ("c", first)):
        plot_gradient_flow(made, tmp_path / f"{name}.png")
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == c != b


def test_no_pyplot_and_no_figure_left(tmp_path):
    code = (
        "import gc, sys; from pathlib import Path\n"
        "from matplotlib.figure import Figure\n"
        "from pokegan.render.gradient_plots import plot_gradient_flow, plot_gradient_history\n"
        "record = {'kimg': 1.0, 'network': 'g', 'layers': ['a'], 'mean': [1.0], 'max': [2.0]}\n"
        "for _ in range(3):\n"
        "    plot_gradient_flow(record, Path(sys.argv[1]) / 'flow.png')\n"
        "    plot_gradient_history([record], Path(sys.argv[1]) / 'history.png', 'g')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "gc.collect()\n"
        "assert not [one for one in gc.get_objects() if isinstance(one, Figure)]\n"
        "import matplotlib.pyplot\n"
        "assert matplotlib.pyplot.get_fignums() == []\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flow.png", "history.png"]
