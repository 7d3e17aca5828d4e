"""The spectral norm's operators in plain PyTorch: compared with them, and used in their place.

It raises what they raise, in the same words. Knows nothing of compiled operators.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Factors(NamedTuple):
    """What a power iteration found. Nothing changes these tensors afterwards.

    Attributes:
        sigma: [L], one for each weight.
        u: the left singular vectors of all weights, one after another.
        v: the right singular vectors of all weights, one after another.
    """

    sigma: Tensor
    u: Tensor
    v: Tensor


def matrix_of(weight: Tensor, dim: int) -> Tensor:
    """Return `weight` as the matrix [rows, columns] whose singular value is meant."""
    return weight.movedim(dim, 0).flatten(1)


def remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what backward needs, as attributes: a graph shared by several losses is never freed.

    `save_for_backward` would free it with the first of them. Its guard against weights changed in
    the meantime is done by hand.
    """
    ctx.weights, *ctx.factors, ctx.dims, _ = inputs
    if not torch.compiler.is_compiling():
        ctx.versions = [weight._version for weight in ctx.weights]


def check_unchanged(ctx: Any) -> None:
    """Raise where a weight is not what `remember` saw."""
    if not torch.compiler.is_compiling() and ctx.versions != [w._version for w in ctx.weights]:
        raise RuntimeError(
            "spectral_scale: a weight was changed in place between forward and backward; "
            "run the backward pass before the optimiser's step"
        )


def iterate_reference(
    weights: list[Tensor],
    u: list[Tensor],
    v: list[Tensor],
    dims: list[int],
    iterations: int,
    eps: float,
) -> Factors:
    """Do what the operator of the same name does, in plain PyTorch."""
    _check_vectors("spectral_iterate", weights, u, v, dims)
    if iterations < 1:
        raise RuntimeError(f"spectral_iterate: iterations must be at least 1, got {iterations}")
    if not eps > 0:
        raise RuntimeError(f"spectral_iterate: eps must be positive, got {eps}")
    sigmas = []
    with torch.no_grad(), full_precision(weights):
        for weight, left, right, dim in zip(weights, u, v, dims, strict=True):
            matrix = matrix_of(weight, dim)
            for _ in range(iterations):
                left.copy_(F.normalize(matrix @ right, dim=0, eps=eps))
                right.copy_(F.normalize(matrix.T @ left, dim=0, eps=eps))
            sigmas.append(left @ (matrix @ right))
    return Factors(torch.stack(sigmas), torch.cat(u), torch.cat(v))


def sigma_reference(
    weights: list[Tensor], u: list[Tensor], v: list[Tensor], dims: list[int]
) -> Factors:
    """Return sigma = ut W v of all weights, and copies of the vectors."""
    _check_vectors("spectral_sigma", weights, u, v, dims)
    with torch.no_grad(), full_precision(weights):
        sigmas = [
            left @ (matrix_of(weight, dim) @ right)
            for weight, left, right, dim in zip(weights, u, v, dims, strict=True)
        ]
    return Factors(torch.stack(sigmas), torch.cat(u), torch.cat(v))


