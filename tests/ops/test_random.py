"""Counted randomness: known answers, and that a number depends on its place alone."""

import math

import pytest
import torch

from pokegan.ops.random import Stream, normal, permutation, philox4x32, uniform, words

# Random123's known-answer vectors for Philox4x32-10: counter, key, words.
KNOWN = [
    ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (
        [0xFFFFFFFF] * 4,
        (0xFFFFFFFF, 0xFFFFFFFF),
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        (0xA4093822, 0x299F31D0),
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter: list[int], key: tuple[int, int], expected: list[int]) -> None:
    assert philox4x32(torch.tensor(counter), key).tolist() == expected


def test_words_come_from_the_documented_counter() -> None:
    seed, step, sample = (7 << 32) + 5, 11, 2**32 - 1
    got = words(seed, Stream.LATENT, step, torch.tensor([sample]), 6)[0]
    for index in range(6):
        counter = torch.tensor([index // 4, sample, step, int(Stream.LATENT)])
        assert got[index] == philox4x32(counter, (5, 7))[index % 4]


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    alone = normal(3, Stream.LATENT, 9, torch.tensor([41]), 17)
    among = normal(3, Stream.LATENT, 9, torch.arange(30, 50), 17)
    assert torch.equal(alone[0], among[11])


def test_a_longer_row_begins_with_the_shorter_one() -> None:
    samples = torch.arange(4)
    short, long = (normal(3, Stream.LATENT, 0, samples, count) for count in (5, 32))
    assert torch.equal(short, long[:, :5])


def test_the_step_may_live_on_the_device() -> None:
    samples = torch.arange(3)
    as_tensor = uniform(1, Stream.FLIP, torch.tensor(77), samples, 4)
    assert torch.equal(as_tensor, uniform(1, Stream.FLIP, 77, samples, 4))


@pytest.mark.parametrize(
    "other", [(2, Stream.LATENT, 0), (1, Stream.LABEL, 0), (1, Stream.LATENT, 1)]
)
def test_seed_stream_and_step_each_give_other_numbers(other: tuple[int, Stream, int]) -> None:
    samples = torch.arange(64)
    same = uniform(1, Stream.LATENT, 0, samples, 8) == uniform(*other, samples, 8)
    assert same.float().mean() < 0.01


def test_uniform_is_in_range_and_even() -> None:
    draws = uniform(5, Stream.LABEL, 0, torch.arange(20_000), 5).flatten()
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws, bins=20, min=0, max=1)
    expected = draws.numel() / 20
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 43.8  # 0.999 quantile of chi-square with 19 degrees of freedom


def test_normal_has_the_normal_distribution() -> None:
    draws = normal(5, Stream.LATENT, 0, torch.arange(20_000), 5).flatten().double().sort().values
    count = draws.numel()
    cumulative = 0.5 * (1 + torch.erf(draws / math.sqrt(2)))
    empirical = torch.arange(1, count + 1) / count
    kolmogorov = (cumulative - empirical).abs().max()
    assert kolmogorov < 1.95 / math.sqrt(count)  # the 0.1 % level
    assert torch.isfinite(draws).all()


def test_the_two_halves_of_a_pair_are_not_correlated() -> None:
    draws = normal(5, Stream.LATENT, 0, torch.arange(50_000), 2)
    correlation = torch.corrcoef(draws.T)[0, 1]
    assert correlation.abs() < 4 / math.sqrt(50_000)


@pytest.mark.parametrize("count", [1, 2, 749, 5000])
def test_an_epoch_is_a_permutation_of_its_own(count: int) -> None:
    device = torch.device("cpu")
    orders = [permutation(0, epoch, count, device) for epoch in (0, 1)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(count))
    if count > 2:
        assert not torch.equal(*orders)
