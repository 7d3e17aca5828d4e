"""Plots: drawn without a display, in the right place, and forgotten after."""

import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from pokegan.render import plots
from pokegan.render.plots import (
    plot_gradient_norms,
    plot_learning_rates,
    plot_losses,
    plot_penalties,
    plot_scores,
)


def records(count, **curves):
    """Return `count` records; each curve is a function of kimg."""
    made = []
    for index in range(count):
        kimg = 0.5 * (index + 1)
        values = {key.replace("__", "/"): curve(kimg) for key, curve in curves.items()}
        made.append({"step": index, "kimg": kimg, "epoch": kimg / 2, **values})
    return made


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def rows_of(image, colour, left=0.1, right=0.95, bottom=0.85):
    """Return the row of `colour` in each column of the plot's inside; NaN where there is none."""
    height, width, _ = image.shape
    wanted = np.array([round(255 * c) for c in to_rgb(colour)])
    inside = image[: int(bottom * height), int(left * width) : int(right * width)]
    hit = np.abs(inside - wanted).max(axis=2) < 20
    rows = np.arange(inside.shape[0])[:, None]
    with np.errstate(invalid="ignore"):
        return np.where(hit.any(axis=0), (hit * rows).sum(axis=0) / hit.sum(axis=0), np.nan)


def test_curves_stand_where_their_values_are(tmp_path):
    made = records(200, loss__generator=lambda k: k / 100, loss__critic=lambda k: 1 - k / 100)
    assert plot_losses(made, tmp_path / "new" / "loss.png") is True
    image = pixels(tmp_path / "new" / "loss.png")
    rising, falling = (rows_of(image, colour) for colour in plots.COLOURS[:2])
    assert np.nanmean(rising[:20]) > np.nanmean(rising[-20:]) + 200  # rows count downwards
    assert np.nanmean(falling[:20]) < np.nanmean(falling[-20:]) - 200


def test_one_spike_does_not_flatten_the_rest(tmp_path):
    made = records(300, loss__generator=lambda k: k / 150)
    made[150]["loss/generator"] = 1e6
    plot_losses(made, tmp_path / "loss.png")
    rows = rows_of(pixels(tmp_path / "loss.png"), plots.COLOURS[0])
    assert np.nanmax(rows) - np.nanmin(rows) > 300
    assert np.isfinite(rows[10:-10]).all()  # the smoothed curve does not leave the plot


def test_null_is_a_gap(tmp_path):
    made = records(100, loss__generator=lambda k: 1.0)
    for record in made[40:60]:
        record["loss/generator"] = None
    made[80]["loss/generator"] = float("inf")
    plot_losses(made, tmp_path / "loss.png")
    rows = rows_of(pixels(tmp_path / "loss.png"), plots.COLOURS[0])
    empty = np.isnan(rows)
    middle = slice(int(0.46 * len(rows)), int(0.54 * len(rows)))
    assert empty[middle].all()
    assert not empty[: int(0.3 * len(rows))].any()


@pytest.mark.parametrize(("kimg_only", "labelled"), [(False, True), (True, False)])
def test_epochs_on_top_when_they_are_known(tmp_path, kimg_only, labelled):
    made = records(20, loss__generator=lambda k: k)
    if kimg_only:
        made = [{k: v for k, v in record.items() if k != "epoch"} for record in made]
    plot_losses(made, tmp_path / "loss.png")
    top = pixels(tmp_path / "loss.png")[:40, 200:-200]
    assert bool(top.min() < 120) is labelled


def test_a_single_record_is_seen(tmp_path):
    plot_losses(records(1, loss__generator=lambda k: 0.7), tmp_path / "loss.png")
    rows = rows_of(pixels(tmp_path / "loss.png"), plots.COLOURS[0])
    assert np.isfinite(rows).sum() >= 5


def test_more_curves_than_colours(tmp_path):
    keys = {f"loss__term_{i}": lambda k, i=i: float(i) for i in range(len(plots.COLOURS) + 2)}
    assert plot_losses(records(30, **keys), tmp_path / "loss.png")
    image = pixels(tmp_path / "loss.png")
    assert all(np.isfinite(rows_of(image, c)).any() for c in plots.COLOURS)


@pytest.mark.parametrize(
    "made",
    [
        [],
        [{"step": 1, "kimg": 1.0}],
        [{"step": 1, "loss/generator": 1.0, "score/real": 1.0}],
        [{"step": 1, "kimg": 1.0, "loss/generator": None, "score/real": None}],
    ],
)
@pytest.mark.parametrize(
    "plot",
    [plot_losses, plot_scores, plot_penalties, plot_gradient_norms, plot_learning_rates],
)
def test_nothing_to_draw(tmp_path, plot, made):
    assert plot(made, tmp_path / "plot.png") is False
    assert not list(tmp_path.iterdir())


