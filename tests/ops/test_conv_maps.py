"""Layers whose pixels are rows of blocks, against PyTorch's in float64: pictures and wide maps."""

import torch
import torch.nn.functional as F
from conv_cases import (
    UNITS,
    assert_convolution,
    assert_near,
    drawn,
    needs_kernels,
    tensors_of,
    transposed_sizes,
    wide_maps,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pokegan.ops import conv_transpose2d_bf16


@st.composite
def pictures(draw):
    """A layer between maps of few channels and of many, wide enough for whole blocks of pixels."""
    kernel = [draw(st.integers(1, 5)) for _ in range(2)]
    stride = draw(st.integers(1, 3))
    few, many = draw(st.integers(1, 6)), draw(st.sampled_from([16, 32, 33, 64, 70]))
    return {
        "batch": draw(st.integers(1, 3)),
        "channels": few,
        "outputs": many,
        "kernel": kernel,
        "stride": stride,
        "padding": draw(st.integers(0, 2)),
        "sizes": [draw(st.integers(5, 20)), draw(st.integers(8 * stride, 30 + 8 * stride))],
        "units": draw(st.sampled_from(UNITS)),
        "narrow": draw(st.booleans()),
        "layout": "channels_last",
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(case=pictures(), swapped=st.booleans())
def test_layers_of_pictures_and_their_gradients(case, swapped) -> None:
    """Pictures to maps; `swapped`, and with stride 1, maps to pictures."""
    if swapped:
        case |= {"channels": case["outputs"], "outputs": case["channels"], "stride": 1}
    assert_convolution(case)


@needs_kernels
@settings(deadline=None, max_examples=40)
@given(case=pictures(), more=st.integers(0, 2))
def test_maps_to_pictures_with_a_bias(case, more) -> None:
    x, w, _, _ = tensors_of(case)
    random = torch.Generator().manual_seed(case["seed"])
    y = drawn(random, case["batch"], case["outputs"], *x.shape[2:])
    b = drawn(random, case["channels"], dtype=torch.float32, layout="contiguous")
    numbers = (case["stride"], case["padding"], (min(more, case["stride"] - 1),) * 2)
    if min(transposed_sizes(y, w, *numbers)) < 1:
        return
    exact, terms = (
        F.conv_transpose2d(*(of(tensor.double()) for tensor in (y, w, b)), *numbers)
        for of in (torch.clone, torch.abs)
    )
    assert_near(conv_transpose2d_bf16(y, w, b, *numbers, case["units"]), exact, True, terms)


@needs_kernels
@settings(deadline=None, max_examples=80)
@given(case=wide_maps())
def test_convolutions_of_wide_maps(case) -> None:
    assert_convolution(case)


@needs_kernels
@settings(deadline=None, max_examples=80)
@given(case=wide_maps(), more=st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_transposed_convolutions_of_wide_maps(case, more) -> None:
    random = torch.Generator().manual_seed(case["seed"])
    y = drawn(random, case["batch"], case["channels"], *case["sizes"])
    w = drawn(random, case["channels"], case["outputs"], *case["kernel"], dtype=torch.float32)
    b = drawn(random, case["outputs"], dtype=torch.float32, layout="contiguous")
    numbers = (case["stride"], case["padding"], tuple(min(i, case["stride"] - 1) for i in more))
    if min(transposed_sizes(y, w, *numbers)) < 1:
        return
    exact, terms = (
        F.conv_transpose2d(*(of(tensor.double()) for tensor in (y, w, b)), *numbers)
        for of in (torch.clone, torch.abs)
    )
    assert_near(conv_transpose2d_bf16(y, w, b, *numbers, case["units"]), exact, True, terms)
