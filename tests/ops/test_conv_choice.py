"""Which convolution a layer uses: when ours may be used, and how the choice is made and kept."""

import itertools
import json

import pytest
import torch
import torch.nn.functional as F

from pokegan.errors import ConfigError
from pokegan.ops import (
    conv2d,
    conv2d_bf16,
    conv2d_split,
    conv_choice,
    conv_timing,
    conv_transpose2d,
    conv_transpose2d_split,
    conv_units,
)
from pokegan.ops.conv_choice import Choice, choices, choose, keep_to, measured, split_products
from pokegan.ops.conv_gradients import Winograd
from pokegan.ops.conv_timing import Case, measure

needs_kernels = pytest.mark.skipif(conv_units() == "none", reason="no bfloat16 units")
needs_amx = pytest.mark.skipif(conv_units() != "AMX", reason="no AMX")
DIRECT = Winograd()
CASE = Case(False, 16, 8, 8, 8, 16, 4, 4, 2, 1)


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """No choice made yet, and an empty cache."""
    monkeypatch.setenv("POKEGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(conv_choice, "_known", {})
    monkeypatch.setattr(conv_choice, "_decided", {})
    steer(monkeypatch, "auto")


def steer(monkeypatch, name):
    monkeypatch.setenv("POKEGAN_CONV", name)
    monkeypatch.setattr(conv_choice, "_MODE", conv_choice._read_mode())


def layer():
    random = torch.Generator().manual_seed(0)
    last = torch.channels_last
    x = torch.randn(16, 8, 8, 8, generator=random).contiguous(memory_format=last)
    w = torch.randn(12, 8, 4, 4, generator=random).contiguous(memory_format=last)
    return x, w, torch.randn(12, generator=random)


@needs_kernels
def test_forced_to_ours_inside_autocast(monkeypatch) -> None:
    steer(monkeypatch, "own")
    x, w, b = layer()
    with torch.autocast("cpu", torch.bfloat16):
        down = conv2d(x, w, b, 2, 1)
        up = conv_transpose2d(down, w, None, 2, 1, (0, 0))
    assert torch.equal(down, conv2d_bf16(x.bfloat16(), w, b, 2, 1))
    exact = F.conv_transpose2d(down.double(), w.bfloat16().double(), None, 2, 1)
    torch.testing.assert_close(up.double(), exact, rtol=2**-8, atol=1e-3)


@needs_kernels
def test_the_gradient_of_a_float32_weight_is_not_rounded(monkeypatch) -> None:
    steer(monkeypatch, "own")
    x, w, _ = layer()
    w.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = conv2d(x, w, None, 2, 1)
    downstream = torch.randn_like(y)
    y.backward(downstream)
    exact = torch.nn.grad.conv2d_weight(x.bfloat16().double(), w.shape, downstream.double(), 2, 1)
    assert w.grad.dtype == torch.float32
    torch.testing.assert_close(w.grad.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["auto", "own", "stock"])
def test_float32_is_always_pytorchs(monkeypatch, name) -> None:
    steer(monkeypatch, name)
    x, w, b = layer()
    assert torch.equal(conv2d(x, w, b, 2, 1), F.conv2d(x, w, b, 2, 1))
    y = torch.randn(16, 12, 4, 4)
    expected = F.conv_transpose2d(y, w, None, 2, 1, (1, 0))
    assert torch.equal(conv_transpose2d(y, w, None, 2, 1, (1, 0)), expected)
    assert measured() == {}


@needs_amx
@pytest.mark.parametrize("name", ["auto", "own"])
def test_float32_is_split_where_that_is_allowed(monkeypatch, name) -> None:
    steer(monkeypatch, name)
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: (2.0, DIRECT))
    x, w, b = layer()
    y = torch.randn(16, 12, 4, 4)
    with split_products(True):
        assert torch.equal(conv2d(x, w, b, 2, 1), conv2d_split(x, w, b, 2, 1))
        found = conv_transpose2d(y, w, None, 2, 1, (1, 0))
        assert torch.equal(found, conv_transpose2d_split(y, w, None, 2, 1, (1, 0)))
        with split_products(False):
            assert torch.equal(conv2d(x, w, b, 2, 1), F.conv2d(x, w, b, 2, 1))
        with torch.autocast("cpu", torch.bfloat16):
            assert conv2d(x, w, b, 2, 1).dtype == torch.bfloat16
        wide = [one.double() for one in (x, w, b)]
        assert torch.equal(conv2d(*wide, 2, 1), F.conv2d(*wide, 2, 1))
    assert torch.equal(conv2d(x, w, b, 2, 1), F.conv2d(x, w, b, 2, 1))


