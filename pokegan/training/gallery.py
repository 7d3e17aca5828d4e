"""The pictures that a run shows while it trains: sample grids and reconstructions."""

from collections.abc import Mapping

from torch import Tensor, nn

from pokegan.config import RunConfig
from pokegan.monitor.tensorboard import TensorBoardWriter
from pokegan.objectives.autoencoding import reconstruct
from pokegan.render.pictures import make_grid, make_pairs, save_picture, to_uint8
from pokegan.training.generator import Generator
from pokegan.training.run_folder import RunFolder

MOMENTS_IN_TENSORBOARD = 25
MOST_PAIRS = 16


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
        self.total = total
        self.shown_at = 0

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
        on_board = step == 0 or self.is_due(step)
        grid = make_grid(generator.sample(self.config.output.samples, self.config.training.seed))
        save_picture(grid, self.folder.grid(epoch, stage))
        if on_board:
            self.shown_at = step
            self.board.picture(step, "samples", grid)
        if held_out is not None and "encoder" in networks:
            self._reconstructions(step, epoch, networks, held_out, on_board)

    def is_due(self, step: int) -> bool:
        """Return whether TensorBoard has waited long enough for more than scalars."""
        waited = step - self.shown_at >= self.total / MOMENTS_IN_TENSORBOARD
        return waited or step == self.total

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
        pairs = make_pairs(
            to_uint8(originals), to_uint8(reconstruct(encoder, generator, originals))
        )
        save_picture(pairs, self.folder.reconstructions(epoch))
        if on_board:
            self.board.picture(step, "reconstructions", pairs)
