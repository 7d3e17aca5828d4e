"""Which moments of a run get a figure of their gradient flow."""

from pathlib import Path

import pytest

from pokegan.monitor.gradients import GradientsWriter, NetworkGradients
from pokegan.training.drawing import draw
from pokegan.training.run_folder import RunFolder


def figures(folder: Path, steps: list[int], ends: list[int]) -> list[int]:
    """Draw a run with one layer and records at `steps`; return the steps that have a figure."""
    run = RunFolder(folder)
    with GradientsWriter(run.gradients) as writer:
        for step in steps:
            found = NetworkGradients(["layers.0"], [0.1 / step], [1.0 / step], 1.0)
            writer.write(step, step / 1000, {"generator": found})
    draw(run, True, ends)
    names = sorted(path.stem for path in (run.plots / "gradient-flow").glob("generator-step-*.png"))
    return [int(name.rpartition("-")[2]) for name in names]


@pytest.mark.parametrize(
    ("steps", "ends", "drawn"),
    [
        ([5, 10, 15, 20, 25], [], [5, 15, 25]),
        ([5], [], [5]),
        ([5, 10, 15, 20, 25], [12, 22, 30], [10, 20, 25]),
        ([5, 10], [10, 20], [10]),  # a run stopped within its second stage, before a record of it
        ([5, 20], [10, 15, 20], [5, 20]),  # a stage shorter than the interval of the records
    ],
)
def test_figures_stand_at_even_moments_or_at_the_ends_of_stages(
    steps: list[int], ends: list[int], drawn: list[int], tmp_path: Path
) -> None:
    assert figures(tmp_path, steps, ends) == drawn
