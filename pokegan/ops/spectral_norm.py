"""The spectral norm (arXiv 1802.05957) of every layer of a network in one call each.

A power iteration keeps u and v, the leading singular vectors of each weight seen as a matrix W;
sigma = ut W v is its largest singular value, and W / sigma is what the layer uses. u and v count
as constants in the gradient, as in the paper and in PyTorch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pokegan.ops.extension import status
from pokegan.ops.spectral_norm_reference import (
    Factors,
    check_unchanged,
    full_precision,
    iterate_reference,
    outers_of,
    remember,
    scale_reference,
    sigma_reference,
)

_USE = status()  # fixed for the process, so a compiled function sees a constant


def spectral_iterate(
    weights: Sequence[Tensor],
    u: Sequence[Tensor],
    v: Sequence[Tensor],
    dims: Sequence[int],
    iterations: int = 1,
    eps: float = 1e-12,
) -> Factors:
    """Run power iterations on all weights; change `u` and `v` in place.

    u = W v / max(|W v|, eps), v = Wt u / max(|Wt u|, eps), sigma = ut W v. W is read once an
    iteration: with t = W v and s = Wt t, u = t / |t|, v = s / |s| and sigma = |s| / |t|.

    Args:
        weights: float32 or float64, 2 to 8 dimensions each, all of one dtype and device.
        u: for each weight its rows' vector, contiguous.
        v: for each weight its columns' vector, contiguous, columns in PyTorch's order.
        dims: for each weight the dimension that counts the rows: 0, or 1 for a transposed
            convolution.
        iterations: at least 1.
        eps: positive; the smallest length that a vector is divided by.

    Returns:
        sigma, and copies of the new u and v. No gradient flows through them.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape, device or range.
    """
    if not weights:
        return _no_factors()
    weights = [_detached(weight, dim) for weight, dim in zip(weights, dims, strict=True)]
    run = torch.ops.pokegan.spectral_iterate if _is_compiled(weights) else iterate_reference
    return Factors(*run(weights, list(u), list(v), list(dims), iterations, eps))


def spectral_sigma(
    weights: Sequence[Tensor], u: Sequence[Tensor], v: Sequence[Tensor], dims: Sequence[int]
) -> Factors:
    """Return sigma = ut W v of all weights with the vectors as they are, and copies of these.

    Arguments and errors as `spectral_iterate`. No gradient flows through the result.
    """
    if not weights:
        return _no_factors()
    weights = [_detached(weight, dim) for weight, dim in zip(weights, dims, strict=True)]
    run = torch.ops.pokegan.spectral_sigma if _is_compiled(weights) else sigma_reference
    return Factors(*run(weights, list(u), list(v), list(dims)))


def spectral_scale(
    weights: Sequence[Tensor],
    factors: Factors,
    dims: Sequence[int],
    dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """Return W / sigma of all weights, in each weight's memory order.

    Differentiable twice and more with respect to `weights`, where sigma stands for ut W v:
    dW = (G - <G, W / sigma> u vt) / sigma. Its graph may be used by any number of backward passes.
    A weight of zeros gives what PyTorch's gives: no numbers.

    Args:
        weights: as in `spectral_iterate`.
        factors: of these weights, by `spectral_iterate` or `spectral_sigma`.
        dims: as in `spectral_iterate`.
        dtype: that of the weights (None), or bfloat16 for float32 weights: rounded once.

    Raises:
        RuntimeError: an argument has the wrong dtype, shape or device.
    """
    if not weights:
        return []
    weights = [_readable(weight, dim) for weight, dim in zip(weights, dims, strict=True)]
    run = torch.ops.pokegan.spectral_scale if _is_compiled(weights) else scale_reference
    scaled: list[Tensor] = run(weights, *factors, list(dims), dtype or weights[0].dtype)
    return scaled


def _is_compiled(weights: Sequence[Tensor]) -> bool:
    return _USE.cuda if weights[0].device.type == "cuda" else _USE.cpu


def _readable(weight: Tensor, dim: int) -> Tensor:
    """Copy a weight whose memory order the kernels do not read."""
    if weight.is_contiguous() or (weight.dim() == 2 and weight.t().is_contiguous()):
        return weight
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(weight.dim())
    if last is not None and dim <= 1 and weight.is_contiguous(memory_format=last):
        return weight
    return weight.contiguous()


def _detached(weight: Tensor, dim: int) -> Tensor:
    return _readable(weight.detach() if weight.requires_grad else weight, dim)


def _no_factors() -> Factors:
    return Factors(torch.empty(0), torch.empty(0), torch.empty(0))


def _fake_factors(
    weights: list[Tensor], u: list[Tensor], v: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    first = weights[0]
    return (
        first.new_empty(len(weights)),
        first.new_empty(sum(vector.shape[0] for vector in u)),
        first.new_empty(sum(vector.shape[0] for vector in v)),
    )


def _backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    check_unchanged(ctx)
    given = next(gradient for gradient in gradients if gradient is not None)
    complete = [
        torch.zeros_like(weight, dtype=given.dtype) if gradient is None else gradient
        for gradient, weight in zip(gradients, ctx.weights, strict=True)
    ]
    result = torch.ops.pokegan.spectral_scale_backward(
        complete, ctx.weights, *ctx.factors, ctx.dims
    )
    return result, None, None, None, None, None


def _remember_for_double(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    gradients, weights, _, u, v, ctx.dims = inputs
    ctx.save_for_backward(u, v, *gradients, *weights)


def _double_backward(ctx: Any, cotangents: list[Tensor | None]) -> tuple[Any, ...]:
    """The gradient of H(G, W) = (G - <G, W> / s u vt) / s with s = ut W v, composed of plain
    operators: rare, and so differentiable as often as wanted.
    """
    u, v, *tensors = ctx.saved_tensors
    gradients, weights = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
    to_gradients, to_weights = [], []
    with full_precision(weights):
        for k, g, weight, outer in zip(
            cotangents, gradients, weights, outers_of(weights, u, v, ctx.dims), strict=True
        ):
            k = torch.zeros_like(weight) if k is None else k
            wide = g.to(weight.dtype)
            s, kappa = (weight * outer).sum(), (k * outer).sum()
            to_gradients.append(((k - kappa / s * weight) / s).to(g.dtype))
            slope = 2 * (wide * weight).sum() * kappa / s**3 - (k * wide).sum() / s**2
            to_weights.append(slope * outer - kappa / s**2 * wide)
    return to_gradients, to_weights, None, None, None, None


if _USE.cpu:

    @torch.library.register_fake("pokegan::spectral_iterate")  # type: ignore[untyped-decorator]  # torch's
    def _fake_iterate(
        weights: list[Tensor],
        u: list[Tensor],
        v: list[Tensor],
        dims: list[int],
        iterations: int,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _fake_factors(weights, u, v)

    @torch.library.register_fake("pokegan::spectral_sigma")  # type: ignore[untyped-decorator]  # torch's
    def _fake_sigma(
        weights: list[Tensor], u: list[Tensor], v: list[Tensor], dims: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _fake_factors(weights, u, v)

    @torch.library.register_fake("pokegan::spectral_scale")  # type: ignore[untyped-decorator]  # torch's
    def _fake_scale(
        weights: list[Tensor],
        sigma: Tensor,
        u: Tensor,
        v: Tensor,
        dims: list[int],
        dtype: torch.dtype,
    ) -> list[Tensor]:
        return [torch.empty_like(weight, dtype=dtype) for weight in weights]

    @torch.library.register_fake("pokegan::spectral_scale_backward")  # type: ignore[untyped-decorator]  # torch's
    def _fake_backward(
        gradients: list[Tensor],
        weights: list[Tensor],
        sigma: Tensor,
        u: Tensor,
        v: Tensor,
        dims: list[int],
    ) -> list[Tensor]:
        return [torch.empty_like(weight) for weight in weights]

    torch.library.register_autograd("pokegan::spectral_scale", _backward, setup_context=remember)
    torch.library.register_autograd(
        "pokegan::spectral_scale_backward", _double_backward, setup_context=_remember_for_double
    )