@needs_amx
def test_not_split_where_that_is_slower(monkeypatch) -> None:
    monkeypatch.setattr(
        conv_timing, "measure", lambda case, filter: (0.5 if case.split else 2.0, DIRECT)
    )
    x, w, b = layer()
    with split_products(True):
        assert torch.equal(conv2d(x, w, b, 2, 1), F.conv2d(x, w, b, 2, 1))
        with torch.autocast("cpu", torch.bfloat16):
            found = conv2d(x, w, b, 2, 1)
    assert torch.equal(found, conv2d_bf16(x.bfloat16(), w, b, 2, 1))
    assert sorted(choices().values()) == ["own", "stock"]  # one for each arithmetic


def test_not_split_without_amx(monkeypatch) -> None:
    monkeypatch.setattr(conv_choice, "conv_units", lambda: "AVX512-BF16")
    x, w, b = layer()
    with split_products(True):
        assert torch.equal(conv2d(x, w, b, 2, 1), F.conv2d(x, w, b, 2, 1))


@needs_amx
def test_split_inside_a_compiled_function() -> None:
    x, w, b = layer()

    def run(x):
        with split_products(True):
            inside = conv2d(x, w, b, 2, 1)
        return inside, conv2d(x, w, b, 2, 1)

    inside, outside = torch.compile(run, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(inside, conv2d_split(x, w, b, 2, 1))
    assert torch.equal(outside, F.conv2d(x, w, b, 2, 1))


def test_forced_to_pytorchs(monkeypatch) -> None:
    steer(monkeypatch, "stock")
    x, w, b = layer()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv2d(x, w, b, 2, 1), F.conv2d(x, w, b, 2, 1))
    with split_products(True):
        assert torch.equal(conv2d(x, w, b, 2, 1), F.conv2d(x, w, b, 2, 1))


@needs_kernels
@pytest.mark.parametrize(
    ("x", "w"),
    [
        (torch.zeros(0, 3, 8, 8), torch.zeros(5, 3, 4, 4)),
        (torch.zeros(3, 8, 8), torch.zeros(5, 3, 4, 4)),
        (torch.zeros(2, 3, 40, 40), torch.zeros(5, 3, 17, 17)),
    ],
)
def test_what_ours_does_not_take_is_pytorchs(monkeypatch, x, w) -> None:
    steer(monkeypatch, "own")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv2d(x, w, None, 1, 0), F.conv2d(x, w))


def test_another_word_is_refused(monkeypatch) -> None:
    with pytest.raises(
        ConfigError, match="POKEGAN_CONV=fast: use one of auto, filtered, own, winograd, stock"
    ):
        steer(monkeypatch, "fast")


@needs_kernels
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_both_are_timed(transposed, split) -> None:
    case = Case(transposed, 2, 5, 6, 7, 3, 3, 4, 2, 1, (1, 0) if transposed else (0, 0), split)
    before = torch.get_rng_state()
    ratio, winograd = measure(case)
    assert 0 < ratio < float("inf")
    assert winograd == DIRECT  # nothing to filter
    assert torch.equal(before, torch.get_rng_state())


