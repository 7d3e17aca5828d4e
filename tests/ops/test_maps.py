"""Maps put together and colours mixed: against PyTorch's own operators, and their gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import with_threads
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from pokegan.ops import status
from pokegan.ops.maps import (
    MAX_COLOURS,
    mix_colours,
    mix_colours_reference,
    shuffle_cat,
    shuffle_cat_reference,
    upsample_cat,
    upsample_cat_reference,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float64)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
_ops = torch.ops.pokegan
FAR = (2**63 - 1, 2**63 - 1)
needs_kernels = pytest.mark.skipif(not status().cpu, reason=f"no extension: {status().cpu_reason}")
SHUFFLES = pytest.mark.parametrize("shuffle", [shuffle_cat, shuffle_cat_reference])
UPSAMPLES = pytest.mark.parametrize("upsample", [upsample_cat, upsample_cat_reference])
MIXES = pytest.mark.parametrize("mix", [mix_colours, mix_colours_reference])


@st.composite
def shapes(draw):
    """Sizes, dtype, layout, and where random numbers come from."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    dtype, layout = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(LAYOUTS))

    def tensor(*sizes):
        values = torch.randn(sizes, generator=generator).to(dtype)
        values = values.contiguous(memory_format=layout) if len(sizes) == 4 else values
        return values.requires_grad_()

    batch, height, width = (draw(st.integers(1, most)) for most in (3, 5, 7))
    few, many = draw(st.integers(0, 9)), draw(st.integers(1, 40))
    return tensor, batch, few, many, height, width


def uneven(like: Tensor) -> Tensor:
    """A fixed gradient of a result, different everywhere."""
    return torch.linspace(-1, 2, like.numel(), dtype=torch.float64).view(like.shape).to(like.dtype)


def assert_near(found: Tensor, exact: Tensor, terms: float = 0.0) -> None:
    """Equal up to one rounding to the dtype, and a little for sums in another order.

    `terms` is how large the terms of a sum are, where they may cancel.
    """
    assert found.shape == exact.shape
    if not exact.numel():
        return
    rounding = torch.finfo(found.dtype).eps
    allowed = rounding * exact.abs() + 1e-6 * max(float(exact.abs().max()), terms)
    assert ((found.double() - exact).abs() <= allowed).all()


@SHUFFLES
@settings(deadline=None, max_examples=60)
@given(case=shapes(), border=st.tuples(st.integers(0, 2), st.integers(0, 3)))
def test_shuffle_is_pytorchs_of_a_concatenation(shuffle, case, border) -> None:
    tensor, batch, few, many, height, width = case
    maps, everywhere = tensor(batch, 4 * many, height, width), tensor(batch, 4 * few)
    spread = everywhere[:, :, None, None].expand(-1, -1, height, width)
    expected = F.pad(F.pixel_shuffle(torch.cat((maps, spread), 1), 2), border * 2)
    found = shuffle(maps, everywhere, *border)
    assert found.dtype == maps.dtype
    assert torch.equal(found, expected)
    wide = tuple(one.detach().double().requires_grad_() for one in (maps, everywhere))
    spread = wide[1][:, :, None, None].expand(-1, -1, height, width)
    exact = F.pad(F.pixel_shuffle(torch.cat((wide[0], spread), 1), 2), border * 2)
    weighting = uneven(found)
    inputs = (maps, everywhere) if few else (maps,)
    by_input = torch.autograd.grad(found, inputs, weighting)
    exact_by_input = torch.autograd.grad(exact, wide[: len(inputs)], weighting.double())
    assert [one.dtype for one in by_input] == [found.dtype] * len(inputs)
    assert torch.equal(by_input[0].double(), exact_by_input[0])
    if few and (shuffle is shuffle_cat or found.dtype == torch.float64):
        assert_near(by_input[1], exact_by_input[1])


