"""Halving: the values of `F.avg_pool2d`, and gradients of every order."""

import pytest
import torch
import torch.nn.functional as F

from pokegan.networks.pooling import halved

FORMATS = (torch.contiguous_format, torch.channels_last)


def with_gradients(halve, maps):
    """The result, the gradient of a loss, and that of the gradient's square."""
    maps = maps.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = halve(maps)
    (first,) = torch.autograd.grad((out**3).sum(), maps, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), maps)
    return out.detach(), first.detach(), second


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("shape", [(2, 16, 8, 6), (3, 3, 2, 2), (2, 5, 7, 4), (1, 4, 5, 5)])
def test_it_and_its_gradient_have_the_bits_of_pytorchs(shape, memory, dtype) -> None:
    maps = torch.randn(shape).to(dtype).contiguous(memory_format=memory)
    ours = with_gradients(halved, maps)
    theirs = with_gradients(lambda maps: F.avg_pool2d(maps, 2), maps)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert ours[1].stride() == theirs[1].stride()
    tolerance = 2**-6 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(ours[2], theirs[2], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("memory", FORMATS)
def test_gradcheck_of_both_orders(memory) -> None:
    maps = torch.randn(2, 2, 4, 6, dtype=torch.float64).contiguous(memory_format=memory)
    maps.requires_grad_()
    assert torch.autograd.gradcheck(halved, maps)
    assert torch.autograd.gradgradcheck(halved, maps)


def test_compiles_whole() -> None:
    maps = torch.randn(2, 4, 6, 8, requires_grad=True)
    compiled = torch.compile(halved, backend="aot_eager", fullgraph=True)
    (own,) = torch.autograd.grad((halved(maps) ** 2).sum(), maps)
    (traced,) = torch.autograd.grad((compiled(maps) ** 2).sum(), maps)
    torch.testing.assert_close(compiled(maps), halved(maps), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(traced, own, rtol=1e-6, atol=1e-6)
