"""Counted randomness: Philox4x32-10 keyed by (seed, stream, step, global sample index).

A number is a pure function of its place, so a run is the same on any count of ranks and after any
resume. This is the plain PyTorch form; it makes no host synchronisation.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import enum
import math

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_UNIT = 2.0**-24


class Stream(enum.IntEnum):
    """Every use of randomness has its own stream; the numbers are part of the run format."""

    LATENT = 1
    SHUFFLE = 2
    FLIP = 3
    SHIFT = 4
    LABEL = 5
    SAMPLE = 6
    TRUNCATION = 7
    GENERATOR_LATENT = 8
    AUGMENT_REAL = 9
    AUGMENT_FAKE = 10
    AUGMENT_GENERATOR = 11


def philox4x32(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Return the Philox4x32-10 words of `counter` under `key`.

    Args:
        counter: [..., 4] int64 holding 32-bit words.
        key: two 32-bit words.

    Returns:
        [..., 4] int64 in [0, 2^32).
    """
    c0, c1, c2, c3 = (word & _MASK for word in counter.unbind(-1))
    k0, k1 = (word & _MASK for word in key)
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # modulo 2^64
        high0, high1 = (product0 >> 32) & _MASK, (product1 >> 32) & _MASK
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, product1 & _MASK, high0 ^ c3 ^ k1, product0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.stack((c0, c1, c2, c3), dim=-1)


def words(seed: int, stream: int, step: Tensor | int, samples: Tensor, count: int) -> Tensor:
    """Return `count` random 32-bit words for each sample.

    Args:
        seed: the run's seed in [0, 2^64).
        stream: what the words are for, a `Stream` or another word.
        step: the step, an int or an int64 scalar on the device of `samples`, in [0, 2^32).
        samples: [B] int64, global sample indices in [0, 2^32).
        count: words a sample.

    Returns:
        [B, count] int64 in [0, 2^32). Word i comes from counter (i // 4, sample, step, stream).
    """
    blocks = torch.arange((count + 3) // 4, device=samples.device)
    sample = samples[:, None].expand(-1, blocks.shape[0])  # [B, blocks]
    block = blocks.expand_as(sample)
    if not isinstance(step, Tensor):
        step = torch.full((), step, dtype=torch.int64, device=samples.device)
    counter = torch.stack(
        (block, sample, step.expand_as(sample), torch.full_like(sample, int(stream))), dim=-1
    )
    return philox4x32(counter, (seed & _MASK, seed >> 32)).flatten(1)[:, :count]


def uniform(seed: int, stream: Stream, step: Tensor | int, samples: Tensor, count: int) -> Tensor:
    """Return [B, count] float32 uniform in [0, 1): the top 24 bits of each word times 2^-24."""
    return (words(seed, stream, step, samples, count) >> 8).to(torch.float32) * _UNIT


def normal(seed: int, stream: Stream, step: Tensor | int, samples: Tensor, count: int) -> Tensor:
    """Return [B, count] float32 standard normal by Box-Muller on consecutive pairs of words."""
    pairs = words(seed, stream, step, samples, count + count % 2).view(len(samples), -1, 2)
    first = ((pairs[..., 0] >> 8) + 1).to(torch.float32) * _UNIT  # (0, 1]
    angle = (pairs[..., 1] >> 8).to(torch.float32) * (_UNIT * 2 * math.pi)
    radius = torch.sqrt(-2 * torch.log(first))
    both = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return both.flatten(1)[:, :count]


def permutation(seed: int, epoch: int, count: int, device: torch.device) -> Tensor:
    """Return [count] int64: the order of the pictures in an epoch, the same on every rank."""
    samples = torch.arange(count, device=device)
    pair = words(seed, Stream.SHUFFLE, epoch, samples, 2)
    # 62 bits: two pictures with the same key are so rare that the stable sort is only for form.
    return torch.sort((pair[:, 0] << 30) ^ (pair[:, 1] >> 2), stable=True).indices