def scale_reference(
    weights: list[Tensor],
    sigma: Tensor,
    u: Tensor,
    v: Tensor,
    dims: list[int],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Return W / sigma of all weights; the graph serves any number of backward passes."""
    _check_weights("spectral_scale", weights, dims)
    _check_factors("spectral_scale", weights, sigma, u, v, dims)
    if dtype != weights[0].dtype and (dtype, weights[0].dtype) != (torch.bfloat16, torch.float32):
        raise RuntimeError(
            "spectral_scale: dtype must be that of the weights, or bfloat16 for float32"
        )
    due = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    if due and not torch.compiler.is_compiling():
        return list(_ScaleReference.apply(sigma, u, v, dims, dtype, *weights))
    return scale_plainly(weights, sigma, u, v, dims, dtype)


def scale_plainly(
    weights: Sequence[Tensor],
    sigma: Tensor,
    u: Tensor,
    v: Tensor,
    dims: Sequence[int],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Do it in operators whose graph the first backward pass frees."""
    with full_precision(weights):
        return [
            (weight / _with_gradient(one, weight, outer)).to(dtype)
            for one, weight, outer in zip(
                sigma.unbind(), weights, outers_of(weights, u, v, dims), strict=True
            )
        ]


def _with_gradient(sigma: Tensor, weight: Tensor, outer: Tensor) -> Tensor:
    """Return sigma of one weight; its gradient is that of ut W v."""
    own = (weight * outer).sum()
    return sigma + (own - own.detach())


class _ScaleReference(torch.autograd.Function):
    """The same with a graph that serves any number of backward passes."""

    @staticmethod
    def forward(
        sigma: Tensor,
        u: Tensor,
        v: Tensor,
        dims: Sequence[int],
        dtype: torch.dtype,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        return tuple(scale_plainly(weights, sigma, u, v, dims, dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        sigma, u, v, dims, dtype, *weights = inputs
        ctx.set_materialize_grads(False)
        remember(ctx, (weights, sigma, u, v, dims, dtype), output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        check_unchanged(ctx)
        sigma, u, v = ctx.factors
        outers = outers_of(ctx.weights, u, v, ctx.dims)
        with full_precision(ctx.weights):
            to_weights = [
                None if gradient is None else _to_weight(gradient, one, weight, outer)
                for gradient, one, weight, outer in zip(
                    gradients, sigma.unbind(), ctx.weights, outers, strict=True
                )
            ]
        return None, None, None, None, None, *to_weights


def _to_weight(gradient: Tensor, sigma: Tensor, weight: Tensor, outer: Tensor) -> Tensor:
    """Return dW = (G - <G, W / sigma> u vt) / sigma in plain operators, to be differentiated.

    In the weight's dtype and memory order.
    """
    sigma = _with_gradient(sigma, weight, outer)
    wide = torch.empty_like(weight).copy_(gradient)
    return (wide - (wide * weight).sum() / sigma * outer) / sigma


def outers_of(weights: Sequence[Tensor], u: Tensor, v: Tensor, dims: Sequence[int]) -> list[Tensor]:
    """Return u vt of every weight, in the weight's shape."""
    outers, row, column = [], 0, 0
    for weight, dim in zip(weights, dims, strict=True):
        rows, columns = _lengths(weight, dim)
        outer = torch.outer(u[row : row + rows], v[column : column + columns])
        others = [size for axis, size in enumerate(weight.shape) if axis != dim]
        outers.append(outer.view(rows, *others).movedim(0, dim))
        row, column = row + rows, column + columns
    return outers


def _lengths(weight: Tensor, dim: int) -> tuple[int, int]:
    """Return the counts of rows and of columns."""
    columns = 1
    for axis, size in enumerate(weight.shape):
        columns *= 1 if axis == dim else size
    return weight.shape[dim], columns


def full_precision(weights: Sequence[Tensor]) -> torch.autocast:
    """Compute in the weights' own precision within, whatever autocast says outside."""
    return torch.autocast(weights[0].device.type, enabled=False)


def _check_weights(name: str, weights: Sequence[Tensor], dims: Sequence[int]) -> None:
    """Raise what the compiled operators raise, in the same words; so do the other checks."""
    first = weights[0]
    if first.dtype not in (torch.float32, torch.float64):
        raise RuntimeError(f"{name}: weights must be float32 or float64")
    for i, (weight, dim) in enumerate(zip(weights, dims, strict=True)):
        rules = (
            (weight.dtype == first.dtype, f"weights[{i}] must have the dtype of weights[0]"),
            (weight.device == first.device, f"weights[{i}] must be on the device of weights[0]"),
            (2 <= weight.dim() <= 8, f"weights[{i}] must have 2 to 8 dimensions"),
            (
                0 <= dim < weight.dim(),
                f"dims[{i}] must be a dimension of weights[{i}], got {dim}",
            ),
        )
        for holds, message in rules:
            if not holds:
                raise RuntimeError(f"{name}: {message}")


def _check_vectors(
    name: str,
    weights: Sequence[Tensor],
    u: Sequence[Tensor],
    v: Sequence[Tensor],
    dims: Sequence[int],
) -> None:
    _check_weights(name, weights, dims)
    for argument, vectors in (("u", u), ("v", v)):
        if len(vectors) != len(weights):
            raise RuntimeError(f"{name}: {argument} must hold one vector a weight")
    for i, (weight, dim) in enumerate(zip(weights, dims, strict=True)):
        rows, columns = _lengths(weight, dim)
        _check_vector(name, f"u[{i}]", u[i], rows, weights[0])
        _check_vector(name, f"v[{i}]", v[i], columns, weights[0])


def _check_factors(
    name: str, weights: Sequence[Tensor], sigma: Tensor, u: Tensor, v: Tensor, dims: Sequence[int]
) -> None:
    lengths = [_lengths(weight, dim) for weight, dim in zip(weights, dims, strict=True)]
    _check_vector(name, "sigma", sigma, len(weights), weights[0])
    _check_vector(name, "u", u, sum(rows for rows, _ in lengths), weights[0])
    _check_vector(name, "v", v, sum(columns for _, columns in lengths), weights[0])


def _check_vector(name: str, argument: str, vector: Tensor, length: int, weight: Tensor) -> None:
    rules = (
        (
            vector.shape == (length,) and vector.is_contiguous(),
            f"must be contiguous of the shape [{length}]",
        ),
        (vector.dtype == weight.dtype, "must have the dtype of the weights"),
        (vector.device == weight.device, "must be on the device of the weights"),
    )
    for holds, message in rules:
        if not holds:
            raise RuntimeError(f"{name}: {argument} {message}")
