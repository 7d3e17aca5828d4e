"""The pictures that a run shows while it trains: sample grids and reconstructions."""

from collections.abc import Mapping

from torch import Tensor, nn

from pokegan.config import RunConfig
from pokegan.monitor.tensorboard import TensorBoardWriter
from pokegan.objectives.autoencoding import reconstruct
from pokegan.render.pictures import make_grid, make_pairs, save_picture, to_uint8
from pokegan.tf32 import exact_float32
from pokegan.training.generator import Generator
from pokegan.training.run_folder import RunFolder

MOMENTS_IN_TENSORBOARD = 25
MOST_PAIRS = 16


class Moments:
    """A few steps of a run, evenly over it, among those at which something could be shown.

    Args:
        total: steps of the run.
        count: about how many to take.
    """

    def __init__(self, total: int, count: int) -> None:
        self.total = total
        self.count = count
        self.taken = 0

    def take(self, step: int) -> bool:
        """Return whether `step` is such a moment; if so, the next one is some steps away."""
        due = step == self.total or step - self.taken >= self.total / self.count
        if due:
            self.taken = step
        return due


class Gallery:
    """Writes the pictures of a run, and shows some of them in TensorBoard.

    Args:
        config: the run's settings.
        folder: where pictures go.
        board: where some of them are shown too.
        total: steps of the run.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, board: TensorBoardWriter, total: int
    ) -> None:
        self.config = config
        self.folder = folder
        self.board = board
        self.moments = Moments(total, MOMENTS_IN_TENSORBOARD)

    def show(
        self,
        step: int,
        epoch: int,
        generator: Generator,
        networks: Mapping[str, nn.Module],
        held_out: Tensor | None = None,
        stage: tuple[int, int] | None = None,
    ) -> None:
        """Write the grid of `epoch` (and of its stage), and reconstructions where there are any.

        Every grid is a file; TensorBoard shows the first, the last and some between.
        """
        on_board = step == 0 or self.moments.take(step)
        grid = make_grid(generator.sample(self.config.output.samples, self.config.training.seed))
        save_picture(grid, self.folder.grid(epoch, stage))
        if on_board:
            self.board.picture(step, "samples", grid)
        if held_out is not None and "encoder" in networks:
            self._reconstructions(step, epoch, networks, held_out, on_board)

    def _reconstructions(
        self,
        step: int,
        epoch: int,
        networks: Mapping[str, nn.Module],
        held_out: Tensor,
        on_board: bool,
    ) -> None:
        encoder, generator = networks["encoder"], networks["generator"]
        originals = held_out[:MOST_PAIRS]
        with exact_float32():
            made = reconstruct(encoder, generator, originals)
        pairs = make_pairs(to_uint8(originals), to_uint8(made))
        save_picture(pairs, self.folder.reconstructions(epoch))
        if on_board:
            self.board.picture(step, "reconstructions", pairs)
