"""Adaptive augmentation: how p moves, what it does to pictures, gradients, resume."""

import pytest
import torch
from thread_ranks import Seat, Threads

from pokegan.augment import AdaptiveAugment
from pokegan.errors import ConfigError
from pokegan.ops.random import Stream

WHITE = (255, 255, 255)
STEP = torch.tensor(8)


def some_pictures(count: int = 6, size: int = 16, dtype=torch.float32) -> torch.Tensor:
    random = torch.Generator().manual_seed(6)
    pictures = torch.rand((count, 3, size, size), generator=random, dtype=dtype) * 2 - 1
    return pictures.contiguous(memory_format=torch.channels_last)


def logits_of(steps: int) -> list[torch.Tensor]:
    """Logits whose share of positive ones wanders from all to few and back."""
    random = torch.Generator().manual_seed(7)
    drift = torch.linspace(0, 6.3, steps).cos() * 1.5 + 0.5
    return [torch.randn(8, generator=random) + mean for mean in drift]


def test_p_follows_the_rule() -> None:
    augment = AdaptiveAugment(1, WHITE, target=0.6, speed_kimg=0.2, every=4)
    p, window, stride = 0.0, [], 8 * 4 / 200
    trajectory = []
    for step, logits in enumerate(logits_of(160)):
        augment.observe(logits)
        augment.update(8)
        window += [(logit > 0) - (logit < 0) for logit in logits.tolist()]
        assert augment.recorded()["augment/sign"].item() == pytest.approx(sum(window[-8:]) / 8)
        if step % 4 == 3:
            mean = sum(window) / len(window)
            p = min(1.0, max(0.0, p + stride * ((mean > 0.6) - (mean < 0.6))))
            window = []
        assert augment.recorded()["augment/p"].item() == pytest.approx(p, abs=1e-5)
        trajectory.append(p)
    assert max(trajectory) == 1
    assert min(trajectory[trajectory.index(1.0) :]) == 0


def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    through = AdaptiveAugment(1, WHITE, speed_kimg=0.7)
    logits = logits_of(40)
    for part in logits[:18]:  # in the middle of a window
        through.observe(part)
        through.update(8)
    resumed = AdaptiveAugment(1, WHITE, speed_kimg=0.7)
    resumed.load_state_dict({name: part.clone() for name, part in through.state_dict().items()})
    for part in logits[18:]:
        for augment in (through, resumed):
            augment.observe(part)
            augment.update(8)
    assert through.p > 0
    for name, part in through.state_dict().items():
        assert torch.equal(part, resumed.state_dict()[name]), name


def test_ranks_that_sum_their_signs_agree_with_one_rank() -> None:
    alone = AdaptiveAugment(1, WHITE, speed_kimg=0.5)

    def work(seat: Seat) -> torch.Tensor:
        augment = AdaptiveAugment(1, WHITE, speed_kimg=0.5, peers=seat)
        values = []
        for logits in logits_of(30):
            augment.observe(logits.chunk(2)[seat.rank])
            augment.update(4)
            values.append(torch.stack(list(augment.recorded().values())))
        return torch.stack(values)

    expected = []
    for logits in logits_of(30):
        alone.observe(logits)
        alone.update(8)
        expected.append(torch.stack(list(alone.recorded().values())))
    for values in Threads(2).run(work):
        assert torch.equal(values, torch.stack(expected))
    assert alone.p > 0


def test_a_fixed_p_stays() -> None:
    augment = AdaptiveAugment(1, WHITE, target=None, p=0.25)
    for logits in logits_of(9):
        augment.observe(logits)
        augment.update(8)
    assert augment.recorded()["augment/p"].item() == 0.25
    assert augment.recorded()["augment/sign"].item() != 0


def test_loading_and_updating_keep_the_buffers_in_place() -> None:
    augment = AdaptiveAugment(1, WHITE)
    places = [part.data_ptr() for part in augment.buffers()]
    augment.observe(torch.ones(4))
    augment.update(4)
    augment.load_state_dict(AdaptiveAugment(1, WHITE, p=0.5).state_dict())
    assert [part.data_ptr() for part in augment.buffers()] == places
    assert augment.p == 0.5


@pytest.mark.parametrize("padding", ["background", "reflect"])
def test_at_zero_pictures_stay(padding: str) -> None:
    pictures = some_pictures()
    augment = AdaptiveAugment(1, (10, 200, 90), padding=padding)
    got = augment(pictures, STEP, torch.arange(6), "real")
    torch.testing.assert_close(got, pictures, atol=1e-6, rtol=0)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_at_one_every_picture_changes_and_each_role_in_its_own_way() -> None:
    pictures = some_pictures()
    augment = AdaptiveAugment(1, WHITE, p=1.0)
    parts = [augment(pictures, STEP, torch.arange(6), r) for r in ("real", "fake", "generator")]
    parts.append(augment(pictures, STEP + 1, torch.arange(6), "real"))
    for i, part in enumerate(parts):
        for other in (pictures, *parts[:i]):
            assert (part - other).abs().amax((1, 2, 3)).min() > 0.05


