"""dropout: the composed product, word for word, in any layout; its distribution; its gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pokegan.ops import dropout, random, status
from pokegan.ops.dropout import dropout_reference

STREAM = 70_000
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
FORMATS = (torch.contiguous_format, torch.channels_last)
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float64: torch.int64}
BOTH = pytest.mark.parametrize("drop", [dropout, dropout_reference])
needs_extension = pytest.mark.skipif(
    not status().cpu, reason=f"no extension: {status().cpu_reason}"
)


def same_bits(one, two):
    assert one.dtype == two.dtype
    return torch.equal(
        one.contiguous().view(BITS[one.dtype]), two.contiguous().view(BITS[two.dtype])
    )


def by_definition(values, p, seed, stream, step, samples, maps):
    """One sample after the other, its uniforms laid out as [H, W, C] or as [C]."""
    share, shape = len(samples), values.shape[1:]
    factors = []
    for row in range(len(values)):
        place = samples[row % share : row % share + 1]
        count = shape[0] if maps else int(np.prod(shape))
        draws = random.uniform(seed, stream + row // share, step, place, count)[0].numpy()
        if maps:
            draws = np.broadcast_to(draws[:, None, None], shape)
        elif len(shape) == 3:
            draws = draws.reshape(*shape[1:], shape[0]).transpose(2, 0, 1)
        kept = draws.reshape(shape) >= np.float32(p)
        factors.append(torch.from_numpy(np.where(kept, np.float32(1 / (1 - p)), np.float32(0))))
    if not factors:
        return values.clone()
    return values * torch.stack(factors).to(values.dtype)


@st.composite
def cases(draw):
    """Values of any shape and layout with their arguments."""
    share, passes = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    maps = draw(st.booleans())
    sides = draw(st.lists(st.integers(1, 13), min_size=3 if maps else 0, max_size=3 if maps else 4))
    if draw(st.booleans()) and sides:
        sides[0] = draw(st.sampled_from((64, 129, 200)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    values = torch.randn((share * passes, *sides), generator=generator)
    values = values.to(draw(st.sampled_from(DTYPES)))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "strided"]))
    if layout == "channels_last" and values.dim() == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    elif layout == "strided" and sides:
        values = values.repeat_interleave(2, dim=-1)[..., ::2]
    samples = torch.randint(0, 2**32, (share,), generator=generator)
    place = (draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**32 - 4)))
    step = torch.tensor(draw(st.integers(0, 2**32 - 1)))
    p = draw(st.sampled_from((0.0, 0.1, 0.25, 0.5, 0.93)))
    return values, p, *place, step, samples, maps


def with_gradients(drop, values, *place, maps=False):
    """The values, their gradient, and the gradient of that."""
    values = values.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    weight = torch.linspace(-1, 1, values.numel()).view(values.shape).to(values.dtype)
    weight.requires_grad_()
    out = drop(values, *place, maps=maps)
    (first,) = torch.autograd.grad(out, values, weight, create_graph=True)
    (second,) = torch.autograd.grad(first, weight, torch.ones_like(first))
    return out.detach(), first.detach(), second


@BOTH
@settings(deadline=None, max_examples=40)
@given(case=cases())
def test_equals_its_definition_bit_for_bit(drop, case) -> None:
    values, *place, maps = case
    out = drop(values, *place, maps=maps)
    assert same_bits(out, by_definition(values, *place, maps))
    interleaved = values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last)
    memory = torch.channels_last if interleaved else torch.contiguous_format
    assert out.is_contiguous() or out.is_contiguous(memory_format=memory)


@needs_extension
@settings(deadline=None, max_examples=25)
@given(case=cases())
def test_gradients_of_both_orders_have_the_bits_of_the_reference(case) -> None:
    values, *place, maps = case
    ours = with_gradients(dropout, values, *place, maps=maps)
    theirs = with_gradients(dropout_reference, values, *place, maps=maps)
    assert all(map(same_bits, ours, theirs))


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize(
    "shape", [(3, 64, 23, 19), (2, 700, 5, 5), (1, 9000, 2, 3), (2, 1, 99, 91)]
)
def test_large_samples_are_cut_into_pieces(shape, memory, dtype) -> None:
    values = torch.randn(shape).to(dtype).contiguous(memory_format=memory)
    place = (0.3, 5, STREAM, torch.tensor(8), torch.arange(shape[0]))
    for maps in (False, True):
        out = dropout(values, *place, maps=maps)
        assert same_bits(out, dropout_reference(values, *place, maps=maps))
        assert out.stride() == values.stride()
        ours = with_gradients(dropout, values, *place, maps=maps)
        theirs = with_gradients(dropout_reference, values, *place, maps=maps)
        assert all(map(same_bits, ours, theirs))


@needs_extension
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("maps", [False, True])
def test_gradcheck(memory, maps) -> None:
    values = torch.randn(2, 3, 3, 2, dtype=torch.float64).contiguous(memory_format=memory)

    def drop(values):
        return dropout(values, 0.4, 5, STREAM, 3, torch.arange(1), maps=maps)

    assert torch.autograd.gradcheck(drop, values.requires_grad_())
    assert torch.autograd.gradgradcheck(drop, values)


@needs_extension
def test_a_gradient_penalty_through_it_equals_the_reference_also_compiled() -> None:
    images = torch.randn(4, 3, 8, 8, requires_grad=True)
    weight = torch.randn(4, 3, 8, 8, requires_grad=True)

    def penalty_gradient(drop, images, weight):
        hidden = drop(images, 0.3, 5, STREAM, torch.tensor(3), torch.arange(4))
        out = drop(weight * hidden**2, 0.5, 5, STREAM + 1, torch.tensor(3), torch.arange(4))
        (gradient,) = torch.autograd.grad(out.sum(), images, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0].detach()

    expected = penalty_gradient(dropout_reference, images, weight)
    assert torch.equal(penalty_gradient(dropout, images, weight), expected)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = torch.compile(penalty_gradient, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(dropout, images, weight), expected)


def saved_by(values, step, samples, maps):
    """What a call keeps for backward."""
    saved = []

    def keep(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = dropout(values, 0.5, 1, STREAM, step, samples, maps=maps)
    assert out.requires_grad
    return saved


@needs_extension
@pytest.mark.parametrize(("memory", "maps"), [(FORMATS[0], False), *((f, True) for f in FORMATS)])
def test_planes_and_whole_maps_keep_only_the_place(memory, maps) -> None:
    values = torch.randn(4, 64, 8, 8).contiguous(memory_format=memory).requires_grad_()
    step, samples = torch.tensor(1), torch.arange(4)
    saved = saved_by(values, step, samples, maps)
    assert {tensor.data_ptr() for tensor in saved} == {step.data_ptr(), samples.data_ptr()}


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 64, 8, 8), (4, 3, 5, 7), (4, 33), (4, 9, 1, 1)])
def test_values_in_order_keep_a_bit_each(shape, dtype) -> None:
    values = torch.ones(shape, dtype=dtype)
    if len(shape) == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    (mask,) = saved_by(values.requires_grad_(), torch.tensor(1), torch.arange(4), False)
    count = values[0].numel()
    assert mask.shape == (4, -(-count // 8))
    assert mask.dtype == torch.uint8
    out = dropout(values, 0.5, 1, STREAM, 1, torch.arange(4)).detach()
    counted = out.permute(0, 2, 3, 1) if len(shape) == 4 else out
    bits = np.unpackbits(mask.numpy(), axis=1, bitorder="little")
    assert np.array_equal(bits[:, :count] != 0, counted.reshape(4, -1).float().numpy() != 0)
    assert not bits[:, count:].any()


@needs_extension
def test_backward_by_a_mask_does_not_read_step_again() -> None:
    values = torch.randn(4, 64, 8, 8).contiguous(memory_format=torch.channels_last)
    step, samples = torch.tensor(1), torch.arange(4)
    out = dropout(values.requires_grad_(), 0.5, 1, STREAM, step, samples)
    step.add_(1)
    (gradient,) = torch.autograd.grad(out, values, torch.ones_like(out))
    assert torch.equal(gradient, dropout(torch.ones_like(values), 0.5, 1, STREAM, 1, samples))


@needs_extension
@pytest.mark.parametrize("form", ["contiguous", "expanded", "strided"])
def test_a_gradient_in_any_layout(form) -> None:
    shape = (3, 5, 4, 6)
    values = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = {
        "contiguous": torch.randn(shape),
        "expanded": torch.randn(()).expand(shape),
        "strided": torch.randn(3, 5, 6, 4).transpose(2, 3),
    }[form]
    place = (0.4, 1, STREAM, torch.tensor(1), torch.arange(3))
    grads = [
        torch.autograd.grad(drop(values, *place), values, gradient)[0]
        for drop in (dropout, dropout_reference)
    ]
    assert same_bits(*grads)


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.5, 0.9999, 1 - 1e-9])
def test_gradients_at_the_ends_of_p_and_of_what_is_not_finite(p, dtype) -> None:
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-40, 3e38, -2.0])
    values = special.to(dtype).repeat(2, 199).requires_grad_()
    gradient = values.detach().flip(1).contiguous()
    place = (p, 1, STREAM, torch.tensor(2), torch.arange(2))
    results = []
    for drop in (dropout, dropout_reference):
        out = drop(values, *place)
        results.append((out.detach(), *torch.autograd.grad(out, values, gradient)))
    for ours, theirs in zip(*results, strict=True):
        known = ~theirs.isnan()
        assert torch.equal(ours.isnan(), ~known)
        assert same_bits(ours[known], theirs[known])


@BOTH
def test_the_ends_of_p(drop) -> None:
    values, samples = torch.randn(64, 33), torch.arange(64)
    assert same_bits(drop(values, 0.0, 1, STREAM, 2, samples), values)
    ones = torch.ones(256, 4096)
    rare = drop(ones, 0.9999, 1, STREAM, 2, torch.arange(256))
    kept = rare[rare != 0]
    assert 50 < len(kept) < 165  # 104.9 are expected, with a deviation of 10.2
    torch.testing.assert_close(kept, torch.full_like(kept, 10_000.0), rtol=1e-6, atol=0)
    # As a float32, 1 - 1e-9 is 1, and no uniform reaches that.
    assert not drop(ones, 1 - 1e-9, 1, STREAM, 2, torch.arange(256)).any()


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_and_signs_are_those_of_the_product(drop, dtype) -> None:
    values = torch.tensor([float("nan"), float("inf"), -0.0, -2.0], dtype=dtype).repeat(1, 200)
    out = drop(values, 0.5, 1, STREAM, 2, torch.arange(1))
    nan, infinite, zero, two = out[0].view(200, 4).unbind(1)
    kept = random.uniform(1, STREAM, 2, torch.arange(1), 800)[0].view(200, 4) >= 0.5
    assert nan.isnan().all()
    assert torch.equal(infinite.isnan(), ~kept[:, 1])
    assert infinite[kept[:, 1]].isposinf().all()
    assert not zero.any()
    assert torch.equal(two == -4, kept[:, 3])
    assert torch.stack((zero, two)).signbit().all()


def kept_of(seed=1, stream=STREAM, step=2, first=0, count=4096):
    samples = torch.arange(first, first + 64)
    return dropout(torch.ones(64, count), 0.5, seed, stream, step, samples) != 0


@pytest.mark.parametrize("p", [0.05, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("maps", [False, True])
def test_the_share_that_is_kept(p, maps) -> None:
    """Chi-square of the counts kept in 256 groups against 1 - p."""
    shape = (256, 2048, 1, 1) if maps else (256, 16, 16, 8)
    out = dropout(torch.ones(shape), p, 9, STREAM, 4, torch.arange(256), maps=maps)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}
    kept = (out != 0).flatten(1).double()
    each = kept.shape[1]
    for counts, trials in ((kept.sum(1), each), (kept.view(256, 256, -1).sum((0, 2)), each)):
        chi_square = ((counts - trials * (1 - p)) ** 2 / (trials * p * (1 - p))).sum()
        assert 170.0 < chi_square < 364.0  # the 1e-5 quantiles on both sides, 256 degrees
    share = kept.mean().item()
    assert abs(share - (1 - p)) < 4.5 * (p * (1 - p) / kept.numel()) ** 0.5


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"stream": STREAM + 1}, {"step": 3}, {"first": 64}],
    ids=["seed", "layer", "step", "sample"],
)
def test_masks_of_other_places_are_independent(other) -> None:
    one, two = (kept.flatten().double() - 0.5 for kept in (kept_of(), kept_of(**other)))
    correlation = 4 * (one * two).mean().item()
    assert abs(correlation) < 4.5 / one.numel() ** 0.5
    neighbours = 4 * (one[1:] * one[:-1]).mean().item()
    assert abs(neighbours) < 4.5 / one.numel() ** 0.5


def test_rows_of_a_batch_and_passes_are_independent() -> None:
    samples = torch.arange(32)
    out = dropout(torch.ones(64, 8192), 0.5, 1, STREAM, 2, samples)
    signs = (out != 0).double() * 2 - 1
    correlation = signs @ signs.T / 8192 - torch.eye(64, dtype=torch.float64)
    assert correlation.abs().max() < 5.5 / 8192**0.5


@BOTH
def test_a_sample_does_not_depend_on_its_batch_nor_on_the_layout(drop) -> None:
    values = torch.randn(9, 6, 5, 7)
    among = drop(values, 0.3, 1, STREAM, 2, torch.arange(30, 39))
    alone = drop(values[4:5], 0.3, 1, STREAM, 2, torch.tensor([34]))
    assert torch.equal(among[4:5], alone)
    interleaved = values.contiguous(memory_format=torch.channels_last)
    assert torch.equal(drop(interleaved, 0.3, 1, STREAM, 2, torch.arange(30, 39)), among)


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory", FORMATS)
def test_the_same_bits_for_any_count_of_threads(dtype, memory) -> None:
    values = torch.randn(13, 37, 33, 31).to(dtype).contiguous(memory_format=memory)
    gradient = torch.randn(values.shape).to(dtype).contiguous(memory_format=memory)
    values.requires_grad_()
    before, outputs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for maps in (False, True):
                place = (0.4, 1, STREAM, torch.tensor(5), torch.arange(13))
                out = dropout(values, *place, maps=maps)
                outputs += [out.detach(), *torch.autograd.grad(out, values, gradient)]
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(outputs[i], outputs[i % 4]) for i in range(4, 12))


@needs_extension
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("maps", [False, True])
def test_opcheck(memory, maps) -> None:
    place = (torch.tensor(4), torch.arange(3), 5, STREAM, 0.3, maps)
    operator = torch.ops.pokegan.dropout.default
    values = torch.randn(6, 8, 6, 7).contiguous(memory_format=memory).requires_grad_()
    torch.library.opcheck(operator, (values, *place))


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (0, 5), (2, 0, 2, 2), (2, 3, 0, 2)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_of_nothing_it_is_nothing(shape, layout) -> None:
    values = torch.zeros(shape)
    if len(shape) == 4:
        values = values.contiguous(memory_format=layout)
    values.requires_grad_()
    samples = torch.arange(shape[0])
    made = dropout(values, 0.5, 1, STREAM, 3, samples)
    made.sum().backward()
    assert made.shape == values.grad.shape == shape


@needs_extension
@pytest.mark.parametrize("shape", [(6, 8, 6, 7), (6, 13)])
def test_opcheck_with_a_mask(shape) -> None:
    values = torch.randn(shape)
    if len(shape) == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    place = (torch.tensor(4), torch.arange(3), 5, STREAM, 0.3)
    operators = torch.ops.pokegan
    _out, mask = operators.dropout_kept(values, *place)
    values.requires_grad_()
    torch.library.opcheck(operators.dropout_kept.default, (values, *place))
    torch.library.opcheck(operators.dropout_again.default, (values, mask, 0.3))


@needs_extension
@pytest.mark.parametrize(
    "values",
    [torch.randn(3, 1, 4, 1), torch.randn(3, 4, 6, 8).transpose(2, 3), torch.randn(6, 5).t()],
    ids=["sides of 1", "strided", "rows"],
)
def test_the_fake_has_the_layout_of_the_kernel(values) -> None:
    place = (torch.tensor(4), torch.arange(1), 5, STREAM, 0.3, False)
    checks = "test_faketensor"
    torch.library.opcheck(torch.ops.pokegan.dropout.default, (values, *place), test_utils=checks)


FITTING = {
    "values": torch.zeros(4, 3, 4, 4),
    "p": 0.5,
    "seed": 1,
    "stream": STREAM,
    "step": torch.tensor(0),
    "samples": torch.arange(2),
}


@BOTH
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"values": torch.zeros(2, 3, dtype=torch.float16)}, "values must be float32"),
        ({"values": torch.zeros(2, 3, dtype=torch.int64)}, "values must be float32"),
        ({"values": torch.tensor(0.0)}, r"values must have the shape \[N, ...\]"),
        ({"values": torch.zeros(4, 3), "maps": True}, r"maps need values of the shape"),
        ({"step": torch.tensor([0])}, "step must be an int64 scalar"),
        ({"step": torch.tensor(0.0)}, "step must be an int64 scalar"),
        ({"samples": torch.arange(3)}, "a batch of 4 is no multiple of 3 samples"),
        ({"samples": torch.arange(0)}, "a batch of 4 is no multiple of 0 samples"),
        ({"samples": torch.zeros(2)}, "samples must be int64"),
        ({"samples": torch.zeros(2, 1, dtype=torch.int64)}, "samples must be int64"),
        ({"stream": -1}, "stream must be in"),
        ({"stream": 2**32}, "stream must be in"),
        ({"p": 1.0}, r"p must be in \[0, 1\), got 1"),
        ({"p": -0.5}, r"p must be in \[0, 1\), got -0.5"),
        ({"p": float("nan")}, r"p must be in \[0, 1\), got nan"),
    ],
)
def test_a_wrong_argument_is_named(drop, changes, words) -> None:
    with pytest.raises(RuntimeError, match=words):
        drop(**(FITTING | changes))


@needs_extension
@pytest.mark.parametrize(
    ("values", "mask", "words"),
    [
        (torch.zeros(2, 9), torch.zeros(2, 2), r"mask must be uint8 of the shape \[2, 2\]"),
        (torch.zeros(2, 9), torch.zeros(2, 1, dtype=torch.uint8), r"of the shape \[2, 2\]"),
        (torch.zeros(2, 9), torch.zeros(3, 2, dtype=torch.uint8), r"of the shape \[2, 2\]"),
        (torch.zeros(2, 9), torch.zeros(4, dtype=torch.uint8), r"of the shape \[2, 2\]"),
        (torch.zeros(2, 9).half(), torch.zeros(2, 2, dtype=torch.uint8), "values must be float32"),
        (
            torch.zeros(2, 3, 2, 2),
            torch.zeros(2, 2, dtype=torch.uint8),
            "a mask needs maps in channels_last memory",
        ),
    ],
)
def test_a_wrong_mask_is_named(values, mask, words) -> None:
    with pytest.raises(RuntimeError, match=words) as caught:
        torch.ops.pokegan.dropout_again(values, mask, 0.5)
    assert "dropout: " in str(caught.value).splitlines()[0]


@needs_extension
def test_planes_have_no_mask() -> None:
    place = (torch.tensor(4), torch.arange(2), 5, STREAM, 0.3)
    with pytest.raises(RuntimeError, match="a mask needs maps in channels_last memory"):
        torch.ops.pokegan.dropout_kept(torch.zeros(2, 3, 2, 2), *place)
