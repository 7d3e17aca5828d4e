"""Spectral norm for all layers of a network at once: a module over `pokegan.ops.spectral_norm`.

Parameters and vectors have the names that `torch.nn.utils.parametrizations.spectral_norm` gives
them, so state dicts go both ways. Knows modules; no optimiser and no training loop.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.nn.utils import parametrize
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from pokegan.errors import ConfigError
from pokegan.networks.spectral_state import SIGMA, Stamp, dtype_for, is_captured, stamp_of
from pokegan.networks.spectral_step import TracedStep
from pokegan.ops.spectral_norm import spectral_iterate, spectral_scale, spectral_sigma
from pokegan.ops.spectral_norm_reference import Factors

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *_TRANSPOSED)
_WARM_UP = 15  # iterations, as in PyTorch


def spectral_norm_(
    network: nn.Module,
    exact: bool = False,
    iterations: int = 1,
    eps: float = 1e-12,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Divide the weight of every convolution and linear layer by its largest singular value.

    The network is changed in place: `layer.weight` becomes the normalised weight, and the
    parameter is `layer.parametrizations.weight.original`. In training, the vectors u and v are
    iterated once whenever the weights have changed; all forward passes between two changes, and
    their gradients, share one normalised weight. See `SpectralNorm`.

    Args:
        network: at least one of its modules is a convolution, transposed or not, or linear.
        exact: iterate at every training forward of `network`, as PyTorch does, and so equal it.
        iterations: of the power method each time, at least 1.
        eps: positive; the smallest length that a vector is divided by.
        generator: of the first u and v; on every rank in the same state. None: torch's own.

    Returns:
        `network`.

    Raises:
        ConfigError: there is nothing to normalise, it is normalised already, or a number is out
            of range.
    """
    if spectral_norms(network):
        raise ConfigError("spectral_norm_: this network has a spectral norm already")
    if iterations < 1:
        raise ConfigError(f"spectral_norm_: iterations must be at least 1, got {iterations}")
    if not eps > 0:
        raise ConfigError(f"spectral_norm_: eps must be positive, got {eps}")
    layers = [module for module in network.modules() if isinstance(module, _LAYERS)]
    if not layers:
        raise ConfigError("spectral_norm_: this network has no convolution and no linear layer")
    norm = SpectralNorm(layers, exact, iterations, eps)
    norm.reset(generator)
    network.register_forward_pre_hook(norm._before_forward)
    network.register_forward_hook(norm._after_forward)
    network.register_load_state_dict_post_hook(norm._after_load)  # type: ignore[no-untyped-call]  # torch's
    return network


def spectral_norms(network: nn.Module) -> list["SpectralNorm"]:
    """Return the spectral norms of the network and of the networks within it."""
    found = [module.norm for module in network.modules() if isinstance(module, _Normalised)]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Found:
    """Factors (None: sigma as a traced step left it), of which weights, and if by an iteration."""

    stamps: list[Stamp]
    factors: Factors | None
    iterated: bool


@dataclass(frozen=True)
class _Shared:
    """Normalised weights that forward passes share."""

    found: _Found
    weights: list[Tensor]


