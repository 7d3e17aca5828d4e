"""Batches from each source against the way of the seeds, both on this machine's processor.

The seeds' way is torchvision's ImageFolder, Resize, CenterCrop, ToTensor and Normalize in a
DataLoader of 2 workers (kept between epochs, which the seeds did not do). A round is an epoch of
256 px files made 64 px, flips on our side only. The files are `POKEGAN_BENCH_PICTURES` (what
`--data` takes, with .png or .jpg files in it) or 749 creatures of the demo set.

What bounds each: theirs, decoding, the same work in every epoch. `resident`, the memory: a gather
reads 12 KiB a picture and writes 48 KiB of float32 in one pass. `mapped`, the same gather and a
system call a picture (two where the system can be told ahead), done by one thread beside it; from
a disk that is not cached, the disk (`test_data_mapped_from_the_disk`). `torch`, decoding too: the
gain is what libjpeg-turbo and Pillow's resize leave, and there is none to speak of in PNG, whose
decompression is most of it.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from pokegan.data import PackedImages, PrepareOptions, prepare
from pokegan.data.batches import Augmentation, BatchSource, ResidentSource
from pokegan.data.demo_files import write_demo
from pokegan.data.encoded import SourcePictures
from pokegan.data.folder_source import FolderSource
from pokegan.data.mapped import MappedSource
from pokegan.data.rows import RowFile
from pokegan.data.sources import resolve
from pokegan.data.torch_source import TorchSource

CPU = torch.device("cpu")
BATCH, SIDE, FILE_SIDE, COUNT, WORKERS = 64, 64, 256, 749, 2
OPTIONS = PrepareOptions(SIDE, keep_duplicates=True)
FLIPS = Augmentation(flip=True)
KINDS = pytest.mark.parametrize("kind", ["png", "jpg"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders as ImageFolder wants them, one of each kind of file, all in one class."""
    root = tmp_path_factory.mktemp("pictures")
    given = os.environ.get("POKEGAN_BENCH_PICTURES")
    roots = {}
    if not given:
        write_demo(root / "png" / "all", FILE_SIDE, COUNT, 0)
    for kind in ("png", "jpg"):
        roots[kind] = root / kind
        (roots[kind] / "all").mkdir(parents=True, exist_ok=True)
    if given:
        source = resolve(given)
        assert not isinstance(source, PackedImages), "picture files are wanted"
        for i, entry in enumerate(source.entries()):
            kind = entry.path.suffix.lower().removeprefix(".").replace("jpeg", "jpg")
            if kind in roots:
                (roots[kind] / "all" / f"{i:05d}.{kind}").symlink_to(entry.path.resolve())
        return roots
    for path in (roots["png"] / "all").iterdir():
        picture = Image.open(path)
        flat = Image.new("RGB", picture.size, "white")
        flat.paste(picture, mask=picture.getchannel("A"))
        flat.save(roots["jpg"] / "all" / f"{path.stem}.jpg", quality=90)
    return roots


@pytest.fixture
def make(folders: dict[str, Path], tmp_path: Path) -> Iterator[Callable[..., BatchSource]]:
    """Make one of our sources over the files of a kind."""
    made: list[BatchSource] = []

    def build(name: str, kind: str) -> BatchSource:
        files = FolderSource(folders[kind])
        packed = prepare(files, OPTIONS, tmp_path / "set")
        if name == "resident":
            source: BatchSource = ResidentSource(
                packed.images, packed.background, 0, CPU, augmentation=FLIPS
            )
        elif name == "mapped":
            source = MappedSource(packed, 0, CPU, augmentation=FLIPS, stride=BATCH)
        else:
            pictures = SourcePictures(files, packed.manifest)
            source = TorchSource(
                pictures, OPTIONS, 0, CPU, augmentation=FLIPS, stride=BATCH, workers=WORKERS
            )
        made.append(source)
        return source

    yield build
    for source in made:
        source.close()


def epoch_of(source: BatchSource) -> Callable[[], None]:
    """Return a function that reads the next epoch, rounded up to whole batches."""
    first = 0

    def epoch() -> None:
        nonlocal first
        for _ in range(-(-source.count // BATCH)):
            source.batch(first, BATCH)
            first += BATCH

    return epoch


def seeds_epoch(folder: Path) -> tuple[Callable[[], None], int]:
    """Return a function that reads an epoch as the seeds did, and its images."""
    steps = [
        transforms.Resize(SIDE),
        transforms.CenterCrop(SIDE),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ]
    images = ImageFolder(str(folder), transforms.Compose(steps))
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch, len(images)


@KINDS
@pytest.mark.parametrize("name", ["resident", "mapped", "torch"])
def test_data_against_the_seeds_loader(
    pair, make: Callable[..., BatchSource], folders: dict[str, Path], name: str, kind: str
) -> None:
    """The goals are 50 for resident and 20 for mapped; torch, which decodes too, has none."""
    theirs, count = seeds_epoch(folders[kind])
    source = make(name, kind)
    assert source.count == count
    pair(epoch_of(source), theirs, amount=count, times=1 if name == "torch" else 20)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system keeps what it has read")
def test_data_mapped_from_the_disk(pair, tmp_path: Path) -> None:
    """An epoch of rows in any order of a file that is not cached, read whole beside it or not."""
    count, row = 20_000, SIDE * SIDE * 3
    path = tmp_path / "images.u8"
    with path.open("wb") as file:
        for _ in range(count // 1000):
            file.write(os.urandom(1000 * row))
        file.flush()
        os.fsync(file.fileno())
    order = np.random.default_rng(0).permutation(count)
    out = np.empty((BATCH, row), np.uint8)
    with path.open("rb") as file:
        rows = RowFile(file.fileno(), path, row)

        def epoch(limit: int) -> None:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with contextlib.closing(rows.warm(limit)):
                for first in range(0, count - BATCH + 1, BATCH):
                    rows.read(order[first : first + BATCH], out)

        pair(lambda: epoch(count * row), lambda: epoch(0), amount=count)
