"""diff_augment against a reading of its definition in NumPy, pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pokegan.ops import diff_augment, status
from pokegan.ops.diff_augment import diff_augment_reference, parameters
from pokegan.ops.random import Stream

needs_extension = pytest.mark.skipif(
    not status().cpu, reason=f"no extension: {status().cpu_reason}"
)
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
FORMATS = (torch.contiguous_format, torch.channels_last)
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float64: 1e-12}
STREAM = Stream.AUGMENT_REAL
BOTH = pytest.mark.parametrize("augment", [diff_augment, diff_augment_reference])


def by_definition(images, chosen, colour, translation, cutout, fill):
    """The paper's steps, one after the other; [N, 3, H, W] float64."""
    _, _, height, width = images.shape
    out = images.astype(np.float64).copy()
    for sample, picture in enumerate(out):
        brightness, saturation, contrast, down, right, top, left = (
            part[sample].item() for part in chosen
        )
        if colour:
            picture += brightness
            grey = picture.mean(0)
            picture[:] = (picture - grey) * saturation + grey
            picture[:] = (picture - picture.mean()) * contrast + picture.mean()
        if translation:
            moved = np.full_like(picture, fill)
            for y in range(height):
                for x in range(width):
                    if 0 <= y - down < height and 0 <= x - right < width:
                        moved[:, y, x] = picture[:, y - down, x - right]
            picture[:] = moved
        if cutout:
            for y in range(height):
                for x in range(width):
                    in_rows = top <= y < top + int(height / 2 + 0.5)
                    if in_rows and left <= x < left + int(width / 2 + 0.5):
                        picture[:, y, x] = 0
    return out


@st.composite
def cases(draw):
    """Pictures in any layout with their arguments."""
    shape = (draw(st.integers(0, 4)), 3, draw(st.integers(1, 19)), draw(st.integers(1, 19)))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    images = torch.randn(shape, generator=random).to(draw(st.sampled_from(DTYPES)))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "strided"]))
    if layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        images = images.repeat_interleave(2, dim=3)[..., ::2]
    samples = torch.randint(0, 2**32, shape[:1], generator=random)
    seed, step = draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**32 - 1))
    flags = {name: draw(st.booleans()) for name in ("colour", "translation", "cutout")}
    return (
        images,
        (seed, STREAM, step, samples),
        flags | {"fill": draw(st.sampled_from((0.0, 1.0)))},
    )


def with_gradient(augment, images, place, choice, gradient):
    images = images.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = augment(images, *place, **choice)
    return out.detach(), *torch.autograd.grad(out, images, gradient)


@BOTH
@settings(deadline=None, max_examples=50)
@given(case=cases())
def test_equals_its_definition(augment, case) -> None:
    images, place, choice = case
    out = augment(images, *place, **choice)
    chosen = parameters(*place, *images.shape[2:])
    expected = torch.from_numpy(by_definition(images.double().numpy(), chosen, **choice))
    assert out.dtype == images.dtype
    tolerance = TOLERANCES[images.dtype]
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


@needs_extension
@settings(deadline=None, max_examples=50)
@given(case=cases())
def test_the_kernel_and_its_gradient_equal_the_reference(case) -> None:
    images, place, choice = case
    gradient = torch.randn(images.shape).to(images.dtype)
    ours = with_gradient(diff_augment, images, place, choice, gradient)
    theirs = with_gradient(diff_augment_reference, images, place, choice, gradient)
    tolerance = TOLERANCES[images.dtype]
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@BOTH
@pytest.mark.parametrize("memory", FORMATS)
def test_the_memory_format_stays(augment, memory) -> None:
    images = torch.randn(2, 3, 6, 5).contiguous(memory_format=memory)
    assert augment(images, 1, STREAM, 2, torch.arange(2)).is_contiguous(memory_format=memory)


@needs_extension
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 3, 1, 1), (2, 3, 9, 2)])
@pytest.mark.parametrize("memory", FORMATS)
def test_gradients_of_both_orders(shape, memory) -> None:
    images = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory)
    images.requires_grad_()
    samples = torch.arange(shape[0])

    def augment(images):
        return diff_augment(images, 5, STREAM, 3, samples, fill=1.0)

    assert torch.autograd.gradcheck(augment, images)
    assert torch.autograd.gradgradcheck(augment, images)


@needs_extension
def test_a_gradient_penalty_through_it_equals_the_reference() -> None:
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)

    def penalty_gradient(augment):
        out = augment(images, 5, STREAM, 3, torch.arange(4))
        (gradient,) = torch.autograd.grad((weight * out**2).sum(), images, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), (images, weight))

    torch.testing.assert_close(
        penalty_gradient(diff_augment), penalty_gradient(diff_augment_reference)
    )


@needs_extension
def test_a_gradient_penalty_through_it_compiles_whole() -> None:
    images = torch.randn(4, 3, 8, 8, requires_grad=True)
    weight = torch.randn(4, 3, 8, 8, requires_grad=True)

    def penalty_gradient(images, weight):
        out = diff_augment(images, 5, STREAM, 3, torch.arange(4))
        (gradient,) = torch.autograd.grad((weight * out**2).sum(), images, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0].detach()

    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = torch.compile(penalty_gradient, fullgraph=True, backend="aot_eager")
        got = compiled(images, weight)
    torch.testing.assert_close(got, penalty_gradient(images, weight))


@BOTH
def test_without_a_policy_nothing_changes(augment) -> None:
    images = torch.randn(3, 3, 7, 6)
    off = {"colour": False, "translation": False, "cutout": False}
    assert torch.equal(augment(images, 1, STREAM, 2, torch.arange(3), **off), images)