def test_geometry_keeps_a_picture_of_background() -> None:
    levels = torch.tensor([10.0, 200.0, 90.0]) / 127.5 - 1
    pictures = levels.view(1, 3, 1, 1).expand(20, 3, 16, 16)
    augment = AdaptiveAugment(1, (10, 200, 90), p=1.0, policy="blit,geometry")
    got = augment(pictures, STEP, torch.arange(20), "fake")
    torch.testing.assert_close(got, pictures, atol=1e-6, rtol=0)


def test_blit_moves_pixels_and_mixes_none() -> None:
    """Inside the background, the blitted picture has the pixels that it had."""
    pictures = some_pictures(12)
    pictures[:, :, :2] = pictures[:, :, -2:] = 1
    pictures[:, :, :, :2] = pictures[:, :, :, -2:] = 1
    augment = AdaptiveAugment(1, WHITE, p=1.0, policy={"blit"})
    got = augment(pictures, STEP, torch.arange(12), "real")
    before = pictures.flatten(1).sort(1).values
    torch.testing.assert_close(got.flatten(1).sort(1).values, before, atol=1e-6, rtol=0)
    assert not torch.equal(got, pictures)


def test_a_sample_is_augmented_the_same_in_any_batch() -> None:
    pictures, samples = some_pictures(), torch.arange(6) + 2**31
    augment = AdaptiveAugment(1, WHITE, p=0.6)
    together = augment(pictures, STEP, samples, "real")
    order = torch.tensor([3, 0])
    got = augment(pictures[order], STEP, samples[order], "real")
    torch.testing.assert_close(got, together[order], atol=1e-4, rtol=0)


def test_bfloat16_and_autocast_compute_in_float32() -> None:
    pictures = some_pictures()
    augment = AdaptiveAugment(1, WHITE, p=0.8)
    want = augment(pictures.bfloat16().float(), STEP, torch.arange(6), "real").bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = augment(pictures.bfloat16(), STEP, torch.arange(6), "real")
    assert torch.equal(got, want)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("padding", ["background", "reflect"])
def test_both_gradients_are_those_of_finite_differences(padding: str) -> None:
    pictures = some_pictures(2, 3, torch.float64).requires_grad_()
    augment = AdaptiveAugment(2, WHITE, p=0.8, padding=padding)

    def squared(pictures: torch.Tensor) -> torch.Tensor:
        return augment(pictures, STEP, torch.arange(2), "fake").square()

    assert torch.autograd.gradcheck(squared, pictures)
    assert torch.autograd.gradgradcheck(squared, pictures)


def test_compiled_is_eager() -> None:
    eager, twin = (AdaptiveAugment(1, WHITE, p=0.4, speed_kimg=0.1) for _ in range(2))
    pictures, samples = some_pictures(), torch.arange(6)

    def step(augment: AdaptiveAugment, pictures: torch.Tensor) -> torch.Tensor:
        out = augment(pictures, STEP, samples, "real")
        augment.observe(out.mean((1, 2, 3)))
        augment.update(6)
        return out

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for _ in range(5):
        gradients = []
        for run, augment in ((step, eager), (compiled, twin)):
            leaf = pictures.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(run(augment, leaf).square().sum(), leaf)
            gradients.append(gradient)
        torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    assert eager.p != 0.4
    assert torch.equal(eager.p, twin.p)


def test_a_compiled_gradient_penalty_is_the_eager_one() -> None:
    augment = AdaptiveAugment(2, WHITE, p=0.8)
    weight = torch.randn(3 * 64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def penalty(pictures: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen = augment(pictures, STEP, torch.arange(4), "real").flatten(1)
        logits = (seen * weight).square().sum()
        (slope,) = torch.autograd.grad(logits, pictures, create_graph=True)
        return slope.square().sum()

    pictures = some_pictures(4, 8).requires_grad_()
    (want,) = torch.autograd.grad(penalty(pictures, weight), weight)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = torch.compile(penalty, backend="aot_eager", fullgraph=True)
        (got,) = torch.autograd.grad(compiled(pictures, weight), weight)
    assert want.norm() > 0
    torch.testing.assert_close(got, want)


def test_an_empty_policy_returns_the_input() -> None:
    pictures = some_pictures()
    augment = AdaptiveAugment(1, WHITE, p=1.0, policy="")
    assert augment(pictures, STEP, torch.arange(6), "real") is pictures


def test_streams_are_those_of_the_run_format() -> None:
    assert (Stream.ADA_REAL, Stream.ADA_FAKE, Stream.ADA_GENERATOR) == (16, 17, 18)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"policy": "blit,cutout"}, "policy blit,cutout: 'cutout' is unknown"),
        ({"target": 1.0}, "--ada-target 1.0"),
        ({"speed_kimg": 0.0}, "--ada-kimg 0"),
        ({"p": 1.5}, "--ada-p 1.5"),
        ({"every": 0}, "every 0"),
        ({"padding": "wrap"}, "padding 'wrap'"),
    ],
)
def test_a_wrong_argument_is_named(arguments, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AdaptiveAugment(1, WHITE, **arguments)