@UPSAMPLES
@settings(deadline=None, max_examples=60)
@given(case=shapes())
def test_upsampling_is_pytorchs_and_a_concatenation(upsample, case) -> None:
    tensor, batch, few, many, height, width = case
    maps, skip = tensor(batch, many, height, width), tensor(batch, few, 2 * height, 2 * width)
    expected = torch.cat((F.interpolate(maps, scale_factor=2, mode="nearest"), skip), 1)
    found = upsample(maps, skip)
    assert found.dtype == maps.dtype
    assert torch.equal(found, expected)
    wide = tuple(one.detach().double().requires_grad_() for one in (maps, skip))
    exact = torch.cat((F.interpolate(wide[0], scale_factor=2, mode="nearest"), wide[1]), 1)
    weighting = uneven(found)
    by_maps, by_skip = torch.autograd.grad(found, (maps, skip), weighting)
    exact_maps, exact_skip = torch.autograd.grad(exact, wide, weighting.double())
    assert torch.equal(by_skip.double(), exact_skip)
    assert_near(by_maps, exact_maps)


@MIXES
@settings(deadline=None, max_examples=60)
@given(case=shapes(), colours=st.sampled_from((1, 2, 5, 16, 33, 64, 70)), scale=st.floats(0, 40))
def test_colours_are_mixed_by_the_softmax_of_their_scores(mix, case, colours, scale) -> None:
    tensor, batch, _few, _many, height, width = case
    scores = (tensor(batch, colours, height, 4 * width).detach() * scale).requires_grad_()
    palettes = tensor(batch, 3, colours)
    wide = tuple(one.detach().double().requires_grad_() for one in (scores, palettes))
    shares = torch.exp(wide[0]) / torch.exp(wide[0]).sum(1, keepdim=True)
    exact = torch.einsum("nkhw,nck->nchw", shares, wide[1])
    found = mix(scores, palettes)
    assert found.dtype == scores.dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    plain = mix is mix_colours_reference or colours > MAX_COLOURS
    if plain and found.dtype == torch.bfloat16:
        return  # PyTorch rounds the shares, too
    weighting = uneven(found)
    terms = 6 * max(1.0, float(palettes.detach().abs().max()))
    assert_near(found, exact.detach(), terms)
    for one, two in zip(
        torch.autograd.grad(found, (scores, palettes), weighting),
        torch.autograd.grad(exact, wide, weighting.double()),
        strict=True,
    ):
        assert one.dtype == scores.dtype
        assert_near(one, two, terms)


@MIXES
def test_what_is_no_number_stays_none(mix) -> None:
    scores = torch.zeros(1, 3, 1, 4)
    scores[0, 1] = torch.tensor([0.0, float("nan"), float("inf"), float("-inf")])
    palettes = torch.tensor([[[0.0, 1.0, 0.5]] * 3])
    found = mix(scores.contiguous(memory_format=torch.channels_last), palettes)[0, 0, 0]
    torch.testing.assert_close(
        found, torch.tensor([0.5, float("nan"), float("nan"), 0.25]), equal_nan=True
    )


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_any_count_of_threads_gives_the_same_bits(dtype) -> None:
    torch.manual_seed(0)
    maps, everywhere = torch.randn(5, 68, 9, 11).to(dtype), torch.randn(5, 20).to(dtype)
    skip, scores = torch.randn(5, 7, 18, 22).to(dtype), torch.randn(5, 16, 40, 33).to(dtype)
    palettes = torch.randn(5, 3, 16).to(dtype)

    def everything() -> list[Tensor]:
        out = []
        for function, inputs in (
            (lambda a, b: shuffle_cat(a, b, 1, 2), (maps, everywhere)),
            (upsample_cat, (maps, skip)),
            (mix_colours, (scores, palettes)),
        ):
            leaves = [one.clone().requires_grad_() for one in inputs]
            made = function(*leaves)
            out += [made.detach(), *torch.autograd.grad(made, leaves, uneven(made))]
        return out

    first, *others = with_threads(everything)
    for other in others:
        assert all(map(torch.equal, first, other))


@needs_kernels
def test_linear_ones_can_be_differentiated_again() -> None:
    torch.manual_seed(0)
    maps, everywhere = torch.randn(2, 8, 3, 3), torch.randn(2, 4)
    skip = torch.randn(2, 3, 6, 6)
    for ours, plain, inputs in (
        (shuffle_cat, shuffle_cat_reference, (maps, everywhere)),
        (upsample_cat, upsample_cat_reference, (maps, skip)),
    ):
        outcomes = []
        for function in (ours, plain):
            leaves = [one.clone().requires_grad_() for one in inputs]
            out = function(*leaves).square()
            first = torch.autograd.grad(out.sum(), leaves, create_graph=True)
            sum(one.pow(3).sum() for one in first).backward()
            outcomes.append([leaf.grad for leaf in leaves])
        for one, other in zip(*outcomes, strict=True):
            torch.testing.assert_close(one, other)


