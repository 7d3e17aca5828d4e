"""Duplicates: what counts as the same picture, and that the look-up finds what comparing finds."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import saved
from PIL import Image, ImageFilter

from pokegan.data import PrepareOptions, prepare
from pokegan.data.creatures import draw_creature
from pokegan.data.decode import decode
from pokegan.data.duplicates import (
    NEAR,
    SAME_FILE,
    SAME_PIXELS,
    Fingerprints,
    distance,
    find_duplicates,
    perceptual_hashes,
)
from pokegan.data.fingerprints import luma, thumbnail
from pokegan.data.folder_source import FolderSource
from pokegan.data.hash_search import HASH_RADIUS, HashTable
from pokegan.data.options import NEAR_DUPLICATE_DISTANCE

Pixels = npt.NDArray[np.uint8]
HASHES = st.integers(0, 2**64 - 1)


def creature(index: int, size: int = 64, seed: int = 0) -> Pixels:
    content = saved(Image.fromarray(draw_creature(index, size, seed)), "PNG")
    return np.asarray(decode(content))


def twins(index: int, quality: int = 85) -> tuple[Pixels, Pixels]:
    """A creature of 256 px prepared at 64 px from a lossless file and from a JPEG."""
    whole = Image.fromarray(creature(index, 256))
    lossy = decode(saved(whole, "JPEG", quality=quality))
    small = [picture.resize((64, 64), Image.Resampling.LANCZOS) for picture in (whole, lossy)]
    return np.asarray(small[0]), np.asarray(small[1])


def lumas_of(pictures: list[Pixels]) -> Pixels:
    small = b"".join(luma(Image.fromarray(picture)) for picture in pictures)
    return np.frombuffer(small, np.uint8).reshape(-1, 32, 32)


def thumbnails_of(pictures: list[Pixels]) -> Pixels:
    small = b"".join(thumbnail(Image.fromarray(picture)) for picture in pictures)
    return np.frombuffer(small, np.uint8).reshape(-1, 16, 16, 3)


def prints(pictures: list[Pixels], lossy: list[bool] | None = None) -> Fingerprints:
    return Fingerprints(
        sha256=[f"file {i}" for i in range(len(pictures))],
        digests=[picture.tobytes() for picture in pictures],
        hashes=perceptual_hashes(lumas_of(pictures)).tolist(),
        thumbnails=thumbnails_of(pictures),
        lossy=lossy or [False] * len(pictures),
    )


def found(pictures: list[Pixels], lossy: list[bool] | None = None) -> list[tuple[int, int, str]]:
    matches = find_duplicates(prints(pictures, lossy), NEAR_DUPLICATE_DISTANCE)
    return [(match.index, match.kept, match.kind) for match in matches]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(HASHES, max_size=60),
    HASHES,
    st.randoms(use_true_random=False),
    st.sampled_from([0.1, 6.0, 60.0]),
)
def test_banding_finds_exactly_what_brute_force_finds(
    hashes: list[int], value: int, dice: random.Random, apart: float
) -> None:
    """Of colours anywhere between black and white, most pairs about as far apart as is near."""
    for _ in range(20):  # random hashes are far apart: add some near ones
        flips = dice.sample(range(64), dice.randrange(HASH_RADIUS + 3))
        hashes.append(value ^ sum(1 << bit for bit in flips))
    queries = [value, *hashes[:5]]
    generator = np.random.default_rng(dice.randrange(1 << 32))
    about = generator.uniform(0, 255 - 1.5 * apart, (1, 3, 3))
    means = generator.uniform(0, 1.5 * apart, (len(hashes) + 6, 3, 3)) + about
    means = means.astype(np.float32)
    table = HashTable(np.array(hashes, np.uint64), means[6:], apart)
    asked, found = table.pairs(np.array(queries, np.uint64), means[: len(queries)])
    near = [
        (q, i)
        for q, query in enumerate(queries)
        for i, stored in enumerate(hashes)
        if (stored ^ query).bit_count() <= HASH_RADIUS
        and np.linalg.norm(means[q] - means[6 + i], axis=1).max() <= apart + 0.01
    ]
    assert list(zip(asked.tolist(), found.tolist(), strict=True)) == near


@pytest.mark.parametrize(("near", "dropped"), [(6.5, 5), (60.0, 60), (255.0, 100)])
def test_the_search_in_blocks_finds_what_the_rule_says(
    near: float, dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 16, so that tables are made anew; every pair compared, as the rule is written."""
    monkeypatch.setattr("pokegan.data.duplicates._BLOCK", 16)
    dice = np.random.default_rng(1)
    pictures = [creature(i, 32) for i in range(150)]
    for i in dice.integers(0, 150, 150).tolist():
        noise = dice.integers(-4, 5, pictures[i].shape)
        pictures.append((pictures[i] + noise * (i % 3)).clip(0, 255).astype(np.uint8))
    order = dice.permutation(300).tolist()
    all_prints = prints([pictures[i] for i in order], (dice.random(300) < 0.4).tolist())
    expected = by_comparing_all(all_prints, near)
    assert [(m.index, m.kept) for m in find_duplicates(all_prints, near)] == expected
    assert len(expected) >= dropped


