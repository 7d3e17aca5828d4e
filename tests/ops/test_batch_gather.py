"""batch_gather against a reading of its definition in NumPy, pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pokegan.ops import batch_gather, status
from pokegan.ops.batch_gather import batch_gather_reference

needs_extension = pytest.mark.skipif(
    not status().cpu, reason=f"no extension: {status().cpu_reason}"
)
DTYPES = (torch.float32, torch.bfloat16)


def by_definition(images, indices, flip, shift, background):
    """[B, 3, H, W] float64, one pixel at a time."""
    _, height, width, _ = images.shape
    out = np.empty((len(indices), 3, height, width))
    for sample, index in enumerate(indices):
        for y in range(height):
            for x in range(width):
                row = y - (shift[sample][0] if shift is not None else 0)
                column = x - (shift[sample][1] if shift is not None else 0)
                if 0 <= row < height and 0 <= column < width:
                    mirrored = flip is not None and flip[sample]
                    byte = images[index, row, width - 1 - column if mirrored else column]
                else:
                    byte = np.array(background)
                out[sample, :, y, x] = byte.astype(np.float64) / 127.5 - 1
    return out


@st.composite
def cases(draw):
    count, height, width = (draw(st.integers(1, most)) for most in (4, 7, 25))
    batch = draw(st.integers(0, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    indices = random.integers(0, count, batch)
    flip = random.integers(0, 2, batch).astype(bool) if draw(st.booleans()) else None
    shift = random.integers(-10, 11, (batch, 2)) if draw(st.booleans()) else None
    background = tuple(int(level) for level in random.integers(0, 256, 3))
    return images, indices, flip, shift, background


def tensors(images, indices, flip, shift):
    return [
        None if part is None else torch.from_numpy(part) for part in (images, indices, flip, shift)
    ]


@pytest.mark.parametrize("gather", [batch_gather, batch_gather_reference])
@settings(deadline=None, max_examples=60)
@given(case=cases(), dtype=st.sampled_from(DTYPES))
def test_equals_its_definition(gather, case, dtype) -> None:
    images, indices, flip, shift, background = case
    out = gather(*tensors(images, indices, flip, shift), background, dtype)
    expected = torch.from_numpy(by_definition(*case))
    assert out.dtype == dtype
    assert out.shape == expected.shape
    assert out.permute(0, 2, 3, 1).is_contiguous()
    tolerance = 1e-7 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)


@needs_extension
@settings(deadline=None, max_examples=60)
@given(case=cases(), dtype=st.sampled_from(DTYPES))
def test_the_kernel_equals_the_reference_bit_for_bit(case, dtype) -> None:
    arguments = (*tensors(*case[:4]), case[4], dtype)
    assert torch.equal(batch_gather(*arguments), batch_gather_reference(*arguments))


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
def test_mirrored_rows_of_every_width_equal_the_reference(dtype) -> None:
    for width in range(1, 71):
        images = torch.randint(0, 256, (2, 2, width, 3), dtype=torch.uint8)
        shift = torch.tensor([[0, 0], [1, 2]])
        arguments = (images, torch.tensor([1, 0]), torch.tensor([True, True]), shift)
        ours, theirs = (
            gather(*arguments, dtype=dtype) for gather in (batch_gather, batch_gather_reference)
        )
        assert torch.equal(ours, theirs), width


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_byte_is_exact_at_the_ends_and_reversible(dtype) -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    out = batch_gather(images.contiguous(), torch.zeros(1, dtype=torch.int64), dtype=dtype)
    assert out.min() == -1
    assert out.max() == 1
    if dtype == torch.float32:
        back = ((out.permute(0, 2, 3, 1) + 1) * 127.5).round().to(torch.uint8)
        assert torch.equal(back, images)


@needs_extension
def test_the_same_bits_for_any_count_of_threads() -> None:
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, 33, 31, 3), dtype=torch.uint8, generator=random)
    indices = torch.randint(0, 8, (40,), generator=random)
    flip = torch.rand(40, generator=random) < 0.5
    before = torch.get_num_threads()
    try:
        outputs = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(batch_gather(images, indices, flip))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(outputs[0], other) for other in outputs[1:])


def test_strided_arguments_are_read_right() -> None:
    images = torch.randint(0, 256, (6, 4, 4, 3), dtype=torch.uint8)
    indices = torch.arange(6).flip(0)[::2]  # not contiguous
    flip = torch.tensor([True, False, False, True, True, False])[::2]
    expected = batch_gather(images, indices.contiguous(), flip.contiguous())
    assert torch.equal(batch_gather(images, indices, flip), expected)


@needs_extension
def test_opcheck_and_compile() -> None:
    images = torch.randint(0, 256, (5, 6, 7, 3), dtype=torch.uint8)
    indices, flip = torch.tensor([4, 0, 2]), torch.tensor([True, False, True])
    shift = torch.tensor([[1, -2], [0, 0], [-7, 3]])
    arguments = (images, indices, flip, shift, [1, 2, 3], torch.bfloat16)
    torch.library.opcheck(torch.ops.pokegan.batch_gather.default, arguments)
    compiled = torch.compile(batch_gather, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), batch_gather(*arguments))


def arguments(**changes):
    fitting = {
        "images": torch.zeros(3, 4, 4, 3, dtype=torch.uint8),
        "indices": torch.tensor([0, 1]),
        "flip": None,
        "shift": None,
        "background": (255, 255, 255),
        "dtype": torch.float32,
    }
    return list({**fitting, **changes}.values())


@pytest.mark.parametrize("gather", [batch_gather, batch_gather_reference])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": torch.zeros(3, 4, 4, 3)}, "images must be uint8"),
        ({"images": torch.zeros(3, 4, 4, 4, dtype=torch.uint8)}, r"shape \[N, H, W, 3\]"),
        ({"images": torch.zeros(3, 4, 8, 3, dtype=torch.uint8)[:, :, ::2]}, "contiguous"),
        ({"indices": torch.tensor([0, 1], dtype=torch.int32)}, "indices must be int64"),
        ({"indices": torch.tensor([0, 3])}, "indices"),
        ({"indices": torch.tensor([-1, 0])}, "indices"),
        ({"flip": torch.tensor([True])}, "flip must be bool"),
        ({"shift": torch.zeros(2, dtype=torch.int64)}, "shift must be int64"),
        ({"background": (0, 0)}, "background must hold 3"),
        ({"background": (0, 0, 256)}, "background must be in"),
        ({"dtype": torch.float16}, "dtype must be"),
    ],
)
def test_a_wrong_argument_is_named(gather, changes, words) -> None:
    with pytest.raises(RuntimeError, match=words):
        gather(*arguments(**changes))