@needs_kernels
@pytest.mark.parametrize(("ratio", "expected"), [(3.0, True), (1.0, True), (0.9, False)])
def test_the_faster_one_is_used_and_remembered(monkeypatch, tmp_path, ratio, expected) -> None:
    asked = []
    monkeypatch.setattr(
        conv_timing, "measure", lambda case, filter: asked.append(case) or (ratio, DIRECT)
    )
    assert choose(CASE).own is expected
    assert choose(CASE).own is expected
    monkeypatch.setattr(conv_choice, "_known", {})
    monkeypatch.setattr(conv_choice, "_decided", {})  # another process
    assert choose(CASE).own is expected
    assert asked == [CASE]
    stored = json.loads((tmp_path / "convolutions.json").read_text())
    assert list(stored["faster"].values()) == [ratio]
    assert stored["made_on"]["torch"] == torch.__version__


@needs_kernels
@pytest.mark.parametrize("content", ["", "{", "[]", '{"made_on": 3}', '{"made_on": {}, "x": 1}'])
def test_a_cache_that_cannot_be_used_is_made_anew(monkeypatch, tmp_path, content) -> None:
    path = tmp_path / "convolutions.json"
    path.write_text(content)
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: (2.0, DIRECT))
    assert measured() == {}
    assert choose(CASE).own
    assert list(measured().values()) == [2.0]


@needs_kernels
def test_another_torch_measures_again(monkeypatch) -> None:
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: (2.0, DIRECT))
    assert choose(CASE).own
    monkeypatch.setattr(conv_choice, "_known", {})
    monkeypatch.setattr(conv_choice, "_decided", {})
    monkeypatch.setattr(conv_timing, "_made_on", lambda: {"torch": "another"})
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: (0.5, DIRECT))
    assert not choose(CASE).own


@needs_kernels
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POKEGAN_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: (2.0, DIRECT))
    assert choose(CASE).own


@needs_kernels
def test_a_choice_is_made_for_a_count_of_threads(monkeypatch) -> None:
    counts = []
    monkeypatch.setattr(
        conv_timing,
        "measure",
        lambda case, filter: counts.append(torch.get_num_threads()) or (2.0, DIRECT),
    )
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            assert choose(CASE).own
    finally:
        torch.set_num_threads(before)
    assert counts == [1, 2]


@needs_kernels
def test_compiled_uses_ours_without_timing(monkeypatch) -> None:
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: pytest.fail("timed"))
    x, w, b = layer()
    compiled = torch.compile(conv2d, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        found = compiled(x, w, b, 2, 1)
    assert torch.equal(found, conv2d_bf16(x.bfloat16(), w, b, 2, 1))


@needs_kernels
def test_a_run_that_goes_on_keeps_its_choices_without_the_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: (0.5, DIRECT))
    assert not choose(CASE).own
    saved = choices()
    monkeypatch.setattr(conv_choice, "_known", {})
    monkeypatch.setattr(conv_choice, "_decided", {})
    (tmp_path / "convolutions.json").unlink()
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: (2.0, DIRECT))
    assert choose(CASE).own
    keep_to(saved)
    assert not choose(CASE).own
    assert choices() == saved


FILTERED = Case(False, 4, 32, 8, 8, 32, 4, 4, 2, 1)


def wide_layer():
    random = torch.Generator().manual_seed(0)
    last = torch.channels_last
    x = torch.randn(4, 32, 8, 8, generator=random).contiguous(memory_format=last)
    return x, torch.randn(32, 32, 4, 4, generator=random).contiguous(memory_format=last)


def run_wide_layer():
    x, w = wide_layer()
    with torch.autocast("cpu", torch.bfloat16):
        return conv2d(x, w, None, 2, 1)


def new_process(monkeypatch):
    monkeypatch.setattr(conv_choice, "_known", {})
    monkeypatch.setattr(conv_choice, "_decided", {})


