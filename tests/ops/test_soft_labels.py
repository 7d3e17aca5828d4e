"""Soft-label losses: formulas by hand, the reference, gradients, and what targets look like."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pokegan.ops import label_targets, soft_labels, status
from pokegan.ops.random import Stream, uniform
from pokegan.ops.soft_labels import FORMS, label_targets_reference, soft_labels_reference

needs_extension = pytest.mark.skipif(
    not status().cpu, reason=f"no extension: {status().cpu_reason}"
)
RULE = ((0.85, 0.95), (0.05, 0.15), 0.03)  # smoothing 0.1, noise 0.1, swap 0.03
WILD = ((0.7, 1.2), (-0.1, 0.3), 0.4)
# PyTorch's softplus(x) is x beyond 20, which leaves out 2e-9.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 3e-9, torch.bfloat16: 2e-6}
IMPLEMENTATIONS = [soft_labels, soft_labels_reference]


def logits(count: int, dtype: torch.dtype = torch.float32, seed: int = 0, spread: float = 4.0):
    random = torch.Generator().manual_seed(seed)
    both = torch.randn(2, count, dtype=torch.float64, generator=random) * spread
    return [row.to(dtype).requires_grad_() for row in both]


def by_hand(form, real, fake, real_targets, fake_targets):
    """The papers' formulas on lists of numbers."""

    def entropy(x, t):
        s = 1 / (1 + math.exp(-x))
        return -t * math.log(s) - (1 - t) * math.log(1 - s)

    count = len(real)
    mean_real, mean_fake = sum(real) / count, sum(fake) / count
    total = 0.0
    for x, y, t, u in zip(real, fake, real_targets, fake_targets, strict=True):
        total += {
            "bce": lambda x, y, t, u: entropy(x, t) + entropy(y, u),
            "lsgan": lambda x, y, t, u: 0.5 * (x - t) ** 2 + 0.5 * (y - u) ** 2,
            "rgan": lambda x, y, t, u: 0.5 * entropy(x - y, t) + 0.5 * entropy(y - x, u),
            "ragan": lambda x, y, t, u: entropy(x - mean_fake, t) + entropy(y - mean_real, u),
        }[form](x, y, t, u)
    return total / count


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_formula_by_hand(form, implementation) -> None:
    real, fake = [1.5, -0.25, 0.0, 3.0, -4.0], [-2.0, 0.5, 1.25, -0.75, 6.0]
    samples = torch.tensor([3, 1, 4, 159, 2**31])
    targets = label_targets(samples, 7, 11, *WILD)
    expected = by_hand(form, real, fake, *(side.tolist() for side in targets))
    tensors = (torch.tensor(row, dtype=torch.float64) for row in (real, fake))
    got = implementation(form, *tensors, samples, 7, 11, *WILD)
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_targets_follow_the_documented_words() -> None:
    samples = torch.arange(5000)
    draws = uniform(11, Stream.LABEL, 7, samples, 4).double()
    for side, (low, high), column in ((0, WILD[0], 0), (1, WILD[1], 2)):
        value = low + (high - low) * draws[:, column]
        expected = torch.where(draws[:, column + 1] < WILD[2], 1 - value, value)
        got = label_targets(samples, 7, 11, *WILD)[side].double()
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-7)


def test_targets_have_the_wanted_distribution() -> None:
    count, smoothing, noise, swap = 200_000, 0.1, 0.2, 0.03
    rule = ((0.8, 1.0), (0.0, 0.2), swap)
    real, fake = label_targets(torch.arange(count), 0, 1, *rule)
    swapped = real < 0.5, fake > 0.5
    deviation = math.sqrt(swap * (1 - swap) / count)
    for side in swapped:
        assert side.float().mean().item() == pytest.approx(swap, abs=4 * deviation)
    both = (swapped[0] & swapped[1]).float().mean().item()  # independent of each other
    assert both == pytest.approx(swap**2, abs=4 * math.sqrt(swap**2 / count))
    for values, mean in ((real[~swapped[0]], 1 - smoothing), (fake[~swapped[1]], smoothing)):
        assert values.min() >= mean - noise / 2 - 1e-6
        assert values.max() <= mean + noise / 2 + 1e-6
        assert values.double().mean().item() == pytest.approx(mean, abs=4 * noise / 12**0.5 / 440)
        assert values.double().std().item() == pytest.approx(noise / 12**0.5, rel=0.01)
    correlation = torch.corrcoef(torch.stack((real, fake)))[0, 1].item()
    assert abs(correlation) < 4 / math.sqrt(count)


@pytest.mark.parametrize("swap", [0.0, 1.0])
def test_swapping_never_and_always(swap: float) -> None:
    real, fake = label_targets(torch.arange(1000), 0, 1, (1.0, 1.0), (0.0, 0.0), swap)
    assert (real == 1 - swap).all()
    assert (fake == swap).all()


