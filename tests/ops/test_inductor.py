"""Every operator under `torch.compile` as a user calls it: one graph, inductor, equal to eager."""

import os
import shutil

import pytest
import torch

from pokegan.ops import (
    batch_gather,
    batch_norm_act,
    batch_norm_act_backward,
    batch_norm_act_sums,
    batch_norm_moments,
    diff_augment,
    dropout,
    label_targets,
    random,
    soft_labels,
    spectral_iterate,
    spectral_scale,
    spectral_sigma,
    status,
)
from pokegan.ops.random import Stream
from pokegan.ops.soft_labels import FORMS

COMPILERS = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
pytestmark = [
    pytest.mark.skipif(not status().cpu, reason=f"no extension: {status().cpu_reason}"),
    pytest.mark.skipif(
        not any(map(shutil.which, COMPILERS)),
        reason=f"inductor needs a C++ compiler, and {' or '.join(COMPILERS)} is not there",
    ),
]
SAMPLES = torch.arange(40, 47)


def both(function):
    """The eager and the compiled form."""
    return function, torch.compile(function, fullgraph=True)


def test_random_fills_have_the_same_bits_at_every_step() -> None:
    def fills(step):
        place = (3, Stream.LATENT, step + 1, SAMPLES, 5)
        return (
            random.words(*place) // 2,
            random.uniform(*place) * 2,
            random.symmetric_uniform(*place) * 2,
            random.normal(*place) * 2,
            random.normal(*place, 1.0, 0.3, torch.bfloat16) * 2,
        )

    eager, compiled = both(fills)
    for number in (4, 5):
        step = torch.tensor(number)
        for got, expected in zip(compiled(step), eager(step), strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_gather(dtype) -> None:
    images = torch.randint(0, 256, (5, 6, 7, 3), dtype=torch.uint8)
    indices, flip = torch.tensor([4, 0, 2]), torch.tensor([True, False, True])
    shift = torch.tensor([[1, -2], [0, 0], [-7, 3]])

    def gather(indices):
        return batch_gather(images, indices + 0, flip, shift, (1, 2, 3), dtype) * 2

    eager, compiled = (function(indices) for function in both(gather))
    assert torch.equal(compiled, eager)
    assert compiled.stride() == eager.stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_norm_with_an_activation(dtype) -> None:
    x, dy = (torch.randn(3, 5, 4, 2).to(dtype) for _ in range(2))
    x, dy = (one.to(memory_format=torch.channels_last) for one in (x, dy))
    w, b = torch.randn(5), torch.randn(5)

    def norm(x, dy, w, b):
        given = (batch_norm_moments(x * 2), w * 2, b, 1e-5, 0.2)
        sums = batch_norm_act_sums(dy, x * 2, *given)
        return (
            batch_norm_act(x * 2, *given) * 2,
            sums * 2,
            batch_norm_act_backward(dy, x * 2, *given[:3], sums, 24, *given[3:]) * 2,
        )

    eager, compiled = (function(x, dy, w, b) for function in both(norm))
    for got, expected in zip(compiled, eager, strict=True):
        assert torch.equal(got, expected)
        assert got.stride() == expected.stride()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_diff_augment_and_its_gradient(memory) -> None:
    images = torch.randn(3, 3, 6, 7).contiguous(memory_format=memory).requires_grad_()

    def augment(images, step):
        out = diff_augment(images * 2, 5, Stream.AUGMENT_REAL, step, SAMPLES[:3], fill=1.0)
        return out, (out * out.sin()).sum()

    results = []
    for function in both(augment):
        out, total = function(images, torch.tensor(4))
        results.append((out, *torch.autograd.grad(total, images)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("maps", [False, True])
def test_dropout_and_its_gradient_have_the_same_bits(memory, maps) -> None:
    values = torch.randn(14, 8, 3, 5).contiguous(memory_format=memory).requires_grad_()

    def drop(values, step):
        out = dropout(values * 2, 0.5, 5, 70_000, step, SAMPLES, maps=maps)
        return out, (out * 3).sum()

    for number in (4, 5):
        results = []
        for function in both(drop):
            out, total = function(values, torch.tensor(number))
            results.append((out, *torch.autograd.grad(total, values)))
        assert all(map(torch.equal, *results))
        assert results[0][0].stride() == results[1][0].stride()


def test_soft_labels_and_their_gradients_and_targets() -> None:
    rule = ((0.7, 1.2), (-0.1, 0.3), 0.4)
    real, fake = (row.requires_grad_() for row in torch.randn(2, 7).unbind())

    def losses(real, fake, step):
        place = (SAMPLES, step, 1, *rule)
        forms = [soft_labels(form, real * 2, fake, *place) for form in FORMS]
        return torch.stack(forms), label_targets(*place)

    results = []
    for function in both(losses):
        values, targets = function(real, fake, torch.tensor(4))
        weighted = values @ torch.tensor([1.0, 2.0, 3.0, 4.0])
        results.append((values, *targets, *torch.autograd.grad(weighted, (real, fake))))
    torch.testing.assert_close(*results)
    assert all(map(torch.equal, results[0][1:3], results[1][1:3]))


def test_spectral_norm_and_its_gradient() -> None:
    weights = [torch.randn(8, 3, 4, 4), torch.randn(6, 5, 3, 3), torch.randn(1, 30)]
    weights[0] = weights[0].to(memory_format=torch.channels_last)
    dims = [0, 1, 0]
    lengths = [(8, 48), (5, 54), (1, 30)]
    starts = [[torch.randn(pair[side]) for pair in lengths] for side in (0, 1)]

    def normalise(weights, u, v):
        factors = spectral_iterate(weights, u, v, dims)
        measured = spectral_sigma(weights, u, v, dims)
        return spectral_scale(weights, factors, dims), factors.sigma, measured.sigma

    results = []
    for function in both(normalise):
        u, v = ([vector.clone() for vector in side] for side in starts)
        leaves = [weight.clone().requires_grad_() for weight in weights]
        scaled, sigma, measured = function(leaves, u, v)
        sum((one * one.sin()).sum() for one in scaled).backward()
        results.append((*scaled, sigma, measured, *u, *v, *(leaf.grad for leaf in leaves)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
        assert got.stride() == expected.stride()
