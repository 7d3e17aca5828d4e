"""NVIDIA DALI: its traps, its failures, its pictures against Pillow's, and the streaming source."""

import _thread
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from awkward import Files, make_awkward
from picture_files import chunk, drawing, saved
from PIL import Image

from pokegan.data import PrepareOptions, dali_pipeline, pixel_fit, prepare
from pokegan.data.batches import Augmentation, ResidentSource
from pokegan.data.creatures import draw_creature
from pokegan.data.dali import DaliSource
from pokegan.data.decode import decode, upright
from pokegan.data.entries import FileEntry
from pokegan.data.pixel_fit import fit_pixels
from pokegan.data.plain import plain_header, plainly_encoded
from pokegan.data.square import fit, prepare_entries
from pokegan.errors import ConfigError, DataError

pytestmark = pytest.mark.skipif(
    not dali_pipeline.available(), reason=f"NVIDIA DALI is missing: {dali_pipeline.HOW_TO_GET}"
)

REAL = Path(os.environ.get("POKEGAN_TEST_PICTURES", ""))
EVERY = int(os.environ.get("POKEGAN_TEST_EVERY", "32"))
TEAL = (20, 200, 190)
CPU = torch.device("cpu")
DEVICES = [
    pytest.param("cpu", id="cpu"),
    pytest.param(
        "cuda",
        id="cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
        ],
    ),
]

Array = npt.NDArray[np.uint8]


class Memory:
    """Files in memory, as `EncodedPictures`."""

    checksum = "0"

    def __init__(self, files: dict[str, bytes]) -> None:
        self.names = list(files)
        self.files = list(files.values())
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        self.threads.add(threading.get_ident())
        if not self.files[index]:
            raise DataError(f"{self.names[index]}: it is gone")
        return self.files[index]


def by_pillow(content: bytes, size: int, mode: str = "pad") -> Array:
    target = size if mode == "pad" else 2 * size
    return np.asarray(fit(decode(content, TEAL, target=target), size, mode, TEAL))


def creatures(count: int, side: int = 96) -> dict[str, bytes]:
    """PNG with alpha, and every third as JPEG."""
    files = {}
    for i in range(count):
        drawn = Image.fromarray(draw_creature(i, side, 0))
        jpeg = i % 3 == 0
        content = saved(drawn.convert("RGB"), "JPEG") if jpeg else saved(drawn, "PNG")
        files[f"{i}.{'jpg' if jpeg else 'png'}"] = content
    return files


def rotten_png() -> bytes:
    """A PNG that is plain by its header and all checksums, and has no sound pixels."""
    whole = saved(Image.fromarray(drawing()[..., :3]), "PNG")
    length = int.from_bytes(whole[33:37], "big")
    pixels = zlib.compress(bytes([9]) * len(zlib.decompress(whole[41 : 41 + length])))
    return whole[:33] + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def awkward_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every readable file of the awkward folder, each of DALI's traps among them."""
    folder = tmp_path_factory.mktemp("awkward")
    made = make_awkward(folder)
    return {name: (folder / name).read_bytes() for name in made.good}


def edges(content: bytes, size: int) -> npt.NDArray[np.bool_]:
    """[size, size], where the transparency of a picture is neither all nor nothing."""
    with Image.open(io.BytesIO(content)) as image:
        alpha = np.asarray(image.convert("RGBA").getchannel("A").resize((size, size)))
    return (alpha > 2) & (alpha < 253)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_every_readable_file_streams_as_pillow_gives_it(
    awkward_files: dict[str, bytes], mode: str, device: str
) -> None:
    names = list(awkward_files)
    source = DaliSource(Memory(awkward_files), TEAL, 32, mode, 0, torch.device(device), threads=1)
    order = source._line.pictures(0, len(names)).tolist()
    shown = ((source.batch(0, len(names)).images.cpu() + 1) * 127.5).round()
    source.close()
    for place, index in enumerate(order):
        expected = by_pillow(awkward_files[names[index]], 32, mode).astype(float)
        got = shown[place].permute(1, 2, 0).numpy()
        assert np.abs(got - expected).mean() < 1.0, names[index]