def test_scores_as_probabilities(tmp_path):
    made = records(100, score__real=lambda k: 0.75, score__fake=lambda k: 0.25)
    assert plot_scores(made, tmp_path / "score.png") is True
    image = pixels(tmp_path / "score.png")
    real, fake = (np.nanmean(rows_of(image, colour)) for colour in plots.COLOURS[:2])
    ink = np.abs(image - np.array([round(255 * c) for c in to_rgb(plots.INK)])).max(axis=2) < 40
    dashed = np.argmax(ink[:, 200:-200].sum(axis=1))
    assert real < fake
    assert dashed == pytest.approx((real + fake) / 2, abs=3)  # one half lies half-way


def test_scores_beyond_probabilities(tmp_path):
    plot_scores(records(100, score__real=lambda k: 40 + k), tmp_path / "score.png")
    rows = rows_of(pixels(tmp_path / "score.png"), plots.COLOURS[0])
    assert np.nanmax(rows) - np.nanmin(rows) > 300


def has_half_line(path):
    """Tell whether a dashed line in ink goes across the plot."""
    image = pixels(path)[:, 200:-200]
    ink = np.abs(image - np.array([round(255 * c) for c in to_rgb(plots.INK)])).max(axis=2) < 40
    return bool(ink.mean(axis=1).max() > 0.3)


@pytest.mark.parametrize(
    ("high", "told", "probabilities"),
    [(0.9, None, True), (0.9, True, True), (0.9, False, False), (1.5, True, False)],
)
def test_raw_outputs_are_not_shown_as_probabilities(tmp_path, high, told, probabilities):
    made = records(60, score__real=lambda k: high, score__fake=lambda k: 0.1)
    plot_scores(made, tmp_path / "score.png", told)
    assert has_half_line(tmp_path / "score.png") is probabilities


def test_a_penalty_of_some_records_is_one_curve(tmp_path):
    made = records(100, penalty__gradient=lambda k: 2.0, penalty__r1=lambda k: 1.0)
    for index, record in enumerate(made):
        if index % 16:
            del record["penalty/r1"]
    assert plot_penalties(made, tmp_path / "penalty.png")
    image = pixels(tmp_path / "penalty.png")
    always, lazy = (rows_of(image, colour) for colour in plots.COLOURS[:2])
    assert np.nanmean(always) < np.nanmean(lazy)
    assert np.isfinite(lazy[10 : int(0.9 * len(lazy))]).all()


def test_wide_norms_are_logarithmic(tmp_path):
    made = records(100, gradient__a=lambda k: 1e-3, gradient__b=lambda k: 1.0)
    made = [{**record, "gradient/c": 1e3} for record in made]
    plot_gradient_norms(made, tmp_path / "norm.png")
    image = pixels(tmp_path / "norm.png")
    a, b, c = (np.nanmean(rows_of(image, colour)) for colour in plots.COLOURS[:3])
    assert a - b == pytest.approx(b - c, abs=3)
    assert b - c > 100


def test_learning_rates_are_drawn_as_they_are(tmp_path):
    made = records(100, lr__generator=lambda k: 2e-4 if k <= 25 else 1e-4)
    plot_learning_rates(made, tmp_path / "lr.png")
    rows = rows_of(pixels(tmp_path / "lr.png"), plots.COLOURS[0])
    before, after = rows[: int(0.45 * len(rows))], rows[int(0.55 * len(rows)) : -20]
    assert np.nanmax(before) - np.nanmin(before) <= 2
    assert np.nanmean(after) > np.nanmean(before) + 150


def test_equal_learning_rates_share_a_curve(tmp_path):
    rates = {f"lr__{name}": lambda k: 2e-4 for name in ("generator", "discriminator")}
    plot_learning_rates(records(10, **rates), tmp_path / "lr.png")
    image = pixels(tmp_path / "lr.png")
    first, second = (np.isfinite(rows_of(image, colour)).any() for colour in plots.COLOURS[:2])
    assert first
    assert not second


def test_scores_keep_their_colours(tmp_path):
    """D(x) has the first colour in whatever order a record holds the two."""
    made = records(50, score__fake=lambda k: 0.2, score__real=lambda k: 0.8)
    plot_scores(made, tmp_path / "score.png")
    image = pixels(tmp_path / "score.png")
    real, fake = (np.nanmean(rows_of(image, colour)) for colour in plots.COLOURS[:2])
    assert real < fake


def test_a_failure_leaves_the_old_plot(tmp_path, monkeypatch):
    def full(self, file, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    path = tmp_path / "loss.png"
    path.write_text("old")
    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="disk full"):
        plot_losses(records(3, loss__generator=lambda k: k), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("backend", [None, "TkAgg"])
def test_no_display_and_no_pyplot(tmp_path, backend):
    code = (
        "import sys; from pathlib import Path; from pokegan.render.plots import plot_losses\n"
        "plot_losses([{'kimg': k, 'loss/g': k} for k in (1., 2.)], Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "import matplotlib.pyplot\n"
        "assert matplotlib.pyplot.get_fignums() == []\n"
    )
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    if backend:
        environment["MPLBACKEND"] = backend
    path = tmp_path / "loss.png"
    subprocess.run([sys.executable, "-c", code, path], env=environment, check=True)
    assert pixels(path).std() > 1
