"""The compiled random fills against the reference and the formulas of NumPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pokegan.ops import random, status
from pokegan.ops.random import Stream

needs_extension = pytest.mark.skipif(
    not status().cpu, reason=f"no extension: {status().cpu_reason}"
)
FILLS = {
    "words": (random.words, random.words_reference),
    "uniform": (random.uniform, random.uniform_reference),
    "normal": (random.normal, random.normal_reference),
}
OPERATORS = {"words": (), "uniform": (False,), "normal": ()}
places = st.tuples(
    st.integers(0, 2**64 - 1),
    st.sampled_from(Stream),
    st.integers(0, 2**32 + 5),
    st.lists(st.integers(0, 2**32 - 1), max_size=70),
    st.integers(0, 13),
)


@needs_extension
@pytest.mark.parametrize("name", FILLS)
@settings(deadline=None, max_examples=60)
@given(place=places)
def test_the_kernel_equals_the_reference_bit_for_bit(name, place) -> None:
    seed, stream, step, samples, count = place
    compiled, reference = FILLS[name]
    arguments = (seed, stream, torch.tensor(step), torch.tensor(samples, dtype=torch.int64), count)
    out, expected = compiled(*arguments), reference(*arguments)
    assert out.dtype == expected.dtype
    assert out.shape == (len(samples), count)
    assert torch.equal(out, expected)


@needs_extension
@pytest.mark.parametrize(("batch", "count"), [(16_000, 64), (7, 140_003)])
def test_a_million_normals_have_the_same_bits(batch, count) -> None:
    arguments = (9, Stream.LATENT, torch.tensor(4), torch.arange(batch), count)
    assert torch.equal(random.normal(*arguments), random.normal_reference(*arguments))


@pytest.mark.parametrize("form", [random.normal, random.normal_reference])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [(0.0, 1.0), (1.0, 0.1), (-0.3, 2.7), (5.0, 0.0), (0.0, 3e38)])
@pytest.mark.parametrize(("batch", "count"), [(0, 3), (3, 0), (50, 101), (5, 1031)])
def test_scaled_normals_are_those_of_plain_torch(form, dtype, scale, batch, count) -> None:
    arguments = (9, Stream.LATENT, torch.tensor(4), torch.arange(batch) + 70, count)
    mean, std = scale
    expected = random.normal(*arguments).mul(std).add(mean).to(dtype)
    out = form(*arguments, mean, std, dtype)
    assert out.dtype == dtype
    integer = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(out.view(integer), expected.view(integer))


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_scaled_normals_have_the_same_bits(dtype) -> None:
    for batch, count in ((3000, 100), (3, 100_001)):
        arguments = (9, Stream.LATENT, 4, torch.arange(batch), count, 1.0, 0.3, dtype)
        assert torch.equal(random.normal(*arguments), random.normal_reference(*arguments))


@pytest.mark.parametrize("form", [random.normal, random.normal_reference])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": math.inf}, "mean must be a finite float32, got inf"),
        ({"mean": math.nan}, "mean must be a finite float32, got nan"),
        ({"std": -0.5}, "std must be a finite float32 of 0 or more, got -0.5"),
        ({"std": 1e39}, r"std must be a finite float32 of 0 or more, got 1e\+39"),
        ({"std": math.nan}, "std must be a finite float32 of 0 or more, got nan"),
        ({"dtype": torch.float16}, "dtype must be float32 or bfloat16"),
        ({"dtype": torch.float64}, "dtype must be float32 or bfloat16"),
    ],
)
def test_a_wrong_scale_or_dtype_is_named(form, changes, words) -> None:
    with pytest.raises(RuntimeError, match=f"random_normal: {words}"):
        form(0, Stream.LATENT, torch.tensor(0), torch.arange(3), 2, **changes)


@needs_extension
@pytest.mark.parametrize("count", [127, 128, 129, 132, 255, 260, 1000, 4099])
@pytest.mark.parametrize("name", FILLS)
def test_long_rows_have_the_same_bits(name, count) -> None:
    compiled, reference = FILLS[name]
    arguments = ((3 << 40) + 5, Stream.LATENT, 7, torch.arange(13) + 2**32 - 5, count)
    assert torch.equal(compiled(*arguments), reference(*arguments))


def test_normals_are_the_box_muller_values_of_their_words() -> None:
    arguments = (9, Stream.LATENT, 4, torch.arange(20_000), 2)
    draws = random.normal(*arguments).numpy()
    words = random.words(*arguments).numpy()
    first, turn = ((words[:, 0] >> 8) + 1) / 2**24, (words[:, 1] >> 8) / 2**24
    radius = np.sqrt(-2 * np.log(first))
    for column, wave in ((0, np.cos), (1, np.sin)):
        exact = radius * wave(2 * math.pi * turn)
        # An exact zero of the wave is 1e-16 in NumPy's float64: hence the absolute part.
        ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        assert (np.abs(draws[:, column] - exact) <= 4 * ulp + 1e-14).all()


@pytest.mark.parametrize(
    ("radius_word", "turn", "expected"),
    [
        (0xFFFFFFFF, 0, (0.0, 0.0)),  # the uniform 1: no radius
        (0, 0, (math.sqrt(48 * math.log(2)), 0.0)),  # the smallest uniform, 2^-24
        (0, 1 << 30, (0.0, math.sqrt(48 * math.log(2)))),  # a quarter turn
        (0, 2 << 30, (-math.sqrt(48 * math.log(2)), 0.0)),
        (0, 3 << 30, (0.0, -math.sqrt(48 * math.log(2)))),
        (0x7FFFFFFF, 1 << 29, (math.sqrt(math.log(2)), math.sqrt(math.log(2)))),
    ],
)
def test_corners_of_box_muller(radius_word: int, turn: int, expected: tuple[float, float]) -> None:
    from pokegan.ops.box_muller import box_muller

    got = box_muller(torch.tensor([radius_word]), torch.tensor([turn]))
    assert [value.item() for value in got] == pytest.approx(expected, rel=4 * 2**-24, abs=0)


def test_symmetric_uniforms_are_the_uniforms_stretched() -> None:
    arguments = (3, Stream.LATENT, 1, torch.arange(1000), 7)
    stretched = random.symmetric_uniform(*arguments)
    assert torch.equal(stretched, random.uniform(*arguments) * 2 - 1)
    assert stretched.min() >= -1
    assert stretched.max() < 1


@pytest.mark.parametrize("name", FILLS)
def test_strided_samples_are_read_right(name) -> None:
    samples = torch.arange(40).flip(0)[::3]
    fill = FILLS[name][0]
    expected = fill(1, Stream.FLIP, 0, samples.contiguous(), 5)
    assert torch.equal(fill(1, Stream.FLIP, 0, samples, 5), expected)


@pytest.mark.parametrize("name", FILLS)
def test_a_batch_split_over_ranks_has_the_same_numbers(name) -> None:
    fill = FILLS[name][0]
    samples = torch.arange(100, 164)
    whole = fill(1, Stream.LATENT, 3, samples, 6)
    for ranks in (2, 4):
        parts = [fill(1, Stream.LATENT, 3, part, 6) for part in samples.chunk(ranks)]
        assert torch.equal(torch.cat(parts), whole)


@needs_extension
@pytest.mark.parametrize("name", FILLS)
def test_the_same_bits_for_any_count_of_threads(name) -> None:
    before = torch.get_num_threads()
    try:
        outputs = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(FILLS[name][0](1, Stream.LATENT, 3, torch.arange(2000), 9))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(outputs[0], other) for other in outputs[1:])


@needs_extension
@pytest.mark.parametrize("name", FILLS)
def test_opcheck_and_compile(name) -> None:
    step, samples = torch.tensor(5), torch.arange(11)
    operator = getattr(torch.ops.pokegan, f"random_{name}").default
    torch.library.opcheck(operator, (7, 1, step, samples, 6, *OPERATORS[name]))
    if name == "normal":
        torch.library.opcheck(operator, (7, 1, step, samples, 6, 0.5, 2.0, torch.bfloat16))

    def twice(step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        draw = FILLS[name][0]
        return draw(7, Stream.LATENT, step, samples, 6), draw(7, Stream.LATENT, step, samples, 6)

    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    for number in (5, 6):
        step = torch.tensor(number)
        expected = FILLS[name][0](7, Stream.LATENT, step, samples, 6)
        assert all(torch.equal(got, expected) for got in compiled(step))


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": torch.zeros(3)}, "samples must be int64"),
        ({"samples": torch.zeros(3, 1, dtype=torch.int64)}, r"samples must be .* \[B\]"),
        ({"step": torch.zeros(1, dtype=torch.int64)}, "step must be an int64 scalar"),
        ({"step": torch.tensor(1.0)}, "step must be an int64 scalar"),
        ({"count": -1}, "count must not be negative, got -1"),
    ],
)
@pytest.mark.parametrize("name", FILLS)
def test_a_wrong_argument_is_named(name, form, changes, words) -> None:
    fitting = {
        "seed": 0,
        "stream": Stream.LATENT,
        "step": torch.tensor(0),
        "samples": torch.arange(3),
        "count": 2,
    }
    with pytest.raises(RuntimeError, match=f"random_{name}: {words}"):
        FILLS[name][form](**{**fitting, **changes})
