"""Growing a network by one resolution: weights carried over, faded in or frozen.

ProGAN (arXiv 1710.10196, section 2 and figure 2). Knows networks that are a row of layers between
the latent vector (or the logit) and the picture; no optimiser, no plan of stages.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.networks.noise import Dropout, pass_over
from pokegan.networks.pooling import halved

_FADE = "fade."
_FIXED_WHEN_FROZEN = (nn.BatchNorm2d, Dropout)

Own = TypeVar("Own", bound="Growable")


class Fade(nn.Module, ABC):
    """The picture's layer of the network of half the size, beside the layers that follow it.

    The result is (1 - alpha) old + alpha new. With alpha 1 the old layer is not computed any more;
    a compiled step goes on with the graph that it has.

    Attributes:
        layer: the old layer, trained along.
        alpha: [] float32 in [0, 1], a buffer.
        over: whether alpha is known to be 1, without waiting for the device.
    """

    alpha: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("alpha", torch.zeros((), dtype=torch.float32))
        self.over = False

    def set_alpha(self, alpha: float) -> None:
        """Set the new layers' part, in [0, 1]. Does not wait."""
        self.alpha.fill_(alpha)
        self.over = alpha == 1

    def forward(self, given: Tensor, new: Tensor) -> Tensor:
        """Mix what the old layer makes of `given` with `new`, of the same shape."""
        if not torch.compiler.is_compiling() and self.over:
            pass_over(self.layer, given.shape[0])
            return new
        return (1 - self.alpha) * self.old(given) + self.alpha * new

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.over = False  # whatever alpha is loaded
        super()._load_from_state_dict(*arguments)

    @abstractmethod
    def old(self, given: Tensor) -> Tensor:
        """Return what the network of half the size would have here."""


class PictureFade(Fade):
    """A generator's: feature maps [N, C, s, s] to the old picture, doubled by repeating pixels."""

    def old(self, given: Tensor) -> Tensor:
        """Return [N, 3, 4s, 4s]; the old layer doubles the side too."""
        return F.interpolate(self.layer(given), scale_factor=2, mode="nearest")


class MapFade(Fade):
    """A discriminator's: pictures [N, 3, s, s], halved by averaging, to the old feature maps."""

    def old(self, given: Tensor) -> Tensor:
        """Return [N, C, s / 4, s / 4]; the old layer halves the side too."""
        old: Tensor = self.layer(halved(given))
        return old


def fades(network: nn.Module) -> list[Fade]:
    """Return the fades within `network`."""
    return [module for module in network.modules() if isinstance(module, Fade)]


class Growable(nn.Module, ABC):
    """A network of which one of twice the size has all layers but the one at the picture.

    Attributes:
        size: side of its pictures in px.
        fade: the old layer while it is faded out, else None.
        frozen: whether the layers that came from the network of half the size stay as they are.
    """

    fade: Fade | None

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.frozen = False
        self.register_module("fade", None)

    @abstractmethod
    def inner(self) -> list[nn.Module]:
        """Return the layers but the one at the picture, that nearest to the picture last."""

    @abstractmethod
    def outer(self) -> nn.Module:
        """Return the layer at the picture."""

    @abstractmethod
    def _new_fade(self) -> Fade:
        """Return a fade whose layer has the shape of the smaller network's `outer()`."""

    def carried(self) -> list[nn.Module]:
        """Return the layers that the network of half the size has too, in the order of `inner`."""
        return self.inner()[:-1]

    def begin_fade(self) -> None:
        """Add the branch that fades out, with alpha 0; nothing if it is there.

        Its weights are arbitrary: `grow` or a loaded state sets them.

        Raises:
            ConfigError: there is no network of half the size.
        """
        if self.fade is not None:
            return
        if not self.carried():
            raise ConfigError(f"there is no network of {self.size // 2} px to fade out")
        with torch.random.fork_rng(devices=[]):
            fade = self._new_fade()
        self.fade = fade.to(next(self.parameters()).device).train(self.training)

    def end_fade(self) -> None:
        """Drop the branch that faded out. With alpha 1 the network computes what it did."""
        self.fade = None

    def set_alpha(self, alpha: float) -> None:
        """Set the new layers' part, in [0, 1]; nothing without a fade. Does not wait."""
        if self.fade is not None:
            self.fade.set_alpha(alpha)

    def freeze(self) -> None:
        """Keep the carried layers as they are, as fixed functions.

        Their parameters get no gradient, their batch norms use and keep the running statistics,
        their dropout does nothing, also in training mode. A spectral norm goes on iterating u and
        v on the weights, which stand still. The fade is trained in any case.
        """
        self.frozen = True
        for layer in self.carried():
            layer.requires_grad_(False)
        self.train(self.training)

    def train(self: Own, mode: bool = True) -> Own:
        """As every module, but for what `freeze` fixed."""
        super().train(mode)
        if self.frozen:
            for layer in self.carried():
                for module in layer.modules():
                    if isinstance(module, _FIXED_WHEN_FROZEN):
                        module.training = False
        return self


def without_fade(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's state as if it had never grown: without the branch that fades out."""
    return {name: value for name, value in state.items() if not name.startswith(_FADE)}


def grow(old: Growable, new: Growable, fade: bool = False, frozen: bool = False) -> list[nn.Module]:
    """Carry weights and buffers of `old` into `new`, which is initialised and of twice the size.

    Every layer of `old` but that at the picture replaces its counterpart in `new`; `old` keeps its
    own copy. Vectors of a spectral norm and running statistics go along. The devices may differ.

    Args:
        old: of size s; its own fade, if any, is left behind.
        new: of size 2s, made with the same options.
        fade: start `new` as `old`: with alpha 0 it makes the old pictures, each pixel repeated
            (or judges a picture by its 2 x 2 means), and alpha moves it over to the new layers.
        frozen: `Growable.freeze` what was carried.

    Returns:
        The carried layers of `new`, the fade not among them.

    Raises:
        ConfigError: the networks do not fit together.
    """
    if type(old) is not type(new) or new.size != 2 * old.size:
        raise ConfigError(
            f"a {type(old).__name__} of {old.size} px grows to one of {2 * old.size} px, not to "
            f"a {type(new).__name__} of {new.size} px"
        )
    pairs = list(zip(old.inner(), new.carried(), strict=True))
    if fade:
        new.begin_fade()
        assert new.fade is not None
        pairs.append((old.outer(), new.fade.layer))
    else:
        new.end_fade()
    state = new.state_dict()
    places = {module: name for name, module in new.named_modules()}
    for source, target in pairs:
        state.update(_moved(source, target, places[target]))
    new.load_state_dict(state)
    new.set_alpha(0.0)
    if frozen:
        new.freeze()
    return new.carried()


def _moved(source: nn.Module, target: nn.Module, place: str) -> dict[str, Tensor]:
    """Return the state of `source` under the names that `target` has in its network."""
    state, wanted = source.state_dict(), target.state_dict()
    shapes = [{name: value.shape for name, value in one.items()} for one in (state, wanted)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"layer {place} does not fit that of half the size: both networks need the same "
            "options and the same final_size"
        )
    return {f"{place}.{name}": value for name, value in state.items()}
