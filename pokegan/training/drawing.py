"""The plots and animations of a run, drawn from what is on its disk."""

from pokegan.monitor.stats import read_stats
from pokegan.render.plots import plot_losses, plot_scores
from pokegan.training.run_folder import RunFolder

GRADIENT_FIGURES = 5  # of each network, evenly over the run


def draw(folder: RunFolder) -> None:
    """Draw every plot and animation that the run has records and grids for."""
    records = read_stats(folder.stats)
    plot_losses(records, folder.plots / "losses.png")
    plot_scores(records, folder.plots / "scores.png")
