"""AEGAN's layers without parameters, of two tensors each, computed by `pokegan.ops.maps`."""

from torch import Tensor, nn

from pokegan.ops.maps import mix_colours, mix_colours_reference, shuffle_cat, upsample_cat

Pair = tuple[Tensor, Tensor]


class ShuffleCat(nn.Module):
    """Pixel shuffle of maps and of values that are the same at every pixel, with a border of zeros.

    Args:
        before: rows of zeros above and columns left of the result.
        after: the same below and right.
    """

    def __init__(self, before: int = 0, after: int = 0) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, both: Pair) -> Tensor:
        """[N, 4 C, H, W] and [N, 4 E] to [N, C + E, before + 2 H + after, ...]."""
        maps, everywhere = both
        return shuffle_cat(maps, everywhere.to(maps.dtype), self.before, self.after)

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"before={self.before}, after={self.after}"


class UpsampleCat(nn.Module):
    """Maps at twice their side by nearest neighbour, with others behind their channels."""

    def forward(self, both: Pair) -> Tensor:
        """[N, C, H, W] and [N, S, 2 H, 2 W] to [N, C + S, 2 H, 2 W]."""
        return upsample_cat(*both)


class MixColours(nn.Module):
    """Colours mixed by the softmax of their scores; in eval mode as an export does, to the bit."""

    def forward(self, both: Pair) -> Tensor:
        """[N, K, H, W] scores and [N, 3, K] palettes to [N, 3, H, W]."""
        return mix_colours(*both) if self.training else mix_colours_reference(*both)
