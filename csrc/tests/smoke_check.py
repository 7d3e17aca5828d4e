"""Calls every operator of an installed pokegan once and compares it with its reference.

Needs torch and numpy only: it is what `check_abi.sh` runs under each torch.
"""

import importlib
import sys
from pathlib import Path

import torch

from pokegan.ops import (
    conv2d_bf16,
    conv2d_moments_bf16,
    conv2d_norm_sums_bf16,
    conv2d_split,
    conv_transpose2d_bf16,
    conv_transpose2d_moments_bf16,
    conv_transpose2d_norm_sums_bf16,
    conv_transpose2d_split,
    conv_units,
    random,
    spectral_iterate,
    spectral_scale,
    spectral_sigma,
    status,
)
from pokegan.ops.batch_gather import batch_gather, batch_gather_reference
from pokegan.ops.batch_norm_act import (
    batch_norm_act,
    batch_norm_act_backward,
    batch_norm_act_backward_reference,
    batch_norm_act_reference,
    batch_norm_act_sums,
    batch_norm_act_sums_reference,
    batch_norm_moments,
    batch_norm_moments_reference,
    batch_norm_track_,
)
from pokegan.ops.diff_augment import diff_augment, diff_augment_reference
from pokegan.ops.dropout import dropout, dropout_reference
from pokegan.ops.maps import (
    mix_colours,
    mix_colours_reference,
    shuffle_cat,
    shuffle_cat_reference,
    upsample_cat,
    upsample_cat_reference,
)
from pokegan.ops.soft_labels import (
    label_targets,
    label_targets_reference,
    soft_labels,
    soft_labels_reference,
)


def check_batch_gather(device: str) -> None:
    images = torch.randint(0, 256, (5, 9, 23, 3), dtype=torch.uint8, device=device)
    indices = torch.tensor([4, 0, 2], device=device)
    flip = torch.tensor([True, False, True], device=device)
    shift = torch.tensor([[1, -2], [0, 0], [-7, 3]], device=device)
    for dtype in (torch.float32, torch.bfloat16):
        arguments = (images, indices, flip, shift, (1, 2, 3), dtype)
        assert torch.equal(batch_gather(*arguments), batch_gather_reference(*arguments))


def check_diff_augment(device: str) -> None:
    samples = torch.arange(4, device=device)
    for memory in (torch.contiguous_format, torch.channels_last):
        images = torch.randn(4, 3, 9, 23, device=device).contiguous(memory_format=memory)
        images.requires_grad_()
        results = []
        for augment in (diff_augment, diff_augment_reference):
            out = augment(images, 5, 9, 3, samples, fill=1.0)
            (gradient,) = torch.autograd.grad(out.square().sum(), images, create_graph=True)
            (second,) = torch.autograd.grad(gradient.square().sum(), images)
            results.append((out, gradient, second))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def check_dropout(device: str) -> None:
    samples, step = torch.arange(4, device=device), torch.tensor(3, device=device)
    for memory in (torch.contiguous_format, torch.channels_last):
        values = torch.randn(8, 6, 9, 23, device=device).contiguous(memory_format=memory)
        values.requires_grad_()
        for maps in (False, True):
            results = []
            for drop in (dropout, dropout_reference):
                out = drop(values, 0.3, 5, 9, step, samples, maps=maps)
                results.append((out, *torch.autograd.grad(out.square().sum(), values)))
            assert all(map(torch.equal, *results))


def check_random(device: str) -> None:
    samples, step = torch.arange(7, device=device), torch.tensor(3, device=device)
    for ours, reference in (
        (random.words, random.words_reference),
        (random.uniform, random.uniform_reference),
        (random.normal, random.normal_reference),
    ):
        arguments = (5, random.Stream.LATENT, step, samples, 9)
        assert torch.equal(ours(*arguments), reference(*arguments))
    for dtype in (torch.float32, torch.bfloat16):
        arguments = (5, random.Stream.LATENT, step, samples, 150, 1.0, 0.3, dtype)
        assert torch.equal(random.normal(*arguments), random.normal_reference(*arguments))