def by_comparing_all(some: Fingerprints, near: float) -> list[tuple[int, int]]:
    """`(dropped, kept)` by the rule: the same file or pixels, else the nearest that is kept."""
    kept: list[int] = []
    shown_by: dict[int, int] = {}  # any picture to the one that is kept for it
    for i in sorted(range(len(some.lossy)), key=lambda i: (some.lossy[i], i)):
        earlier = list(shown_by)
        same = [j for j in earlier if some.sha256[j] == some.sha256[i]]
        same += [j for j in earlier if some.digests[j] == some.digests[i]]
        close = [j for j in kept if (some.hashes[j] ^ some.hashes[i]).bit_count() <= HASH_RADIUS]
        apart = [(float(distance(some.thumbnails[[j]], some.thumbnails[i])[0]), j) for j in close]
        if same:
            shown_by[i] = shown_by[same[0]]
        elif apart and min(apart)[0] <= near:
            shown_by[i] = min(apart)[1]
        else:
            shown_by[i] = i
            kept.append(i)
    return sorted((i, j) for i, j in shown_by.items() if i != j)


def test_identical_pixels_are_duplicates_of_the_first() -> None:
    a, b = creature(1), creature(2)
    assert found([a, b, a, a]) == [(2, 0, SAME_PIXELS), (3, 0, SAME_PIXELS)]


def test_identical_files_are_called_so() -> None:
    same = replace(prints([creature(1), creature(1)]), sha256=["x", "x"])
    assert [match.kind for match in find_duplicates(same, 7.5)] == [SAME_FILE]


def test_exact_duplicates_are_found_with_distance_zero_and_near_ones_are_not() -> None:
    a, a_lossy = twins(1)
    matches = find_duplicates(prints([a, a, a_lossy]), 0)
    assert [match.index for match in matches] == [1]


def test_a_lossless_twin_is_kept_even_when_it_comes_last() -> None:
    (a, a_lossy), (b, b_lossy) = twins(1), twins(2)
    pictures = [a_lossy, b, a, b_lossy]
    assert found(pictures, [True, False, False, True]) == [(0, 2, NEAR), (3, 1, NEAR)]


@pytest.mark.parametrize("quality", [95, 75, 50, 30])
def test_compression_is_seen_through(quality: int) -> None:
    pairs = [twins(i, quality) for i in range(30)]
    pictures = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    lossy = [False] * 30 + [True] * 30
    assert found(pictures, lossy) == [(30 + i, i, NEAR) for i in range(30)]