@needs_kernels
def test_empty_batches() -> None:
    last = torch.channels_last
    assert shuffle_cat(torch.zeros(0, 8, 2, 3), torch.zeros(0, 4), 1, 0).shape == (0, 3, 5, 7)
    empty = torch.zeros(0, 5, 2, 3).contiguous(memory_format=last)
    assert upsample_cat(empty, torch.zeros(0, 2, 4, 6)).shape == (0, 7, 4, 6)
    assert mix_colours(empty, torch.zeros(0, 3, 5)).shape == (0, 3, 2, 3)


def test_maps_without_pixels() -> None:
    """What is around them is zeros, and what goes to all pixels gets no gradient from none."""
    torch.full((1, 2, 2, 8), 7.0)  # likely what memory that is not written has
    for size in ((0, 3), (3, 0)):
        made = shuffle_cat(torch.zeros(1, 4, *size), torch.ones(1, 4), 1, 1)
        assert made.shape == (1, 2, 2 * size[0] + 2, 2 * size[1] + 2)
        assert not made.any()
        scores = torch.zeros(1, 8, *size).contiguous(memory_format=torch.channels_last)
        palettes = torch.ones(1, 3, 8, requires_grad=True)
        mix_colours(scores.requires_grad_(), palettes).sum().backward()
        assert not palettes.grad.any()


@needs_kernels
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shuffle_cat(torch.zeros(1, 6, 2, 2), torch.zeros(1, 4)), "multiples of 4, got 6"),
        (lambda: shuffle_cat(torch.zeros(1, 8, 2, 2), torch.zeros(1, 3)), "got 8 and 3"),
        (lambda: shuffle_cat(torch.zeros(2, 8, 2, 2), torch.zeros(1, 4)), "everywhere has not"),
        (lambda: shuffle_cat(torch.zeros(1, 8, 2, 2), torch.zeros(4)), r"the shape \[N, E\]"),
        (lambda: shuffle_cat(torch.zeros(1, 8, 2, 2), torch.zeros(1, 4), -1), "border must be"),
        (lambda: shuffle_cat(torch.zeros(1, 4, 2, 2), torch.zeros(1, 0), *FAR), "border must be"),
        (lambda: _ops.shuffle_cat_backward(torch.zeros(1, 1, 2, 2), 0, *FAR), "border must be"),
        (lambda: upsample_cat(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 4, 5)), "skip has not"),
        (lambda: upsample_cat(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 4)), "skip must have"),
        (lambda: mix_colours(torch.zeros(1, 5, 2, 2), torch.zeros(1, 3, 4)), "palettes has not"),
    ],
)
def test_what_does_not_fit_is_refused(call, message) -> None:
    with pytest.raises(RuntimeError, match=message):
        call()


def test_more_colours_than_the_kernel_takes_are_mixed_all_the_same() -> None:
    scores = torch.zeros(1, MAX_COLOURS + 1, 1, 1)
    palettes = torch.ones(1, 3, MAX_COLOURS + 1)
    torch.testing.assert_close(mix_colours(scores, palettes), torch.ones(1, 3, 1, 1))


def test_compiled_code_has_pytorchs_operators() -> None:
    maps, everywhere = torch.randn(1, 8, 2, 2), torch.randn(1, 4)
    called: list[str] = []

    def note(graph: torch.fx.GraphModule, _inputs: object) -> torch.fx.GraphModule:
        called.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    compiled = torch.compile(shuffle_cat, fullgraph=True, backend=aot_autograd(fw_compiler=note))
    assert torch.equal(compiled(maps, everywhere, 1, 2), shuffle_cat(maps, everywhere, 1, 2))
    assert "aten.cat.default" in called
    assert not any("pokegan" in name for name in called)