cases = st.tuples(
    st.sampled_from(list(FORMS)),
    st.sampled_from(list(TOLERANCE)),
    st.integers(1, 40) | st.sampled_from([511, 512, 513, 1100]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([RULE, WILD, ((1.0, 1.0), (0.0, 0.0), 0.0)]),
    st.booleans(),
)


@needs_extension
@settings(deadline=None, max_examples=120)
@given(case=cases)
def test_the_kernel_equals_the_reference(case) -> None:
    form, dtype, count, seed, rule, strided = case
    rows = logits(2 * count if strided else count, dtype, seed % 1000)
    real, fake = (row[::2] if strided else row for row in rows)
    arguments = (real, fake, torch.arange(count) + seed, torch.tensor(seed), seed, *rule)
    loss, expected = soft_labels(form, *arguments), soft_labels_reference(form, *arguments)
    assert loss.dtype == expected.dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
    gradients = torch.autograd.grad(loss * 3, rows), torch.autograd.grad(expected * 3, rows)
    for got, wanted in zip(*gradients, strict=True):
        assert got.dtype == dtype
        relative = 2**-7 if dtype == torch.bfloat16 else 10 * tolerance
        torch.testing.assert_close(got, wanted, rtol=relative, atol=10 * tolerance / count)


@needs_extension
@settings(deadline=None, max_examples=40)
@given(count=st.integers(0, 600), seed=st.integers(0, 2**64 - 1), step=st.integers(0, 2**32 - 1))
def test_targets_equal_the_reference_bit_for_bit(count, seed, step) -> None:
    for rule in (RULE, WILD):
        got = label_targets(torch.arange(count), torch.tensor(step), seed, *rule)
        expected = label_targets_reference(torch.arange(count), step, seed, *rule)
        assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("form", FORMS)
def test_gradients_by_finite_differences(form, implementation) -> None:
    real, fake = logits(7, torch.float64)
    samples = torch.arange(7)
    assert torch.autograd.gradcheck(
        lambda x, y: implementation(form, x, y, samples, 3, 5, *WILD), (real, fake)
    )


@needs_extension
def test_it_is_differentiable_once_and_says_so() -> None:
    real, fake = logits(5)
    loss = soft_labels("bce", real, fake, torch.arange(5), 0, 1, *RULE)
    with pytest.raises(RuntimeError, match="soft_labels: differentiable once"):
        torch.autograd.grad(loss.square(), real, create_graph=True)


@pytest.mark.parametrize("form", FORMS)
def test_one_side_may_need_no_gradient(form) -> None:
    real, fake = logits(9)
    samples = torch.arange(9)
    both = torch.autograd.grad(soft_labels(form, real, fake, samples, 0, 1, *RULE), (real, fake))
    alone = torch.autograd.grad(
        soft_labels(form, real.detach(), fake, samples, 0, 1, *RULE), (fake,)
    )
    assert torch.equal(alone[0], both[1])


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_batch_has_the_mean_of_nothing(form) -> None:
    real, fake = logits(0)
    loss = soft_labels(form, real, fake, torch.arange(0), 0, 1, *RULE)
    assert loss.isnan()
    assert torch.autograd.grad(loss, real)[0].shape == (0,)


@pytest.mark.parametrize("form", FORMS)
def test_extreme_logits_stay_finite_and_a_nan_shows(form) -> None:
    extreme = torch.tensor([1e4, -1e4, 80.0, -80.0], requires_grad=True)
    other = extreme.detach().roll(1)
    samples = torch.arange(4)
    loss = soft_labels(form, extreme, other, samples, 0, 1, *RULE)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, extreme)[0].isfinite().all()
    spoilt = torch.tensor([0.0, math.nan, 0.0, 0.0])
    assert soft_labels(form, spoilt, other, samples, 0, 1, *RULE).isnan()


@pytest.mark.parametrize("x", [-80.0, -20.0, -3.0, -0.5, 0.0, 0.5, 3.0, 20.0])
def test_small_losses_keep_their_digits(x: float) -> None:
    """softplus(-80) is 1.8e-35 and not 0: the series has relative accuracy."""
    both = torch.tensor([x]), torch.tensor([-1e4])
    loss = soft_labels("bce", *both, torch.arange(1), 0, 1, (0.0, 0.0), (0.0, 0.0))
    assert loss.item() == pytest.approx(math.log1p(math.exp(x)), rel=1e-6)


@needs_extension
@pytest.mark.parametrize("form", FORMS)
def test_the_same_bits_every_time_and_for_any_count_of_threads(form) -> None:
    count = 20_011
    real, fake = logits(count)
    before = torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 3, 3):
            torch.set_num_threads(threads)
            loss = soft_labels(form, real, fake, torch.arange(count), 0, 1, *RULE)
            outputs.append((loss, *torch.autograd.grad(loss, (real, fake))))
    finally:
        torch.set_num_threads(before)
    for other in outputs[1:]:
        assert all(torch.equal(one, two) for one, two in zip(outputs[0], other, strict=True))