@BOTH
def test_a_picture_does_not_depend_on_the_rest_of_its_batch(augment) -> None:
    images = torch.randn(9, 3, 8, 7)
    among = augment(images, 1, STREAM, 2, torch.arange(30, 39))
    alone = augment(images[4:5], 1, STREAM, 2, torch.tensor([34]))
    assert torch.equal(among[4:5], alone)


@pytest.mark.parametrize("other", [(2, STREAM, 5), (1, Stream.AUGMENT_FAKE, 5), (1, STREAM, 6)])
def test_seed_stream_and_step_each_change_it(other) -> None:
    images, samples = torch.randn(4, 3, 16, 16), torch.arange(4)
    assert not torch.equal(
        diff_augment(images, 1, STREAM, 5, samples), diff_augment(images, *other, samples)
    )


def test_the_step_may_live_on_the_device() -> None:
    images, samples = torch.randn(4, 3, 8, 8), torch.arange(4)
    as_tensor = diff_augment(images, 1, STREAM, torch.tensor(77), samples)
    assert torch.equal(as_tensor, diff_augment(images, 1, STREAM, 77, samples))


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_in_every_run_and_for_any_count_of_threads(dtype) -> None:
    images = torch.randn(13, 3, 33, 31).to(dtype)
    gradient, samples = torch.randn_like(images), torch.arange(13)
    before = torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            place = (1, STREAM, 5, samples)
            outputs.append(with_gradient(diff_augment, images, place, {}, gradient))
    finally:
        torch.set_num_threads(before)
    for out, gradient in outputs[1:]:
        assert torch.equal(out, outputs[0][0])
        assert torch.equal(gradient, outputs[0][1])


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_so(dtype) -> None:
    images = torch.full((1, 3, 4, 4), float("nan"), dtype=dtype)
    out = diff_augment(images, 1, STREAM, 0, torch.tensor([0]), translation=False, cutout=False)
    assert out.isnan().all()


def test_the_parameters_have_their_distributions() -> None:
    height, width, count = 64, 33, 20_000
    chosen = parameters(7, STREAM, 3, torch.arange(count), height, width)
    for values, low, high in zip(chosen[:3], (-0.5, 0.0, 0.5), (0.5, 2.0, 1.5), strict=True):
        assert low <= values.min()
        assert values.max() < high
        counts = torch.histc(values, bins=20, min=low, max=high)
        assert chi_square(counts) < 43.8  # 0.999 quantile of chi-square, 19 degrees of freedom
    integers = {
        "down": (-8, 8, 39.3),  # 0.999 quantiles for the count of values less one
        "right": (-4, 4, 26.1),
        "cutout_top": (-16, 48, 104.7),
        "cutout_left": (-8, 24, 62.5),
    }
    for name, (low, high, limit) in integers.items():
        values = getattr(chosen, name)
        assert (values.min(), values.max()) == (low, high)
        assert chi_square(torch.bincount(values - low)) < limit
    together = torch.stack([part.double() for part in chosen])
    correlation = torch.corrcoef(together) - torch.eye(len(chosen))
    assert correlation.abs().max() < 5 / count**0.5


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return ((counts - expected) ** 2 / expected).sum()


@needs_extension
@pytest.mark.parametrize("memory", FORMATS)
def test_opcheck(memory) -> None:
    images = torch.randn(3, 3, 6, 7).contiguous(memory_format=memory).requires_grad_()
    choice = (torch.tensor(4), torch.arange(3), 5, int(STREAM), True, True, True)
    torch.library.opcheck(torch.ops.pokegan.diff_augment.default, (images, *choice, 1.0, False))
    torch.library.opcheck(torch.ops.pokegan.diff_augment_adjoint.default, (images, *choice))


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", FORMATS)
def test_compiled_it_gives_the_same(dtype, memory) -> None:
    images = torch.randn(3, 3, 6, 7).to(dtype).contiguous(memory_format=memory).requires_grad_()
    step, samples, gradient = torch.tensor(4), torch.arange(3), torch.randn_like(images)

    def augment(images, step):
        return diff_augment(images * 1, 5, STREAM, step, samples, fill=1.0)

    compiled = torch.compile(augment, fullgraph=True, backend="aot_eager")
    for function in (augment, compiled):
        out = function(images, step)
        assert torch.equal(out, augment(images, step))
        (backward,) = torch.autograd.grad(out, images, gradient)
        assert torch.equal(
            backward, torch.autograd.grad(augment(images, step), images, gradient)[0]
        )


FITTING = {
    "images": torch.zeros(2, 3, 4, 4),
    "seed": 1,
    "stream": STREAM,
    "step": torch.tensor(0),
    "samples": torch.arange(2),
}


@BOTH
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, "images must be float32"),
        ({"images": torch.zeros(2, 3, 4, 4, dtype=torch.float16)}, "images must be float32"),
        ({"images": torch.zeros(2, 4, 4, 4)}, r"images must have the shape \[N, 3, H, W\]"),
        ({"images": torch.zeros(3, 4, 4)}, r"images must have the shape \[N, 3, H, W\]"),
        ({"step": torch.tensor([0])}, "step must be an int64 scalar"),
        ({"step": torch.tensor(0.0)}, "step must be an int64 scalar"),
        ({"samples": torch.arange(3)}, "samples must be int64"),
        ({"samples": torch.zeros(2)}, "samples must be int64"),
        ({"stream": -1}, "stream must be in"),
        ({"stream": 2**32}, "stream must be in"),
        ({"fill": float("nan")}, "fill must be finite"),
    ],
)
def test_a_wrong_argument_is_named(augment, changes, words) -> None:
    with pytest.raises(RuntimeError, match=words):
        augment(**(FITTING | changes))
