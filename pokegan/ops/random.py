"""Counted randomness: Philox4x32-10 keyed by (seed, stream, step, global sample index).

A number is a pure function of its place, so a run is the same on any count of ranks and after any
resume. The compiled operator and the plain PyTorch reference beside it give the same bits: words,
uniforms and normals. Nothing here waits for the device, and two identical calls are equal.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import enum

import torch
from torch import Tensor

from pokegan.ops.box_muller import box_muller
from pokegan.ops.extension import status

_USE = status()  # fixed for the process, so a compiled function sees a constant
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
    GRADIENT_PENALTY = 12
    JITTER = 13
    ROTATION = 14
    ADA_REAL = 16
    ADA_FAKE = 17
    ADA_GENERATOR = 18


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
        step: the step, an int or an int64 scalar on the device of `samples`; taken modulo 2^32.
        samples: [B] int64, global sample indices; taken modulo 2^32.
        count: words a sample.

    Returns:
        [B, count] int64 in [0, 2^32). Word i comes from counter (i // 4, sample, step, stream).

    Raises:
        RuntimeError: `step`, `samples` or `count` has the wrong dtype, shape, device or sign.
    """
    place = _place(seed, step, samples)
    if not _is_compiled(samples):
        return words_reference(seed, stream, place[1], samples, count)
    out: Tensor = torch.ops.pokegan.random_words(place[0], stream, place[1], samples, count)
    return out


def uniform(seed: int, stream: int, step: Tensor | int, samples: Tensor, count: int) -> Tensor:
    """Return [B, count] float32 uniform in [0, 1): the top 24 bits of each word times 2^-24.

    The arguments are those of `words`.
    """
    return _uniform(seed, stream, step, samples, count, symmetric=False)


def symmetric_uniform(
    seed: int, stream: int, step: Tensor | int, samples: Tensor, count: int
) -> Tensor:
    """Return [B, count] float32 uniform in [-1, 1): 2 u - 1 of `uniform`, exact."""
    return _uniform(seed, stream, step, samples, count, symmetric=True)


