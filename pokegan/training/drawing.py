"""The plots and animations of a run, drawn from what is on its disk."""

import itertools
from collections.abc import Sequence
from typing import Any

from pokegan.files import write_bytes
from pokegan.monitor.gradients import read_gradients
from pokegan.monitor.stats import read_stats
from pokegan.render.animation import save_animation
from pokegan.render.gradient_plots import plot_gradient_flow, plot_gradient_history
from pokegan.render.plots import (
    plot_gradient_norms,
    plot_learning_rates,
    plot_losses,
    plot_penalties,
    plot_scores,
)
from pokegan.training.run_folder import RunFolder

GRADIENT_FIGURES = 2  # of each network after its first, evenly over the run


def draw(folder: RunFolder, probabilities: bool, stage_ends: Sequence[int] = ()) -> None:
    """Draw every plot and animation that the run has records and grids for.

    Args:
        folder: the run's.
        probabilities: whether the scores are probabilities; raw outputs of the discriminator if
            not.
        stage_ends: steps done at the end of each stage of growth: the gradient flow is drawn there.
    """
    records = read_stats(folder.stats)
    plot_losses(records, folder.plots / "losses.png")
    plot_scores(records, folder.plots / "scores.png", probabilities)
    plot_penalties(records, folder.plots / "penalties.png")
    plot_learning_rates(records, folder.plots / "learning-rates.png")
    plot_gradient_norms(records, folder.plots / "gradient-norms.png")
    gradients = read_gradients(folder.gradients)
    for network in dict.fromkeys(record["network"] for record in gradients):
        own = [record for record in gradients if record["network"] == network]
        _draw_gradients(folder, network, own, stage_ends)
    for stage in folder.stages():
        save_animation(folder.grids(stage), stage / "animation.gif")
    if folder.grids():
        save_animation(folder.grids(), folder.animation)
    if folder.stages():
        write_bytes(folder.all_samples, folder.animation.read_bytes())


def _draw_gradients(
    folder: RunFolder, network: str, records: Sequence[dict[str, Any]], stage_ends: Sequence[int]
) -> None:
    """Draw the gradient flow of a network at a few moments, a figure each, and over the run."""
    for record in _at_ends(records, stage_ends) if stage_ends else _evenly(records):
        path = folder.plots / "gradient-flow" / f"{network}-step-{record['step']:08d}.png"
        plot_gradient_flow(record, path, f"{network}, step {record['step']:,}")
    plot_gradient_history(records, folder.plots / f"gradient-flow-{network}.png", network)


def _evenly(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first record, the last, and others between."""
    last = len(records) - 1
    places = {round(i * last / GRADIENT_FIGURES) for i in range(GRADIENT_FIGURES + 1)}
    return [records[place] for place in sorted(places)]


def _at_ends(records: Sequence[dict[str, Any]], ends: Sequence[int]) -> list[dict[str, Any]]:
    """Return the last record of each stage that has one, so far."""
    found = []
    for start, end in itertools.pairwise((0, *ends)):
        own = [record for record in records if start < record["step"] <= end]
        found += own[-1:]
    return found