def check_soft_labels(device: str) -> None:
    samples, step = torch.arange(9, device=device), torch.tensor(3, device=device)
    rule = ((0.7, 1.2), (0.0, 0.2), 0.3)
    for form in ("bce", "lsgan", "rgan", "ragan"):
        real, fake = (torch.randn(9, device=device, requires_grad=True) for _ in range(2))
        results = []
        for loss in (soft_labels, soft_labels_reference):
            value = loss(form, real, fake, samples, step, 5, *rule)
            results.append((value.detach(), *torch.autograd.grad(value, (real, fake))))
        torch.testing.assert_close(*results)
    targets = (label_targets, label_targets_reference)
    one, two = (function(samples, step, 5, *rule) for function in targets)
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def unit(length: int, device: str) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(length, device=device), dim=0)


def check_spectral_norm(device: str) -> None:
    weights = [torch.randn(5, 3, 2, 2, device=device), torch.randn(4, 7, device=device)]
    dims = [0, 0]
    matrices = [weight.flatten(1) for weight in weights]
    u, v = ([unit(matrix.shape[side], device) for matrix in matrices] for side in (0, 1))
    factors = spectral_iterate(weights, u, v, dims, iterations=100)
    largest = torch.stack([torch.linalg.svdvals(matrix)[0] for matrix in matrices])
    torch.testing.assert_close(factors.sigma, largest, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(spectral_sigma(weights, u, v, dims).sigma, factors.sigma)
    for weight in weights:
        weight.requires_grad_()
    scaled = spectral_scale(weights, factors, dims)
    for one, weight, sigma in zip(scaled, weights, factors.sigma, strict=True):
        torch.testing.assert_close(one, weight / sigma)
    gradients = torch.autograd.grad(sum(one.square().sum() for one in scaled), weights)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def check_conv(device: str) -> None:
    if conv_units() == "none" or device != "cpu":
        return
    functional = torch.nn.functional
    for dtype, down, up, allowed in (
        (torch.bfloat16, conv2d_bf16, conv_transpose2d_bf16, 0.02),
        (torch.float32, conv2d_split, conv_transpose2d_split, 1e-4),
    ):
        x, w = torch.randn(5, 3, 9, 8).to(dtype), torch.randn(7, 3, 4, 4).to(dtype)
        results = []
        for one, down_by, up_by in (
            (dtype, down, up),
            (torch.float64, functional.conv2d, functional.conv_transpose2d),
        ):
            leaves = [x.to(one).requires_grad_(), w.to(one).requires_grad_()]
            y = down_by(*leaves, None, 2, 1)
            z = up_by(y, leaves[1], None, 2, 1, (1, 0))
            results.append([y, z, *torch.autograd.grad(z.sum(), leaves)])
        for found, exact in zip(*results, strict=True):
            assert (found.double() - exact).norm() < allowed * exact.norm()
    x, w = torch.randn(33, 40, 6, 6).bfloat16(), torch.randn(40, 40, 4, 4)
    for summed in (conv2d_moments_bf16, conv_transpose2d_moments_bf16):
        maps, moments = summed(x, w, None, 2, 1)
        torch.testing.assert_close(moments, batch_norm_moments_reference(maps))
    norm = (torch.rand(2, 40) + 1, torch.randn(40), torch.randn(40), 1e-5, 0.2)
    for summed, more in (
        (conv2d_norm_sums_bf16, ()),
        (conv_transpose2d_norm_sums_bf16, ((0, 0),)),
    ):
        given = torch.randn(33, 40, *(2 * [12 if more else 3])).bfloat16()
        maps, sums = summed(x, w, 2, 1, *more, given, *norm)
        exact = batch_norm_act_sums_reference(maps.double(), given.double(), *norm)
        assert (sums - exact).norm() < 1e-4 * exact.norm()


def check_batch_norm_act(device: str) -> None:
    if device != "cpu":
        return
    x, dy = (torch.randn(5, 19, 3, 2).to(memory_format=torch.channels_last) for _ in range(2))
    w, b = torch.randn(19), torch.randn(19)
    moments, sums = batch_norm_moments(x), torch.randn(2, 19)
    torch.testing.assert_close(moments, batch_norm_moments_reference(x))
    given, numbers = (moments, w, b), (1e-5, 0.2)
    for ours, reference, arguments in (
        (batch_norm_act, batch_norm_act_reference, (x, *given)),
        (batch_norm_act_sums, batch_norm_act_sums_reference, (dy, x, *given)),
        (
            batch_norm_act_backward,
            batch_norm_act_backward_reference,
            (dy, x, *given, sums, 30),
        ),
    ):
        expected = reference(*arguments, *numbers)
        for units in (0, 1):
            torch.testing.assert_close(ours(*arguments, *numbers, units), expected)
    mean, variance = torch.zeros(19), torch.ones(19)
    batch_norm_track_(mean, variance, moments, 0.25, 30)
    torch.testing.assert_close(mean, 0.25 * moments[0])
    torch.testing.assert_close(variance, 0.75 + 0.25 * moments[1] * 30 / 29)


def check_activation(device: str) -> None:
    if device != "cpu":
        return
    x = torch.randn(5, 19, 3, 2).bfloat16().to(memory_format=torch.channels_last)
    for units in (0, 1):
        y = x.clone()
        torch.ops.pokegan.activate_(y, 0.2, units)
        assert torch.equal(y, torch.nn.functional.leaky_relu(x, 0.2))
        assert torch.equal(torch.ops.pokegan.activate_backward(x, y, 0.2, units), y)


def check_tanh(device: str) -> None:
    x = torch.randn(2, 5, 3, device=device).bfloat16()
    torch.testing.assert_close(torch.ops.pokegan.tanh(x), torch.tanh(x))


def check_maps(device: str) -> None:
    maps = torch.randn(2, 16, 3, 5, device=device).contiguous(memory_format=torch.channels_last)
    cases = (
        (lambda *both: shuffle_cat(*both, 1, 2), shuffle_cat_reference, (2, 8), (1, 2)),
        (upsample_cat, upsample_cat_reference, (2, 3, 6, 10), ()),
        (mix_colours, mix_colours_reference, (2, 3, 16), ()),
    )
    for ours, reference, shape, more in cases:
        other = torch.randn(shape, device=device)
        outcomes = []
        for function, rest in ((ours, ()), (reference, more)):
            leaves = [one.clone().requires_grad_() for one in (maps, other)]
            out = function(*leaves, *rest)
            outcomes.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
        for one, two in zip(*outcomes, strict=True):
            torch.testing.assert_close(one, two)


CHECKS = {
    "activate_": check_activation,
    "tanh": check_tanh,
    "shuffle_cat": check_maps,
    "upsample_cat": check_maps,
    "mix_colours": check_maps,
    "batch_gather": check_batch_gather,
    "batch_norm_act": check_batch_norm_act,
    "batch_norm_act_sums": check_batch_norm_act,
    "batch_norm_moments": check_batch_norm_act,
    "batch_norm_track_": check_batch_norm_act,
    "conv2d_bf16": check_conv,
    "conv2d_moments_bf16": check_conv,
    "conv2d_norm_sums_bf16": check_conv,
    "conv2d_split": check_conv,
    "conv2d_weight_bf16": check_conv,
    "conv2d_weight_split": check_conv,
    "conv_transpose2d_bf16": check_conv,
    "conv_transpose2d_moments_bf16": check_conv,
    "conv_transpose2d_norm_sums_bf16": check_conv,
    "conv_transpose2d_split": check_conv,
    "conv_units": check_conv,
    "diff_augment": check_diff_augment,
    "dropout": check_dropout,
    "dropout_again": check_dropout,
    "dropout_kept": check_dropout,
    "random_words": check_random,
    "random_uniform": check_random,
    "random_normal": check_random,
    "soft_labels": check_soft_labels,
    "label_targets": check_soft_labels,
    "spectral_iterate": check_spectral_norm,
    "spectral_sigma": check_spectral_norm,
    "spectral_scale": check_spectral_norm,
}


def schemas() -> set[str]:
    """Return every operator that the extension defined, but those that only serve a gradient."""
    names = {str(schema.name) for schema in torch._C._jit_get_all_schemas()}
    ours = {name.removeprefix("pokegan::") for name in names if name.startswith("pokegan::")}
    return {name for name in ours if not name.endswith(("_adjoint", "_backward"))}


def main() -> int:
    """Check the operators on the CPU, and on a GPU where there is one."""
    assert status().cpu, status().cpu_reason
    if torch.version.cuda is None:  # a module that needs CUDA libraries is not even tried
        assert not status().cuda
        assert "pokegan._C_cuda" not in sys.modules
    unchecked = schemas() - CHECKS.keys()
    assert not unchecked, f"no smoke check of {sorted(unchecked)}"
    for device in ("cpu", *("cuda",) * (status().cuda and torch.cuda.is_available())):
        for check in dict.fromkeys(CHECKS.values()):
            check(device)
    where = Path(importlib.import_module("pokegan").__file__).parent
    print(f"torch {torch.__version__}: CPU {status().cpu_reason}, CUDA {status().cuda_reason}")
    print(f"operators agree with their references ({where})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
