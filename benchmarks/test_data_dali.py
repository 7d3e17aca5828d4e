"""Streaming by DALI against the usual DataLoader, and preparation by decoder.

The pictures are creatures of 256 px, drawn once into the temporary folder.
"""

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from pokegan.data import FileEntry, PrepareOptions, dali_pipeline
from pokegan.data.creatures import draw_creature
from pokegan.data.dali import DaliSource
from pokegan.data.options import WHITE
from pokegan.data.plain import plain_header
from pokegan.data.square import prepare_entries

COUNT, SIDE, SIZE, BATCH, WORKERS = 256, 256, 64, 64, 2
BATCHES = 32  # of a timing: many more than the two to four that each side has ready at its start

pytestmark = pytest.mark.skipif(not dali_pipeline.available(), reason="needs NVIDIA DALI")


class Folder:
    """The files of a folder, as `EncodedPictures`."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.rglob("*.*"))
        self.names = [path.name for path in self.paths]
        self.checksum = str(folder)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        return self.paths[index].read_bytes()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """JPEG on white, and PNG with alpha; each in a class's folder, as ImageFolder wants it."""
    root = tmp_path_factory.mktemp("creatures")
    for kind in ("jpg", "png"):
        (root / kind / "creatures").mkdir(parents=True)
    for i in range(COUNT):
        drawn = Image.fromarray(draw_creature(i, SIDE, 0))
        drawn.save(root / "png" / "creatures" / f"{i}.png")
        white = Image.new("RGB", drawn.size, WHITE)
        white.paste(drawn, mask=drawn.getchannel("A"))
        white.save(root / "jpg" / "creatures" / f"{i}.jpg", quality=90)
    return {kind: root / kind for kind in ("jpg", "png")}


def usual_batches(folder: Path, device: torch.device):
    """What the projects that pokegan unites do: two workers, without end."""
    steps = transforms.Compose(
        [
            transforms.Resize((SIZE, SIZE)),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(folder), steps),
        BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    while True:
        for images, _ in loader:
            yield images.to(device, non_blocking=True)


def stream_against_loader(pair, folder: Path, device: torch.device, threads: int) -> None:
    source = DaliSource(Folder(folder), WHITE, SIZE, "pad", seed=0, device=device, threads=threads)
    theirs = usual_batches(folder, device)
    firsts = itertools.count(0, BATCH)

    def ours() -> None:
        for _ in range(BATCHES):
            source.batch(next(firsts), BATCH)
        settle(device)

    def usual() -> None:
        for _ in range(BATCHES):
            next(theirs)
        settle(device)

    pair(ours, usual, amount=BATCHES * BATCH)
    source.close()


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_data_dali_against_data_loader(pair, folders, kind) -> None:
    """The goal is 2 for JPEG. Both have two threads or processes, and decode for 256 px."""
    stream_against_loader(pair, folders[kind], torch.device("cpu"), WORKERS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_data_dali_gpu_against_data_loader(pair, folders, kind) -> None:
    stream_against_loader(pair, folders[kind], torch.device("cuda"), threads=8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_data_dali_gpu_decode(pair, folders) -> None:
    """JPEG to squares on the GPU, without a file read, against the same without a GPU."""
    contents = [path.read_bytes() for path in sorted(folders["jpg"].rglob("*.jpg"))]
    inputs = [
        dali_pipeline.square_inputs(content, plain_header(content), SIZE, "pad")
        for content in contents
    ]

    def squares(device: int | None):
        branch = dali_pipeline.square_branch(False, SIZE, "pad", WHITE, 8, device)

        def run() -> None:
            for start in range(0, COUNT, dali_pipeline.BATCH):
                branch.feed(inputs[start : start + dali_pipeline.BATCH])
            for _ in range(0, COUNT, dali_pipeline.BATCH):
                branch.take()

        return run

    pair(squares(0), squares(None), amount=COUNT)


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("decoder", ["torchvision", "dali"])
def test_data_prepare_decoder_against_pillow(pair, folders, kind, decoder) -> None:
    """One thread each, without worker processes: what a picture costs."""
    paths = sorted(folders[kind].rglob("*.*"))[:128]
    entries = [FileEntry(path.name, path) for path in paths]

    def by(name: str):
        options = PrepareOptions(SIZE, decoder=name)

        def run() -> None:
            for start in range(0, len(entries), 16):
                prepare_entries(entries[start : start + 16], options)

        return run

    pair(by(decoder), by("pillow"), amount=len(entries))