class SpectralNorm:
    """The normalised weights of a network, computed once for each version of its weights.

    A version ends when a weight is written in place (an optimiser's step, `load_state_dict`) or
    replaced (`.to()`). What PyTorch does not count as a write, it is not: call `forget()` after
    writing through `weight.data`, or by a fused optimiser's kernel without its `step()`. Several
    losses may run backward, together or one after another, through forward passes that share a
    version; the graph of the normalised weights is kept until the next one.

    Inside bfloat16 autocast the normalised weights are written as bfloat16; the norm itself is
    always computed in the weights' precision. Under `torch.compile` nothing is shared between
    calls: every training forward iterates. So does one captured in a CUDA graph, which shares
    nothing with any other, captured or not. In eval mode nothing is iterated; sigma is ut W v.

    A training step that is compiled, captured or recorded as a whole iterates as often as an eager
    one, by `enter_step` before it; `begin_step`, `written` and `end_step` in it; `leave_step` after
    it.
    """

    def __init__(
        self, layers: Sequence[nn.Module], exact: bool, iterations: int, eps: float
    ) -> None:
        self.exact = exact
        self.iterations = iterations
        self.eps = eps
        self._parts: list[parametrize.ParametrizationList] = []
        self._dims: list[int] = []
        self._loaded: dict[int, Tensor] = {}
        self._step: TracedStep | None = None
        self._sigma: Tensor | None = None
        self.left = False
        self.forget()
        _norms.add(self)
        for index, layer in enumerate(layers):
            dim = 1 if isinstance(layer, _TRANSPOSED) else 0
            part = _Normalised(self, index, layer.get_parameter("weight"), dim)
            parametrize.register_parametrization(layer, "weight", part, unsafe=True)
            normalised = layer.get_submodule("parametrizations.weight")
            assert isinstance(normalised, parametrize.ParametrizationList)
            self._parts.append(normalised)
            self._dims.append(dim)

    @property
    def training(self) -> bool:
        """Whether the layers are in training mode."""
        return bool(self._parts[0][0].training)

    def vectors(self) -> list[Tensor]:
        """Return u and v of every layer, the buffers themselves."""
        return [vector for part in self._parts for vector in part[0].buffers()]

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw new vectors and warm them up on the weights as they are."""
        for vector in self.vectors():
            drawn = torch.randn(
                vector.shape,
                generator=generator,
                device=generator.device if generator else None,
            )
            vector.copy_(F.normalize(drawn.to(vector), dim=0, eps=self.eps))
        spectral_iterate(*self._arguments(), _WARM_UP, self.eps)
        self.forget()

    def forget(self) -> None:
        """Take the weights as changed: the next forward computes everything anew."""
        self._found: _Found | None = None
        self._shared: _Shared | None = None
        self._traced: list[Tensor] | None = None

    def refresh(self) -> None:
        """Bring the shared weights up to date now, so that no later forward has to."""
        if not all(map(self._fits, range(len(self._parts)))):
            self._share(self._factors(always_iterate=False))

    def enter_step(self) -> None:
        """Iterate where the step's first forward would, and put sigma where the step finds it."""
        weights, found = self._weights(), self._found
        if self._sigma is None or self._sigma.device != weights[0].device:
            self._sigma = weights[0].detach().new_zeros(len(weights))
        kept = found.stamps if found is not None and found.factors is None else None
        if not self.exact and kept != list(map(stamp_of, weights)):
            self._sigma.copy_(self._factors(always_iterate=False).sigma)

    def begin_step(self) -> None:
        """Go by what the step itself updates from here on."""
        self._step = TracedStep(self._iterate, self._recall, self._scaled, self.exact)

    def written(self) -> None:
        """Take the weights as changed by the step that is traced."""
        assert self._step is not None
        self._step.written()

    def end_step(self) -> None:
        """Keep sigma; `left` says whether an iteration on the weights as they are is on record."""
        step, self._step = self._step, None
        assert step is not None
        if step.current and step.factors is not None and self._sigma is not None:
            self._sigma.copy_(step.factors.sigma)
        self.left = step.current

    def leave_step(self, current: bool) -> None:
        """Go by versions again after a step that ended with `left` = `current`."""
        self._step = None
        self.forget()
        if current:
            self._found = _Found(list(map(stamp_of, self._weights())), None, True)

    def weight(self, index: int) -> Tensor:
        """Return the normalised weight of layer `index`, without a gradient where none is due."""
        if self._step is not None:
            dtype = dtype_for(self._parts[index].original)
            return self._step.weights(dtype, self.training)[index]
        if torch.compiler.is_compiling():
            return self._traced[index] if self._traced is not None else self._alone(index)
        if not self._fits(index):
            if self._is_captured():
                return self._alone(index)
            self.refresh()
        assert self._shared is not None
        weight = self._shared.weights[index]
        return weight.detach() if weight.requires_grad and not self._needs(index) else weight

    def _weights(self) -> list[Tensor]:
        return [part.original for part in self._parts]

    def _arguments(self) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[int]]:
        u, v = ([getattr(part[0], name) for part in self._parts] for name in ("_u", "_v"))
        return self._weights(), u, v, self._dims

    def _iterate(self) -> Factors:
        return spectral_iterate(*self._arguments(), self.iterations, self.eps)

    def _recall(self, iterated: bool = True) -> Factors:
        """Return sigma as a traced step left it, if it did, with the vectors as they are."""
        if not iterated:
            return spectral_sigma(*self._arguments())
        assert self._sigma is not None
        _, u, v, _ = self._arguments()
        return Factors(self._sigma.clone(), torch.cat(u), torch.cat(v))

    def _is_captured(self) -> bool:
        """Whether a capture runs: what is computed in it has no values before its replay."""
        return is_captured(self._parts[0].original)

    def _needs(self, index: int) -> bool:
        """Whether layer `index` needs a gradient now."""
        return torch.is_grad_enabled() and self._parts[index].original.requires_grad

    def _fits(self, index: int) -> bool:
        """Whether the shared weight of layer `index` is what a forward needs now."""
        shared = self._shared
        if shared is None or (self.training and not shared.found.iterated):
            return False
        weight = shared.weights[index]
        original = self._parts[index].original
        return (
            shared.found.stamps[index] == stamp_of(original)
            and weight.dtype == dtype_for(original)
            and (weight.requires_grad or not self._needs(index))
            and (not weight.is_inference() or torch.is_inference_mode_enabled())
        )

    def _factors(self, always_iterate: bool) -> Factors:
        """Return the factors of the weights as they are; iterate in training where due."""
        stamps = list(map(stamp_of, self._weights()))
        found = self._found
        if found is not None and found.stamps != stamps:
            found = None
        if self.training and (always_iterate or found is None or not found.iterated):
            self._found = _Found(stamps, factors := self._iterate(), iterated=True)
        elif found is None:
            factors = spectral_sigma(*self._arguments())
            self._found = _Found(stamps, factors, iterated=False)
        else:
            factors = _saveable(found.factors or self._recall())
            self._found = _Found(stamps, factors, found.iterated)
        return factors

    def _share(self, factors: Factors) -> None:
        assert self._found is not None
        self._shared = None  # frees the memory of the old ones first
        weights = self._scaled(factors, dtype_for(self._weights()[0]))
        self._shared = _Shared(self._found, weights)

    def _scaled(self, factors: Factors, dtype: torch.dtype) -> list[Tensor]:
        weights = self._weights()
        scaled = spectral_scale(weights, factors, self._dims, dtype)
        return [
            one if weight.requires_grad or not one.requires_grad else one.detach()
            for one, weight in zip(scaled, weights, strict=True)
        ]

    def _alone(self, index: int) -> Tensor:
        """Normalise one layer of a network that is not compiled or captured as a whole."""
        weights, u, v, dims = self._arguments()
        one = slice(index, index + 1)
        if self.training:
            factors = spectral_iterate(
                weights[one], u[one], v[one], dims[one], self.iterations, self.eps
            )
        else:
            factors = spectral_sigma(weights[one], u[one], v[one], dims[one])
        return spectral_scale(weights[one], factors, dims[one], dtype_for(weights[index]))[0]

    def _before_forward(self, network: nn.Module, arguments: Any) -> None:
        if self._step is not None:
            self._step.begin_forward()
        elif torch.compiler.is_compiling():
            factors = self._iterate() if self.training else spectral_sigma(*self._arguments())
            self._traced = self._scaled(factors, dtype_for(self._weights()[0]))
        else:
            if self._is_captured():
                self.forget()
            if self.exact and self.training:
                self._share(self._factors(always_iterate=True))
            else:
                self.refresh()

    def _after_forward(self, network: nn.Module, arguments: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            self._traced = None
        elif self._is_captured():
            self.forget()

    def _sigma_to_save(self, index: int) -> Tensor:
        """Return sigma if it is an iteration's on the weights as they are, else zero."""
        found, weight = self._found, self._parts[index].original.detach()
        if found is None or not found.iterated or found.stamps[index] != stamp_of(weight):
            return weight.new_zeros(())
        sigma = self._sigma if found.factors is None else found.factors.sigma
        assert sigma is not None
        return sigma[index].clone()

    def _take_loaded(self, index: int, sigma: Tensor | None) -> None:
        self.forget()
        self._loaded.pop(index, None)
        if sigma is not None and sigma.numel() == 1 and bool(sigma > 0):
            self._loaded[index] = sigma.detach().reshape(())

    def _after_load(self, network: nn.Module, incompatible_keys: Any) -> None:
        loaded, self._loaded = self._loaded, {}
        if len(loaded) < len(self._parts):
            return
        weights, u, v, _ = self._arguments()
        sigma = torch.stack([loaded[index] for index in range(len(weights))]).to(weights[0])
        stamps = [stamp_of(weight) for weight in weights]
        self._found = _Found(stamps, Factors(sigma, torch.cat(u), torch.cat(v)), iterated=True)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: not what is shared between forward passes."""
        return {**self.__dict__, **dict.fromkeys(("_found", "_shared", "_traced", "_step"))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _norms.add(self)


def _saveable(factors: Factors) -> Factors:
    """Copy factors that were made in inference mode, where autograd is to save them now."""
    if factors.sigma.is_inference() and not torch.is_inference_mode_enabled():
        return Factors(*(part.clone() for part in factors))
    return factors


class _Normalised(nn.Module):
    """The parametrization of one layer; its buffers are named as PyTorch names them.

    The state has sigma too, so that a run that is continued neither iterates again on the same
    weights nor rounds sigma in another way. Zero says that an iteration is due.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, norm: SpectralNorm, index: int, weight: Tensor, dim: int) -> None:
        super().__init__()
        self.norm = norm
        self.index = index
        rows = weight.shape[dim]
        self.register_buffer("_u", weight.detach().new_zeros(rows))
        self.register_buffer("_v", weight.detach().new_zeros(weight.numel() // max(rows, 1)))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the normalised weight; `weight` is the parameter, which the norm knows."""
        return self.norm.weight(self.index)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Make `layer.weight = weight` set the parameter, as PyTorch does."""
        return weight

    def extra_repr(self) -> str:
        """Say what the numbers are, in `print(network)`."""
        norm = self.norm
        return f"exact={norm.exact}, iterations={norm.iterations}, eps={norm.eps:g}"

    def _save_to_state_dict(
        self, destination: dict[str, Tensor], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + SIGMA] = self.norm._sigma_to_save(self.index)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        self.norm._take_loaded(self.index, state_dict.pop(prefix + SIGMA, None))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


_norms: "weakref.WeakSet[SpectralNorm]" = weakref.WeakSet()


def _count_step(optimizer: Optimizer, *_: Any) -> None:
    """Count a step of the optimiser as a write to the weights: fused kernels are not counted."""
    if torch.compiler.is_compiling():
        return
    ours = {id(weight) for norm in _norms for weight in norm._weights()}
    if ours:
        stepped = [w for group in optimizer.param_groups for w in group["params"] if id(w) in ours]
        increment_version(stepped)


register_optimizer_step_post_hook(_count_step)