@pytest.mark.parametrize("form", ["bce", "lsgan", "rgan"])
def test_a_batch_split_over_ranks_has_the_same_loss_and_targets(form) -> None:
    real, fake = (row.detach() for row in logits(64, torch.float64))
    samples = torch.arange(640, 704)
    whole = soft_labels(form, real, fake, samples, 10, 1, *WILD)
    for ranks in (2, 4):
        shares = list(zip(real.chunk(ranks), fake.chunk(ranks), samples.chunk(ranks), strict=True))
        losses = [soft_labels(form, *share, 10, 1, *WILD) for share in shares]
        torch.testing.assert_close(torch.stack(losses).mean(), whole)
        pieces = [label_targets(share[2], 10, 1, *WILD)[0] for share in shares]
        assert torch.equal(torch.cat(pieces), label_targets(samples, 10, 1, *WILD)[0])


@needs_extension
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_opcheck(dtype) -> None:
    samples, step = torch.arange(6), torch.tensor(2)
    real, fake = (row.detach() for row in logits(6, dtype))  # the gradient is the face's
    rule = (*RULE[0], *RULE[1], RULE[2])
    operators = torch.ops.pokegan
    for number in range(len(FORMS)):
        torch.library.opcheck(
            operators.soft_labels.default, (real, fake, samples, step, 1, 5, number, rule)
        )
    torch.library.opcheck(operators.label_targets.default, (samples, step, 1, 5, rule))


@pytest.mark.parametrize("form", FORMS)
def test_compiled_equals_eager(form) -> None:
    real, fake = logits(33)
    samples = torch.arange(33)

    def loss_of(x, y, step):
        return soft_labels(form, x * 2, y, samples, step, 1, *RULE)

    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    for number in (4, 5):
        step = torch.tensor(number)
        results = []
        for function in (loss_of, compiled):
            loss = function(real, fake, step)
            results.append((loss, *torch.autograd.grad(loss, (real, fake))))
        assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_a_step_on_the_device_gives_other_targets_each_time() -> None:
    samples, step = torch.arange(50), torch.tensor(0)
    before = label_targets(samples, step, 1, *RULE)[0]
    step += 1
    assert not torch.equal(before, label_targets(samples, step, 1, *RULE)[0])
    assert torch.equal(before, label_targets(samples, 0, 1, *RULE)[0])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"form": "wgan"}, "form must be one of bce, lsgan, rgan, ragan, got wgan"),
        ({"real": torch.zeros(3, dtype=torch.float16)}, "real must be float32, float64 or bfloat"),
        ({"real": torch.zeros(3, 1)}, r"real must have the shape \[N\]"),
        ({"fake": torch.zeros(3, dtype=torch.float64)}, "fake must have the dtype of real"),
        ({"fake": torch.zeros(4)}, "fake must have the shape of real"),
        ({"samples": torch.zeros(3)}, r"samples must be int64 of the shape \[B\]"),
        ({"samples": torch.arange(4)}, "samples must have the shape of real"),
        ({"step": torch.tensor([1])}, "step must be an int64 scalar"),
        ({"real_interval": (-1.5, 1.0)}, r"real_low must be in \[-1, 2\], got -1.5"),
        ({"real_interval": (0.9, 0.7)}, r"real_high must be in \[real_low, 2\], got 0.7"),
        ({"fake_interval": (0.0, 2.5)}, r"fake_high must be in \[fake_low, 2\], got 2.5"),
        ({"fake_interval": (math.nan, 0.5)}, r"fake_low must be in \[-1, 2\], got nan"),
        ({"swap": 1.01}, r"swap must be in \[0, 1\], got 1.01"),
        ({"swap": -0.1}, r"swap must be in \[0, 1\], got -0.1"),
    ],
)
def test_a_wrong_argument_is_named(implementation, changes, words) -> None:
    fitting = {
        "form": "bce",
        "real": torch.zeros(3),
        "fake": torch.zeros(3),
        "samples": torch.arange(3),
        "step": torch.tensor(0),
        "seed": 0,
        "real_interval": (0.7, 1.2),
        "fake_interval": (0.0, 0.2),
        "swap": 0.0,
    }
    with pytest.raises(RuntimeError, match=f"soft_labels: {words}"):
        implementation(**{**fitting, **changes})


def test_wrong_targets_are_named_too() -> None:
    for targets in (label_targets, label_targets_reference):
        with pytest.raises(RuntimeError, match="label_targets: swap must be in"):
            targets(torch.arange(2), 0, 0, (0.0, 1.0), (0.0, 1.0), 2.0)
