"""AEGAN's layers as they are written in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.networks.maps import MixColours, Pair, ShuffleCat, UpsampleCat


class PlainShuffleCat(ShuffleCat):
    """A concatenation, a pixel shuffle and a padding."""

    def forward(self, both: Pair) -> Tensor:
        maps, everywhere = both
        if everywhere.shape[1]:
            spread = everywhere[:, :, None, None].expand(-1, -1, *maps.shape[2:])
            maps = torch.cat((maps, spread), 1)
        return F.pad(F.pixel_shuffle(maps, 2), (self.before, self.after) * 2)


class PlainUpsampleCat(UpsampleCat):
    """An upsampling and a concatenation."""

    def forward(self, both: Pair) -> Tensor:
        maps, skip = both
        return torch.cat((F.interpolate(maps, scale_factor=2.0, mode="nearest"), skip), 1)


class PlainMixColours(MixColours):
    """A softmax and a product."""

    def forward(self, both: Pair) -> Tensor:
        scores, palettes = both
        return torch.einsum("nkhw,nck->nchw", scores.softmax(1), palettes)