@pytest.mark.parametrize("size", [16, 64, 200])
@pytest.mark.parametrize("mode", ["pad", "crop"])
@pytest.mark.parametrize("device", DEVICES)
def test_dalis_own_squares_agree_with_pillows_edges_included(
    size: int, mode: str, device: str
) -> None:
    """Composited and resized by DALI, as a GPU does it."""
    files = list(creatures(9).values())
    for alpha in (False, True):
        chosen = [file for file in files if (plain_header(file).channels == 4) == alpha]
        number = 0 if device == "cuda" else None
        branch = dali_pipeline.square_branch(alpha, size, mode, TEAL, 1, number)
        branch.feed([dali_pipeline.square_inputs(f, plain_header(f), size, mode) for f in chosen])
        squares = branch.take().outputs.as_cpu().as_array().astype(float)
        assert squares.shape == (len(chosen), size, size, 3)
        for square, file in zip(squares, chosen, strict=True):
            difference = np.abs(square - by_pillow(file, size, mode))
            assert difference.mean() < 1.0
            if alpha:
                rim = edges(file, size)
                assert rim.any()
                assert difference[rim].mean() < 2.0


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (64, 64), (9, 70), (300, 200)])
@pytest.mark.parametrize("mode", ["pad", "crop"])
@pytest.mark.parametrize("lanczos", [True, False])
def test_fit_pixels_is_the_fit_of_preparation(
    shape: tuple[int, int], mode: str, lanczos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the Lanczos of torch, where it has one, and without, as up to torch 2.14."""
    monkeypatch.setattr(pixel_fit, "_HAS_LANCZOS", lanczos and pixel_fit._HAS_LANCZOS)
    height, width = shape
    noise = np.random.default_rng(height).integers(0, 256, (2, height, width, 4), dtype=np.uint8)
    got = fit_pixels(torch.from_numpy(noise), 64, mode, TEAL).numpy().astype(int)
    for square, rgba in zip(got, noise, strict=True):
        expected = by_pillow(saved(Image.fromarray(rgba), "PNG"), 64, mode)
        assert np.abs(square - expected).max() <= lanczos


def test_a_branch_outlives_what_it_cannot_decode() -> None:
    good = saved(Image.fromarray(drawing()[..., :3]), "PNG")
    assert plainly_encoded(rotten_png())
    sound, rotten = (dali_pipeline.encoded(good),), (dali_pipeline.encoded(rotten_png()),)
    branch = dali_pipeline.decoding_branch(alpha=False, threads=1, batch=4)
    for batch in ([sound, rotten, sound, rotten], [rotten], [sound], [sound, sound]):
        branch.feed(batch)
    taken = [branch.take() for _ in range(4)]
    assert [sorted(one.lost) for one in taken] == [[1, 3], [0], [], []]
    pictures = [[np.asarray(one) for one in batch.outputs or ()] for batch in taken]
    assert [len(batch) for batch in pictures] == [2, 0, 1, 2]
    for batch in pictures:
        for picture in batch:
            np.testing.assert_array_equal(picture, drawing()[..., :3])


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """A file with a bit turned, a stretch gone or some bytes too many; PNG checksums made right."""
    made = bytearray(content)
    at, length = int(random.integers(8, len(made))), int(random.integers(1, 30))
    match int(random.integers(3)):
        case 0:
            made[at] ^= 1 << int(random.integers(8))
        case 1:
            del made[at : at + length]
        case 2:
            made[at:at] = random.bytes(length)
    if content.startswith(b"\xff\xd8"):
        return bytes(made) + b"\xff\xd9"
    body, at = bytes(made[:8]), 8
    while at + 12 <= len(made):
        length = int.from_bytes(made[at : at + 4], "big")
        body += chunk(bytes(made[at + 4 : at + 8]), bytes(made[at + 8 : at + 8 + length]))
        at += 12 + length
    return body


def test_mutated_files_that_stay_plain_are_the_same_or_an_error_for_both() -> None:
    random = np.random.default_rng(0)
    drawn = Image.fromarray(draw_creature(3, 32, 0))
    plain = drawn.convert("RGB")
    wholes = [saved(drawn, "PNG"), saved(plain, "PNG"), saved(plain, "JPEG")]
    wholes += [saved(plain, "JPEG", progressive=True), saved(plain.convert("L"), "JPEG")]
    branches = [dali_pipeline.decoding_branch(alpha, threads=1) for alpha in (False, True)]
    decoded = 0
    for i in range(120):
        content = mutated(wholes[i % len(wholes)], random)
        header = plain_header(content)
        if header is None or not dali_pipeline.suits(header):
            continue
        branch = branches[header.channels == 4]
        branch.feed([(dali_pipeline.encoded(content),)])
        outputs = branch.take().outputs
        try:
            expected = np.asarray(upright(content)).astype(int)
        except DataError:
            assert outputs is None
            continue
        assert outputs is not None
        assert np.abs(np.asarray(outputs[0]) - expected).mean() < 1.0
        decoded += 1
    assert decoded > 20


def source_of(files: dict[str, bytes], **options: object) -> DaliSource:
    settings = {"augmentation": Augmentation(flip=True, shift=2), "threads": 1} | options
    return DaliSource(Memory(files), TEAL, 32, "pad", 5, CPU, **settings)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return creatures(14)


def test_samples_are_those_of_the_resident_source(files: dict[str, bytes]) -> None:
    squares = np.stack([by_pillow(content, 32) for content in files.values()])
    resident = ResidentSource(squares, TEAL, 5, CPU, augmentation=Augmentation(flip=True, shift=2))
    source = source_of(files)
    for first in range(0, 36, 6):  # into the third epoch
        ours, theirs = source.batch(first, 6), resident.batch(first, 6)
        assert torch.equal(ours.samples, theirs.samples)
        assert (ours.images - theirs.images).abs().max() <= 1.01 / 127.5
        assert ours.images.is_contiguous(memory_format=torch.channels_last)
    source.close()


def test_any_request_gives_its_samples_bit_for_bit(files: dict[str, bytes]) -> None:
    """Two ranks, a resume in the middle of an epoch, jumps, other sizes: all are one line."""
    source = source_of(files)
    whole = torch.cat([source.batch(first, 7).images for first in range(0, 42, 7)])
    requests = [(20, 4), (0, 7), (7, 3), (30, 12), (3, 1)]
    for first, size in requests:
        assert torch.equal(source.batch(first, size).images, whole[first : first + size])
    source.close()
    for rank in (0, 1):
        half = source_of(files, stride=6)
        for step in range(2, 7):
            first = 6 * step + 3 * rank
            assert torch.equal(half.batch(first, 3).images, whole[first : first + 3])
        half.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_busy_device_reads_pictures_before_dali_writes_over_them(
    files: dict[str, bytes],
) -> None:
    """The stream that reads them is kept busy: DALI is batches ahead by the time it does."""
    shown = []
    for products in (0, 50):
        source = DaliSource(Memory(files), TEAL, 32, "pad", 5, torch.device("cuda"), threads=2)
        assert source._side is not None
        work = torch.rand(4096, 4096, device="cuda")
        batches = []
        for first in range(0, 320, 32):
            with torch.cuda.stream(source._side):
                for _ in range(products):
                    work = work @ work / 2048
            batches.append(source.batch(first, 32).images)
            if not products:
                torch.cuda.synchronize()
        torch.cuda.synchronize()
        source.close()
        shown.append(torch.stack(batches))
    assert torch.equal(*shown)


def test_batches_larger_than_a_pipeline_are_whole(files: dict[str, bytes]) -> None:
    source = source_of(files)
    large = source.batch(0, 3 * dali_pipeline.BATCH).images
    assert torch.equal(large[5:12], source.batch(5, 7).images)
    source.close()


def test_files_are_read_ahead_in_other_threads(files: dict[str, bytes]) -> None:
    memory = Memory(files)
    source = DaliSource(memory, TEAL, 32, "pad", 5, CPU, threads=2)
    source.batch(0, 4)
    source.close()
    assert memory.threads
    assert threading.get_ident() not in memory.threads


def test_what_dali_fails_at_is_named_and_left_to_pillow(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is known that Pillow alone reads, so DALI is given another file than Pillow."""
    encoded = dali_pipeline.encoded
    doomed = files["4.png"]

    def spoilt(content: bytes) -> Array:
        return encoded(rotten_png() if content == doomed else content)

    whole = source_of(files)
    expected = torch.cat([whole.batch(0, 14).images, whole.batch(14, 14).images])
    whole.close()
    monkeypatch.setattr(dali_pipeline, "encoded", spoilt)
    source = source_of(files)
    with pytest.warns(RuntimeWarning, match=r"^4\.png: DALI failed .*; Pillow reads it") as said:
        images = torch.cat([source.batch(0, 14).images, source.batch(14, 14).images])
    source.close()
    assert (images - expected).abs().max() <= 1.01 / 127.5
    assert len(said) == 1


@pytest.mark.filterwarnings("ignore:.*DALI failed:RuntimeWarning")
def test_what_nobody_can_read_is_one_line_with_its_name(files: dict[str, bytes]) -> None:
    for bad, reason in ((rotten_png(), "damaged"), (b"", "it is gone"), (b"text", "not a picture")):
        source = source_of({"bad.png": bad} | files)
        with pytest.raises(DataError, match=rf"^bad\.png: {reason}"):
            source.batch(0, 15)
        source.close()


def test_a_closed_source_gives_no_batches_and_leaves_no_threads(files: dict[str, bytes]) -> None:
    threads = _thread._count()
    source = source_of(files)
    source.batch(0, 4)
    assert _thread._count() > threads
    source.close()
    source.close()
    with pytest.raises(RuntimeError, match="closed"):
        source.batch(4, 4)
    until = time.monotonic() + 10
    while _thread._count() > threads and time.monotonic() < until:
        time.sleep(0.01)
    assert _thread._count() <= threads


def test_a_program_that_ends_with_batches_under_way_says_nothing(tmp_path: Path) -> None:
    """At the interpreter's end DALI shuts its pipelines down, and what they lose is no failure."""
    for i in range(64):
        Image.fromarray(draw_creature(i, 256, 0)).save(tmp_path / f"{i}.png")
    code = f"""
from pathlib import Path
import torch
from pokegan.data.dali import DaliSource

class Folder:
    checksum = ""
    paths = sorted(Path({str(tmp_path)!r}).iterdir())
    names = [path.name for path in paths]
    def __len__(self):
        return len(self.paths)
    def read(self, index):
        return self.paths[index].read_bytes()

source = DaliSource(Folder(), (0, 0, 0), 64, "pad", seed=0, device=torch.device("cpu"), prefetch=4)
print(source.batch(0, 64).images.shape[0])
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "64\n", "")


def test_without_dali_the_source_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dali_pipeline, "available", lambda: False)
    with pytest.raises(ConfigError, match=r"needs NVIDIA DALI: pip install 'pokegan\[dali-cu13\]'"):
        source_of({})


def real_pictures() -> Iterator[tuple[str, bytes]]:
    if not REAL.is_file():
        pytest.skip("POKEGAN_TEST_PICTURES does not name a .tar of real pictures")
    with tarfile.open(REAL) as tar:
        members = [m for m in tar.getmembers() if m.name.endswith((".png", ".jpg"))]
        for member in members[::EVERY]:
            yield member.name, tar.extractfile(member).read()


def test_real_pictures_are_the_same_by_all_decoders(tmp_path: Path) -> None:
    entries = []
    for i, (name, content) in enumerate(real_pictures()):
        path = tmp_path / f"{i}-{Path(name).name}"
        path.write_bytes(content)
        entries.append(FileEntry(name, path))
    pixels = {}
    for decoder in ("pillow", "torchvision", "dali"):
        options = PrepareOptions(64, background=TEAL, decoder=decoder)
        squares = [
            square
            for start in range(0, len(entries), 16)
            for square in prepare_entries(entries[start : start + 16], options)
        ]
        assert not any(square.replaced for square in squares)
        pixels[decoder] = np.stack([np.frombuffer(s.pixels, np.uint8) for s in squares])
    rims = [edges(e.path.read_bytes(), 64) for e in entries]
    for decoder in ("torchvision", "dali"):
        difference = np.abs(pixels[decoder].astype(int) - pixels["pillow"]).reshape(-1, 64, 64, 3)
        assert difference.mean(axis=(1, 2, 3)).max() < 1.0
        for rim, one in zip(rims, difference, strict=True):
            assert not rim.any() or one[rim].mean() < 1.0
    files = {entry.name: entry.path.read_bytes() for entry in entries}
    source = DaliSource(Memory(files), TEAL, 64, "pad", 0, CPU, threads=2)
    shown = ((source.batch(0, len(files)).images + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    source.close()
    order = source._line.pictures(0, len(files)).numpy()
    streamed = np.abs(shown - pixels["pillow"][order].reshape(shown.shape))
    assert streamed.mean(axis=(1, 2, 3)).max() < 1.0


def test_preparation_by_dali_is_the_set_that_pillow_makes(tmp_path: Path) -> None:
    made = make_awkward(tmp_path / "in")
    (tmp_path / "in" / "rotten.png").write_bytes(rotten_png())
    sets = {
        decoder: prepare(
            Files(tmp_path / "in"),
            PrepareOptions(48, decoder=decoder),
            tmp_path / decoder,
            workers=1,
        )
        for decoder in ("pillow", "dali")
    }
    pillow, dali = (sets[name].manifest for name in ("pillow", "dali"))
    assert dali.options["decoder"] == "dali"
    assert dali.tools["dali"] == dali_pipeline.version()
    assert "dali" not in pillow.tools
    assert dali.pictures == pillow.pictures
    assert dali.duplicates == pillow.duplicates
    assert dali.skipped == pillow.skipped
    assert len(made.bad) + 1 == len(dali.skipped)
    difference = np.abs(sets["dali"].images.astype(int) - sets["pillow"].images)
    assert difference.mean(axis=(1, 2, 3)).max() < 1.0