def test_another_resolution_is_seen_through() -> None:
    for i in range(20):
        large = Image.fromarray(creature(i, 256))
        small = large.resize((128, 128), Image.Resampling.BICUBIC)
        both = [np.asarray(p.resize((64, 64), Image.Resampling.LANCZOS)) for p in (large, small)]
        assert found(both) == [(1, 0, NEAR)]


def test_different_mirrored_and_recoloured_creatures_are_kept() -> None:
    a = creature(3).copy()
    a[20:40, 40:60] = (250, 20, 20)  # lopsided
    mirrored = np.ascontiguousarray(a[:, ::-1])
    recoloured = np.ascontiguousarray(a[..., [1, 2, 0]])
    blurred = np.asarray(Image.fromarray(a).filter(ImageFilter.GaussianBlur(6)))
    assert found([a, creature(3), mirrored, recoloured, blurred]) == []
    assert found([creature(i) for i in range(100)]) == []


def test_small_differences_do_not_chain() -> None:
    """Each step is a duplicate of the one before; what is kept is far from what is kept."""
    steps = [np.full((32, 32, 3), 100 + 4 * i, np.uint8) for i in range(10)]
    kept = sorted(set(range(10)) - {index for index, _, _ in found(steps)})
    assert kept == [0, 2, 4, 6, 8]


def test_distance_is_the_largest_difference_of_a_cell() -> None:
    one = np.zeros((16, 16, 3), np.uint8)
    two = one.copy()
    two[3, 4] = (10, 20, 30)
    two[8, 8] = (0, 0, 1)
    luma = 0.299 * 10 + 0.587 * 20 + 0.114 * 30
    chroma_blue, chroma_red = 0.564 * (30 - luma), 0.713 * (10 - luma)  # ITU-R BT.601
    expected = np.sqrt(luma**2 + chroma_blue**2 / 4 + chroma_red**2 / 4)
    assert distance(two[None], one) == pytest.approx([expected], rel=1e-3)
    greys = np.stack([one, one + 9])
    assert distance(greys, one) == pytest.approx([0, 9], rel=1e-3)


def test_flat_and_tiny_pictures_have_fingerprints() -> None:
    for side in (1, 8, 1024):
        flat = np.full((side, side, 3), 77, np.uint8)
        assert perceptual_hashes(lumas_of([flat])).tolist() == [0]
        assert (thumbnails_of([flat]) == 77).all()


def test_perceptual_hash_is_the_signs_of_the_lowest_frequencies() -> None:
    """Against the sums of the discrete cosine transform as they are defined, of each picture."""
    lumas = lumas_of([creature(index) for index in range(5)])
    order = sorted(((u, v) for u in range(32) for v in range(32)), key=lambda uv: (sum(uv), uv))
    x = np.arange(32)
    for grey, found in zip(lumas, perceptual_hashes(lumas).tolist(), strict=True):
        lowest = []
        for u, v in order[1:65]:
            down = np.cos(np.pi * u * (2 * x + 1) / 64)
            along = np.cos(np.pi * v * (2 * x + 1) / 64)
            lowest.append(float((grey * np.outer(down, along)).sum()))
        middle = float(np.median(lowest))
        assert f"{found:064b}" == "".join("01"[value > middle] for value in lowest)


@pytest.mark.parametrize("count", [0, 1])
def test_any_count_of_pictures_is_hashed(count: int) -> None:
    assert perceptual_hashes(np.zeros((count, 32, 32), np.uint8)).tolist() == [0] * count


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_a_set_of_any_size_is_searched(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashes are taken of a few pictures at a time; the last few may be none."""
    monkeypatch.setattr("pokegan.data.preparation._LUMAS", 4)
    pictures = [creature(index) for index in range(count - 1)]
    for index, picture in enumerate([*pictures, pictures[0]]):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    made = prepare(FolderSource(tmp_path), PrepareOptions(64), tmp_path / "out", workers=0)
    assert (len(made), len(made.manifest.duplicates)) == (count - 1, 1)