def normal(
    seed: int,
    stream: int,
    step: Tensor | int,
    samples: Tensor,
    count: int,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return [B, count] of N(mean, std^2) by Box-Muller on consecutive pairs of words.

    The standard normal n is the exact Box-Muller value of its words to within 4 ulp of float32; a
    result is std * n + mean, in float32 and rounded after each step, then to `dtype`. The C++, CUDA
    and reference forms give the same bits.

    Args:
        seed, stream, step, samples, count: as in `words`.
        mean: a finite float32.
        std: the standard deviation, a finite float32 of 0 or more.
        dtype: float32, or bfloat16 (to nearest, ties to even).

    Raises:
        RuntimeError: as in `words`; `mean`, `std` or `dtype` is another.
    """
    place = _place(seed, step, samples)
    if not _is_compiled(samples):
        return normal_reference(seed, stream, place[1], samples, count, mean, std, dtype)
    out: Tensor = torch.ops.pokegan.random_normal(
        place[0], stream, place[1], samples, count, mean, std, dtype
    )
    return out


def words_reference(
    seed: int,
    stream: int,
    step: Tensor | int,
    samples: Tensor,
    count: int,
    op: str = "random_words",
) -> Tensor:
    """Do what `words` does, in plain PyTorch; `op` is named in messages."""
    step = _place(seed, step, samples)[1]
    _check(op, step, samples, count)
    blocks = torch.arange((count + 3) // 4, device=samples.device)
    sample = samples[:, None].expand(-1, blocks.shape[0])  # [B, blocks]
    counter = torch.stack(
        (
            blocks.expand_as(sample),
            sample,
            step.expand_as(sample),
            torch.full_like(sample, int(stream)),
        ),
        dim=-1,
    )
    return philox4x32(counter, (seed & _MASK, seed >> 32)).flatten(1)[:, :count]


def uniform_reference(
    seed: int,
    stream: int,
    step: Tensor | int,
    samples: Tensor,
    count: int,
    op: str = "random_uniform",
) -> Tensor:
    """Do what `uniform` does, in plain PyTorch; `op` is named in messages."""
    row = words_reference(seed, stream, step, samples, count, op)
    return (row >> 8).to(torch.float32) * _UNIT


def normal_reference(
    seed: int,
    stream: int,
    step: Tensor | int,
    samples: Tensor,
    count: int,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Do what `normal` does, in plain PyTorch."""
    even = count + count % 2 if count > 0 else count
    row = words_reference(seed, stream, step, samples, even, "random_normal")
    _check_normal(mean, std, dtype)
    pairs = row.reshape(row.shape[0], row.shape[1] // 2, 2)
    draws = torch.stack(box_muller(pairs[..., 0], pairs[..., 1]), dim=-1).flatten(1)[:, :count]
    return (draws * std + mean).to(dtype)


def permutation(seed: int, epoch: int, count: int, device: torch.device) -> Tensor:
    """Return [count] int64: the order of the pictures in an epoch, the same on every rank."""
    samples = torch.arange(count, device=device)
    pair = words(seed, Stream.SHUFFLE, epoch, samples, 2)
    # 62 bits: two pictures with the same key are so rare that the stable sort is only for form.
    return torch.sort((pair[:, 0] << 30) ^ (pair[:, 1] >> 2), stable=True).indices


def _uniform(
    seed: int, stream: int, step: Tensor | int, samples: Tensor, count: int, symmetric: bool
) -> Tensor:
    place = _place(seed, step, samples)
    if not _is_compiled(samples):
        draws = uniform_reference(seed, stream, place[1], samples, count)
        return draws * 2 - 1 if symmetric else draws
    out: Tensor = torch.ops.pokegan.random_uniform(
        place[0], stream, place[1], samples, count, symmetric
    )
    return out


def _is_compiled(samples: Tensor) -> bool:
    return _USE.cuda if samples.device.type == "cuda" else _USE.cpu


def _place(seed: int, step: Tensor | int, samples: Tensor) -> tuple[int, Tensor]:
    """Return the seed's bits as an int64, and the step on the device."""
    if not isinstance(step, Tensor):
        step = torch.full((), step, dtype=torch.int64, device=samples.device)
    return (seed if seed < 2**63 else seed - 2**64), step


def _check(op: str, step: Tensor, samples: Tensor, count: int) -> None:
    """Raise what the compiled operators raise, in the same words."""
    rules = (
        (
            samples.dtype == torch.int64 and samples.dim() == 1,
            "samples must be int64 of the shape [B]",
        ),
        (step.dtype == torch.int64 and step.dim() == 0, "step must be an int64 scalar tensor"),
        (step.device == samples.device, "step must be on the device of samples"),
        (count >= 0, f"count must not be negative, got {count}"),
    )
    _require(op, rules)


def _check_normal(mean: float, std: float, dtype: torch.dtype) -> None:
    """Raise what the compiled operator raises, in the same words."""
    largest = torch.finfo(torch.float32).max
    rules = (
        (abs(mean) <= largest, f"mean must be a finite float32, got {mean:g}"),
        (0 <= std <= largest, f"std must be a finite float32 of 0 or more, got {std:g}"),
        (dtype in (torch.float32, torch.bfloat16), "dtype must be float32 or bfloat16"),
    )
    _require("random_normal", rules)


def _require(op: str, rules: tuple[tuple[bool, str], ...]) -> None:
    for holds, message in rules:
        if not holds:
            raise RuntimeError(f"{op}: {message}")


if _USE.cpu:

    @torch.library.register_fake("pokegan::random_words")  # type: ignore[untyped-decorator]  # torch's
    def _fake_words(seed: int, stream: int, step: Tensor, samples: Tensor, count: int) -> Tensor:
        return samples.new_empty((samples.shape[0], count))

    @torch.library.register_fake("pokegan::random_uniform")  # type: ignore[untyped-decorator]  # torch's
    def _fake_uniform(
        seed: int, stream: int, step: Tensor, samples: Tensor, count: int, symmetric: bool
    ) -> Tensor:
        return samples.new_empty((samples.shape[0], count), dtype=torch.float32)

    @torch.library.register_fake("pokegan::random_normal")  # type: ignore[untyped-decorator]  # torch's
    def _fake_normal(
        seed: int,
        stream: int,
        step: Tensor,
        samples: Tensor,
        count: int,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        return samples.new_empty((samples.shape[0], count), dtype=dtype)
