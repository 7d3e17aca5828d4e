"""Self-attention over a picture's positions, as in SAGAN (arXiv 1805.08318, section 3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.convolution import Conv2d

_REDUCTION = 8  # channels of query, key and value: an eighth


class SelfAttention(nn.Module):
    """y = x + gamma v(sum_i beta_ji h(x_i)): each position j looks at all positions i.

    beta_j is the softmax over i of f(x_i) . g(x_j); f, g, h and v are 1x1 convolutions without
    bias, the first three to channels / 8 (equations 1 to 3). gamma starts at 0: a new layer is
    the identity. It may be differentiated twice, as gradient penalties need.

    Args:
        channels: of the feature maps.
        pooled: whether f and h are max-pooled 2x2 first, as in the paper's own code: a quarter
            of the positions to look at, at a quarter of the memory.
    """

    def __init__(self, channels: int, pooled: bool = True) -> None:
        super().__init__()
        inner = max(1, channels // _REDUCTION)
        self.pooled = pooled
        self.f = Conv2d(channels, inner, 1, bias=False)
        self.g = Conv2d(channels, inner, 1, bias=False)
        self.h = Conv2d(channels, inner, 1, bias=False)
        self.v = Conv2d(inner, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """[N, channels, H, W] to the same; H and W at least 2 where keys are pooled."""
        keys, values = self.f(maps), self.h(maps)
        if self.pooled:
            keys, values = F.max_pool2d(keys, 2), F.max_pool2d(values, 2)
        queries = self.g(maps)  # [N, C / 8, H, W]
        energy = torch.bmm(queries.flatten(2).transpose(1, 2), keys.flatten(2))  # [N, HW, keys]
        beta = energy.softmax(2).to(values.dtype)
        seen = torch.bmm(values.flatten(2), beta.transpose(1, 2))  # [N, C / 8, HW]
        attended: Tensor = self.v(seen.view(queries.shape))
        return maps + self.gamma * attended

    def extra_repr(self) -> str:
        """Say in `print(network)` whether keys are pooled."""
        return f"pooled={self.pooled}"


def attention_depth(attention: int, sides: Sequence[int]) -> int:
    """Return behind which layer attention goes: the first whose maps are `attention` px wide.

    Args:
        attention: px, or 0 for none.
        sides: of the feature maps behind each layer, px.

    Returns:
        The index in `sides`, or -1 for none.

    Raises:
        ConfigError: no feature map has that side.
    """
    if attention == 0:
        return -1
    if attention not in sides:
        raise ConfigError(
            f"attention {attention}: this network's feature maps are "
            f"{', '.join(map(str, dict.fromkeys(sides)))} px wide; choose one, or 0 for none"
        )
    return sides.index(attention)
