"""What tests of convolutions share: random layers, and what their results are held against."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from pokegan.ops import conv2d_bf16, conv_units, status

needs_kernels = pytest.mark.skipif(
    conv_units() == "none", reason=f"units: none; extension: {status().cpu_reason}"
)
UNITS = [1, 2] if conv_units() == "AMX" else [1]
LAST = torch.channels_last
ROUNDING = 2.0**-8  # of bfloat16, relative


def drawn(random, *shape, layout="channels_last", dtype=torch.bfloat16):
    values = torch.randn(shape, generator=random).to(torch.bfloat16).to(dtype)
    if layout == "strided":
        return torch.stack([values, values], dim=-1)[..., 0]
    return values.contiguous(memory_format=LAST) if layout == "channels_last" else values


def tensors_of(case):
    """x, w, bias and the gradient of y, all of them bfloat16 values."""
    random = torch.Generator().manual_seed(case["seed"])
    layout, dtype = case["layout"], torch.bfloat16 if case["narrow"] else torch.float32
    x = drawn(random, case["batch"], case["channels"], *case["sizes"], layout=layout)
    w = drawn(
        random, case["outputs"], case["channels"], *case["kernel"], layout=layout, dtype=dtype
    )
    b = drawn(random, case["outputs"], layout="contiguous", dtype=dtype)
    y = F.conv2d(x.float(), w.float(), None, case["stride"], case["padding"])
    return x, w, b, drawn(random, *y.shape, layout=layout)


def assert_near(found, exact, narrow=True, terms=None):
    """Equal up to the last rounding, and a little for sums in another order.

    `terms` are the sums of the absolute values of what was summed, by which such sums are accurate
    however much they cancel; without them the largest of the results stands for them.
    """
    assert found.shape == exact.shape
    if exact.numel() == 0:
        return
    error = (found.double() - exact).abs()
    allowed = 1e-5 * (exact.abs().max() if terms is None else terms)
    if narrow:
        allowed = allowed + ROUNDING * exact.abs()
    assert (error <= allowed).all(), (error - allowed).max()


def assert_all_near(found, function, tensors, downstream, narrow):
    """`found`, a result and its gradients, are near those of `function` in float64."""
    wide = [tensor.double() for tensor in tensors]
    exact = gradients(function, wide, downstream)
    terms = gradients(function, [tensor.abs() for tensor in wide], downstream.abs())
    for case in zip(found, exact, narrow, terms, strict=True):
        assert_near(*case)


def transposed_sizes(y, w, stride, padding, more):
    """Height and width of what a transposed convolution makes of y; below 1 for nothing."""
    return [
        (y.shape[axis] - 1) * stride - 2 * padding + w.shape[axis] + more[axis - 2]
        for axis in (2, 3)
    ]


def gradients(function, tensors, downstream):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    return [out, *torch.autograd.grad(out, leaves, downstream.to(out.dtype))]


def assert_convolution(case):
    x, w, b, downstream = tensors_of(case)
    numbers = (case["stride"], case["padding"])
    found = gradients(
        lambda x, w, b: conv2d_bf16(x, w, b, *numbers, case["units"]), (x, w, b), downstream
    )
    assert [one.dtype for one in found] == [torch.bfloat16, torch.bfloat16, w.dtype, b.dtype]
    narrow = (True, True, *[case["narrow"]] * 2)
    assert_all_near(
        found, lambda x, w, b: F.conv2d(x, w, b, *numbers), (x, w, b), downstream, narrow
    )
    assert found[0].is_contiguous(memory_format=LAST)


@st.composite
def wide_maps(draw):
    """A layer of blocks of channels, the last one whole or not, and of rows that fill tiles."""
    kernel = [draw(st.integers(1, 5)) for _ in range(2)]
    stride = draw(st.integers(1, 5))
    return {
        "batch": draw(st.integers(1, 3)),
        "channels": draw(st.sampled_from([16, 32, 40, 64, 82, 96])),
        "outputs": draw(st.sampled_from([3, 16, 17, 32, 40, 64])),
        "kernel": kernel,
        "stride": stride,
        "padding": draw(st.integers(0, 4)),
        "sizes": [draw(st.integers(5, 12)), stride * draw(st.sampled_from([13, 16, 17, 24, 32]))],
        "units": draw(st.sampled_from(UNITS)),
        "narrow": draw(st.booleans()),
        "layout": "channels_last",
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


every_kernel = pytest.mark.parametrize(
    ("batch", "channels", "outputs", "size", "kernel", "stride"),
    [
        (33, 70, 48, 8, 4, 2),  # blocks of images, the last of one; channels that fill no block
        (16, 32, 5, 7, 3, 1),
        (2, 256, 320, 20, 3, 1),  # more weights than bands take: rows that are cut into columns
        (2, 40, 33, 70, 5, 1),  # bands of rows and what lies between them
        (5, 3, 32, 24, 4, 2),  # pictures
        (3, 64, 2, 24, 3, 1),  # to pictures, which are read again
        (40, 100, 64, 1, 1, 1),
    ],
)
