"""The spectral norm (arXiv 1802.05957) of every layer of a network in one call each.

A power iteration keeps u and v, the leading singular vectors of each weight seen as a matrix W;
sigma = ut W v is its largest singular value, and W / sigma is what the layer uses. u and v count
as constants in the gradient, as in the paper and in PyTorch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pokegan.ops.extension import status

_USE = status()  # fixed for the process, so a compiled function sees a constant


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
    run = torch.ops.pokegan.spectral_iterate if _is_compiled(weights) else _iterate_reference
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
    run = torch.ops.pokegan.spectral_sigma if _is_compiled(weights) else _sigma_reference
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
    run = torch.ops.pokegan.spectral_scale if _is_compiled(weights) else _scale_reference
    scaled: list[Tensor] = run(weights, *factors, list(dims), dtype or weights[0].dtype)
    return scaled


def matrix_of(weight: Tensor, dim: int) -> Tensor:
    """Return `weight` as the matrix [rows, columns] whose singular value is meant."""
    return weight.movedim(dim, 0).flatten(1)


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


def _iterate_reference(
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
    with torch.no_grad(), _full_precision(weights):
        for weight, left, right, dim in zip(weights, u, v, dims, strict=True):
            matrix = matrix_of(weight, dim)
            for _ in range(iterations):
                left.copy_(F.normalize(matrix @ right, dim=0, eps=eps))
                right.copy_(F.normalize(matrix.T @ left, dim=0, eps=eps))
            sigmas.append(left @ (matrix @ right))
    return Factors(torch.stack(sigmas), torch.cat(u), torch.cat(v))


def _sigma_reference(
    weights: list[Tensor], u: list[Tensor], v: list[Tensor], dims: list[int]
) -> Factors:
    _check_vectors("spectral_sigma", weights, u, v, dims)
    with torch.no_grad(), _full_precision(weights):
        sigmas = [
            left @ (matrix_of(weight, dim) @ right)
            for weight, left, right, dim in zip(weights, u, v, dims, strict=True)
        ]
    return Factors(torch.stack(sigmas), torch.cat(u), torch.cat(v))


def _scale_reference(
    weights: list[Tensor],
    sigma: Tensor,
    u: Tensor,
    v: Tensor,
    dims: list[int],
    dtype: torch.dtype,
) -> list[Tensor]:
    _check_weights("spectral_scale", weights, dims)
    _check_factors("spectral_scale", weights, sigma, u, v, dims)
    if dtype != weights[0].dtype and (dtype, weights[0].dtype) != (torch.bfloat16, torch.float32):
        raise RuntimeError(
            "spectral_scale: dtype must be that of the weights, or bfloat16 for float32"
        )
    due = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    if due and not torch.compiler.is_compiling():
        return list(_ScaleReference.apply(sigma, u, v, dims, dtype, *weights))
    return _scale_plainly(weights, sigma, u, v, dims, dtype)


def _scale_plainly(
    weights: Sequence[Tensor],
    sigma: Tensor,
    u: Tensor,
    v: Tensor,
    dims: Sequence[int],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Do it in operators whose graph the first backward pass frees."""
    with _full_precision(weights):
        return [
            (weight / _with_gradient(one, weight, outer)).to(dtype)
            for one, weight, outer in zip(
                sigma.unbind(), weights, _outers(weights, u, v, dims), strict=True
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
        return tuple(_scale_plainly(weights, sigma, u, v, dims, dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        sigma, u, v, dims, dtype, *weights = inputs
        ctx.set_materialize_grads(False)
        _remember(ctx, (weights, sigma, u, v, dims, dtype), output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        _check_unchanged(ctx)
        sigma, u, v = ctx.factors
        outers = _outers(ctx.weights, u, v, ctx.dims)
        with _full_precision(ctx.weights):
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


def _outers(weights: Sequence[Tensor], u: Tensor, v: Tensor, dims: Sequence[int]) -> list[Tensor]:
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


def _full_precision(weights: Sequence[Tensor]) -> torch.autocast:
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


def _fake_factors(
    weights: list[Tensor], u: list[Tensor], v: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    first = weights[0]
    return (
        first.new_empty(len(weights)),
        first.new_empty(sum(vector.shape[0] for vector in u)),
        first.new_empty(sum(vector.shape[0] for vector in v)),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what backward needs, as attributes: a graph shared by several losses is never freed.

    `save_for_backward` would free it with the first of them. Its guard against weights changed in
    the meantime is done by hand.
    """
    ctx.weights, *ctx.factors, ctx.dims, _ = inputs
    if not torch.compiler.is_compiling():
        ctx.versions = [weight._version for weight in ctx.weights]


def _check_unchanged(ctx: Any) -> None:
    """Raise where a weight is not what `_remember` saw."""
    if not torch.compiler.is_compiling() and ctx.versions != [w._version for w in ctx.weights]:
        raise RuntimeError(
            "spectral_scale: a weight was changed in place between forward and backward; "
            "run the backward pass before the optimiser's step"
        )


def _backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    _check_unchanged(ctx)
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
    with _full_precision(weights):
        for k, g, weight, outer in zip(
            cotangents, gradients, weights, _outers(weights, u, v, ctx.dims), strict=True
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

    torch.library.register_autograd("pokegan::spectral_scale", _backward, setup_context=_remember)
    torch.library.register_autograd(
        "pokegan::spectral_scale_backward", _double_backward, setup_context=_remember_for_double
    )
