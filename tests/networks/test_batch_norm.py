"""Batch norm over several shares is batch norm over the whole batch, whatever is asked of it."""

import pytest
import torch
from thread_ranks import Seat, Threads
from torch import Tensor, nn

from pokegan.networks import batch_norm
from pokegan.networks.batch_norm import BatchNorm1d, BatchNorm2d, share
from pokegan.networks.layers import norm_layer

RANKS = 3


def layer(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> nn.Module:
    make = BatchNorm2d if len(shape) == 4 else BatchNorm1d
    norm = make(shape[1]).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, shape[1]))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, shape[1]))
    return norm


def plain(norm: nn.Module) -> nn.Module:
    """Return PyTorch's own layer with the same state."""
    kind = nn.BatchNorm2d if isinstance(norm, nn.BatchNorm2d) else nn.BatchNorm1d
    other = kind(norm.num_features).to(norm.weight.dtype)
    other.load_state_dict(norm.state_dict())
    return other


SHAPES = [(6, 4), (6, 4, 1), (6, 3, 5), (6, 4, 3, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_shares_are_normalised_as_the_whole_batch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    batch = torch.randn(shape, dtype=torch.float64) * 3 + 50  # far from 0: nothing may cancel
    slopes = torch.randn(shape, dtype=torch.float64)
    whole = plain(layer(shape))
    x = batch.clone().requires_grad_()
    expected = whole(x)
    expected.backward(slopes)
    norms = [layer(shape) for _ in range(RANKS)]

    def work(seat: Seat) -> Tensor:
        norm = norms[seat.rank]
        assert share(norm, seat) == 1
        own = batch.chunk(RANKS)[seat.rank].clone().requires_grad_()
        out = norm(own)
        out.backward(slopes.chunk(RANKS)[seat.rank])
        assert own.grad is not None
        return torch.stack((out.detach(), own.grad))

    results = torch.cat(Threads(RANKS).run(work), 1)
    torch.testing.assert_close(results[0], expected.detach())
    torch.testing.assert_close(results[1], x.grad)
    for name in ("weight", "bias"):
        summed = sum(getattr(norm, name).grad for norm in norms)
        torch.testing.assert_close(summed, getattr(whole, name).grad)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for norm in norms:
            torch.testing.assert_close(getattr(norm, name), getattr(whole, name))


def test_second_derivatives_are_those_of_the_whole_batch() -> None:
    """As a zero-centred penalty takes them: sum |d sum(f(x)) / dx|^2 by the parameters."""
    torch.manual_seed(1)
    batch = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    head = torch.randn(3, 4, 4, dtype=torch.float64)

    def penalty(norm: nn.Module, x: Tensor) -> Tensor:
        logits = (torch.tanh(norm(x)) * head).sum((1, 2, 3))
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return gradient.square().sum()

    whole = plain(layer(tuple(batch.shape)))
    x = batch.clone().requires_grad_()
    penalty(whole, x).backward()
    norms = [layer(tuple(batch.shape)) for _ in range(RANKS)]

    def work(seat: Seat) -> Tensor:
        share(norms[seat.rank], seat)
        own = batch.chunk(RANKS)[seat.rank].clone().requires_grad_()
        penalty(norms[seat.rank], own).backward()
        assert own.grad is not None
        return own.grad

    torch.testing.assert_close(torch.cat(Threads(RANKS).run(work)), x.grad)
    summed = sum(norm.weight.grad for norm in norms)
    torch.testing.assert_close(summed, whole.weight.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_in_channels_last_and_bfloat16(dtype: torch.dtype) -> None:
    """Parameters stay float32; the tolerance is that of the pictures' type."""
    torch.manual_seed(2)
    batch = (torch.randn(6, 8, 4, 4) + 3).to(dtype).to(memory_format=torch.channels_last)
    slopes = torch.randn(6, 8, 4, 4).to(dtype)
    whole = plain(layer(tuple(batch.shape), torch.float32))
    x = batch.float().clone().requires_grad_()
    expected = whole(x)
    expected.backward(slopes.float())

    def work(seat: Seat) -> Tensor:
        norm = layer(tuple(batch.shape), torch.float32)
        share(norm, seat)
        own = batch.chunk(RANKS)[seat.rank].clone().requires_grad_()
        out = norm(own)
        out.backward(slopes.chunk(RANKS)[seat.rank])
        assert out.dtype == dtype
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert own.grad is not None
        return torch.stack((out.detach().float(), own.grad.float()))

    results = torch.cat(Threads(RANKS).run(work), 1)
    close = {"rtol": 2e-2, "atol": 3e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(results[0], expected.detach(), **close)
    torch.testing.assert_close(results[1], x.grad, **close)


def test_only_what_is_due_is_computed() -> None:
    """A frozen discriminator's norms pass gradients on and get none."""

    def work(seat: Seat) -> Tensor:
        norm = layer((2, 3, 2, 2)).requires_grad_(False)
        share(norm, seat)
        own = torch.randn(2, 3, 2, 2, dtype=torch.float64).requires_grad_()
        norm(own).sum().backward()
        assert norm.weight.grad is None
        assert norm.bias.grad is None
        assert own.grad is not None
        return own.grad

    for gradient in Threads(2).run(work):  # a constant slope cannot move what is normalised
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_eval_mode_and_one_process_exchange_nothing() -> None:
    norm = norm_layer("batch", 3)
    assert norm is not None
    x = torch.randn(4, 3, 2, 2)
    expected = plain(norm)(x)
    torch.testing.assert_close(norm(x), expected)
    alone = Threads(2)  # whose other seat is empty: an exchange would wait for it
    share(norm, Seat(alone, 0))
    torch.testing.assert_close(norm.eval()(x), plain(norm).eval()(x))
    share(norm, None)
    norm.train()(x)
    assert alone.barrier.n_waiting == 0


def test_which_networks_have_them() -> None:
    from pokegan import recipes
    from pokegan.training.networks import build_networks

    counts = {}
    for name in ("hpml", "gan-pokemon-sngan", "aegan"):
        networks = build_networks(recipes.get(name))
        counts[name] = [len(list(batch_norm.batch_norms(one))) for one in networks.values()]
        for network in networks.values():
            plain_ones = [
                m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
            ]
            assert len(plain_ones) == len(list(batch_norm.batch_norms(network)))
    assert counts["hpml"] == [4, 4]
    assert counts["gan-pokemon-sngan"][1] == 0
    assert all(counts["aegan"][:3])