@needs_kernels
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (4, 1), (3, 1)])
def test_filtering_is_timed_too(transposed, kernel, stride, monkeypatch) -> None:
    """Each of the three operators for itself: filtered where that is the faster one."""
    case = FILTERED._replace(
        transposed=transposed, kernel_height=kernel, kernel_width=kernel, stride=stride
    )
    ratio, _ = measure(case)  # by the clock
    assert 0 < ratio < float("inf")

    def timed(one, other):
        one(), other()
        return next(paces)

    monkeypatch.setattr(conv_timing, "_times_faster", timed)
    for faster in itertools.product((False, True), repeat=3):
        paces = iter([*(2.0 if used else 0.5 for used in faster), 1.25])
        assert measure(case) == (1.25, Winograd(*faster))
    paces = iter([1.25])
    assert measure(case, filter=False) == (1.25, DIRECT)


@needs_kernels
def test_an_operator_is_filtered_where_that_is_clearly_faster(monkeypatch) -> None:
    paces = iter([1.5, 1.04, 0.8, 2.0])  # of three operators, and of ours against PyTorch's
    monkeypatch.setattr(conv_timing, "_times_faster", lambda one, other: next(paces))
    assert measure(FILTERED) == (2.0, Winograd(convolve=True))


@needs_kernels
def test_filtering_is_remembered(monkeypatch) -> None:
    steer(monkeypatch, "filtered")
    ways = Winograd(convolve=True, weight=True)
    x, w = wide_layer()
    expected = conv2d_bf16(x.bfloat16(), w, None, 2, 1, winograd=True)
    assert not torch.equal(expected, conv2d_bf16(x.bfloat16(), w, None, 2, 1))
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: (2.0, ways))
    assert torch.equal(run_wide_layer(), expected)
    assert choices() == {str(FILTERED): "own convolve weight"}
    saved = choices()
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: pytest.fail("timed"))
    new_process(monkeypatch)  # has the cache
    assert torch.equal(run_wide_layer(), expected)
    new_process(monkeypatch)  # has a checkpoint
    monkeypatch.setattr(conv_timing, "_made_on", lambda: {"torch": "another"})
    keep_to(saved)
    assert choose(FILTERED) == Choice(True, ways)
    assert choices() == saved


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("stock", Choice(False)),
        ("own", Choice(True)),
        ("own transpose", Choice(True, Winograd(transpose=True))),
        ("own convolve transpose weight", Choice(True, Winograd(True, True, True))),
    ],
)
def test_choices_in_words(text, choice) -> None:
    assert str(choice) == text
    assert Choice.parse(text) == choice


@needs_kernels
def test_a_checkpoint_from_before_filtering(monkeypatch) -> None:
    monkeypatch.setattr(conv_timing, "measure", lambda case, filter: pytest.fail("timed"))
    keep_to({str(FILTERED): True, str(CASE): False})
    assert choose(FILTERED) == Choice(True)
    assert choose(CASE) == Choice(False)


@needs_kernels
def test_forced_to_filter_where_that_is_possible(monkeypatch) -> None:
    steer(monkeypatch, "winograd")
    assert choose(FILTERED) == Choice(True, Winograd(True, True, True))
    assert choose(CASE) == Choice(True)
    x, w = wide_layer()
    assert torch.equal(run_wide_layer(), conv2d_bf16(x.bfloat16(), w, None, 2, 1, winograd=True))


@needs_kernels
def test_only_filtered_runs_begin_so(monkeypatch) -> None:
    steer(monkeypatch, "filtered")
    asked = []
    ways = Winograd(True, True, True)
    monkeypatch.setattr(
        conv_timing,
        "measure",
        lambda case, filter: asked.append(filter) or (2.0, ways if filter else DIRECT),
    )
    assert choose(FILTERED).winograd == ways
    new_process(monkeypatch)
    steer(monkeypatch, "auto")
    assert choose(FILTERED) == Choice(True)
    assert asked == [True, False]  # each is remembered for itself, and counted once
    assert list(measured()) == [str(FILTERED)]
    steer(monkeypatch, "filtered")
    assert list(measured()) == [str(FILTERED)]
    steer(monkeypatch, "auto")
    new_process(monkeypatch)
    keep_to({str(FILTERED): str(Choice(True, ways))})  # of a run that was begun so
    assert choose(FILTERED) == Choice(True, ways)
