"""Every source shows the same pictures in the same order, ends cleanly and fails in one line."""

import _thread
import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from awkward import Files
from PIL import Image

from pokegan.data import PackedImages, PrepareOptions, prepare
from pokegan.data.batches import Augmentation, BatchSource, Recoloured, ResidentSource, split
from pokegan.data.creatures import draw_creature
from pokegan.data.encoded import Chosen, SourcePictures
from pokegan.data.mapped import MappedSource
from pokegan.data.rows import RowFile
from pokegan.data.shrink import downscaled
from pokegan.data.torch_source import TorchSource
from pokegan.errors import DataError
from pokegan.ops.random import permutation

CPU = torch.device("cpu")
COUNT, SIDE, SEED = 23, 16, 7
READ = Path("/proc/self/io")
OPTIONS = PrepareOptions(SIDE, (200, 220, 240), keep_duplicates=True)
AUGMENTATION = Augmentation(flip=True, shift=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RGBA and palette PNG and JPEG files of several shapes."""
    path = tmp_path_factory.mktemp("pictures") / "files"
    path.mkdir()
    for i in range(COUNT):
        picture = Image.fromarray(draw_creature(i, 24, 0)).resize((24 + i % 3, 20 + i % 5))
        if i % 3 == 0:
            picture.convert("RGB").save(path / f"{i:02d}.jpg", quality=90)
        else:
            palette = i % 7 == 1
            (picture.quantize(20) if palette else picture).save(path / f"{i:02d}.png")
    return path


@pytest.fixture(scope="module")
def packed(folder: Path) -> PackedImages:
    return prepare(Files(folder), OPTIONS, folder.parent / "set", workers=0)


@pytest.fixture
def make(folder: Path, packed: PackedImages) -> Iterator[Callable[..., BatchSource]]:
    """Make a source by its name; all are closed in the end."""
    made: list[BatchSource] = []

    def build(name: str, stride: int, size: int = SIDE, rows=None, **more) -> BatchSource:
        more = {"augmentation": AUGMENTATION, **more}
        if name == "resident":
            images = packed.images if rows is None else packed.squares(rows)
            source: BatchSource = ResidentSource(
                downscaled(images, size), packed.background, SEED, CPU, **more
            )
        elif name == "mapped":
            source = MappedSource(packed, SEED, CPU, **more, stride=stride, chosen=rows, size=size)
        else:
            files = SourcePictures(Files(folder), packed.manifest)
            chosen = files if rows is None else Chosen(files, rows)
            workers = int(name.removeprefix("torch"))
            source = TorchSource(
                chosen, OPTIONS, SEED, CPU, **more, stride=stride, size=size, workers=workers
            )
        made.append(source)
        return source

    yield build
    for source in made:
        source.close()


def batches(source: BatchSource, batch: int, steps: int, start: int = 0) -> list[torch.Tensor]:
    return [source.batch(step * batch, batch).images for step in range(start, start + steps)]


@pytest.mark.parametrize("name", ["mapped", "torch0", "torch2"])
@pytest.mark.parametrize(("batch", "size"), [(5, 16), (64, 16), (7, 8), (1, 4)])
def test_the_bits_are_those_of_the_resident_set(
    make: Callable[..., BatchSource], name: str, batch: int, size: int
) -> None:
    steps = -(-3 * COUNT // batch)
    ours, theirs = make(name, batch, size), make("resident", batch, size)
    for step in range(steps):
        one, other = ours.batch(step * batch, batch), theirs.batch(step * batch, batch)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.samples, other.samples)
        assert one.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["mapped", "torch1"])
def test_the_bits_are_the_same_without_pictures_kept_out(
    make: Callable[..., BatchSource], name: str
) -> None:
    rows, kept_out = split(COUNT, 6, 0)
    ours = make(name, 4, rows=rows, dtype=torch.bfloat16, augmentation=Augmentation())
    theirs = make("resident", 4, rows=rows, dtype=torch.bfloat16, augmentation=Augmentation())
    assert ours.count == theirs.count == COUNT - 6
    shown = batches(ours, 4, 12)
    for one, other in zip(shown, batches(theirs, 4, 12), strict=True):
        assert torch.equal(one, other)
    unseen = make("resident", 1, rows=kept_out, dtype=torch.bfloat16, augmentation=Augmentation())
    for picture in batches(unseen, 1, 6):
        assert not any(torch.equal(picture[0], other) for one in shown for other in one)


@pytest.mark.parametrize("name", ["resident", "mapped", "torch1"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_show_every_picture_once_an_epoch_in_one_order(
    make: Callable[..., BatchSource], packed: PackedImages, name: str, ranks: int
) -> None:
    batch, epochs = 6, 3
    local = batch // ranks
    sources = [make(name, batch, augmentation=Augmentation()) for _ in range(ranks)]
    known = {picture.tobytes(): i for i, picture in enumerate(packed.images)}
    line = []
    for step in range(-(-epochs * COUNT // batch)):
        for rank, source in enumerate(sources):
            images = source.batch(step * batch + rank * local, local).images
            back = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
            line += [known[picture.contiguous().numpy().tobytes()] for picture in back]
    order = [i for epoch in range(epochs) for i in permutation(SEED, epoch, COUNT, CPU).tolist()]
    assert line[: epochs * COUNT] == order
    for epoch in range(epochs):
        assert sorted(line[epoch * COUNT : (epoch + 1) * COUNT]) == list(range(COUNT))


@pytest.mark.parametrize("name", ["mapped", "torch2"])
def test_what_was_read_ahead_is_dropped_when_others_are_asked_for(
    make: Callable[..., BatchSource], name: str
) -> None:
    ours, theirs = make(name, 5), make("resident", 5)
    for first, size in [(0, 5), (5, 5), (100, 5), (105, 5), (105, 5), (0, 3), (5, 3), (10, 5)]:
        assert torch.equal(ours.batch(first, size).images, theirs.batch(first, size).images)


@pytest.mark.parametrize("name", ["mapped", "torch2"])
def test_a_resumed_source_gives_the_remaining_batches(
    make: Callable[..., BatchSource], name: str
) -> None:
    whole = batches(make(name, 4), 4, 9)
    for one, other in zip(batches(make(name, 4), 4, 5, start=4), whole[4:], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["mapped", "torch2"])
def test_a_closed_source_leaves_no_thread_and_no_process(
    make: Callable[..., BatchSource], name: str
) -> None:
    wait_until(lambda: all("Feeder" not in thread.name for thread in threading.enumerate()))
    threads = _thread._count()  # of the tests before, a queue's thread may just be ending
    source = Recoloured(make(name, 4), lambda images, samples: -images)
    source.batch(0, 4)
    assert _thread._count() > threads or multiprocessing.active_children()
    source.close()
    source.close()
    wait_until(lambda: not multiprocessing.active_children())
    wait_until(lambda: _thread._count() <= threads)


@pytest.mark.parametrize("name", ["resident", "mapped", "torch1"])
def test_torchs_own_generator_is_left_alone(make: Callable[..., BatchSource], name: str) -> None:
    state = torch.get_rng_state()
    batches(make(name, 4), 4, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_set_cut_short_is_an_error_in_one_line(packed: PackedImages, tmp_path: Path) -> None:
    path = shutil.copytree(packed.path, tmp_path / "set")
    mine = PackedImages.open(path)
    source = MappedSource(mine, SEED, CPU, stride=COUNT)
    source.batch(0, COUNT)
    os.truncate(path / "images.u8", 10 * SIDE * SIDE * 3)
    with pytest.raises(DataError, match=r"^\S*images\.u8 was cut short while it was in use: .*$"):
        batches(source, COUNT, 4, start=1)
    source.close()


@pytest.mark.skipif(not READ.exists(), reason="the system does not count what is read")
@pytest.mark.parametrize("fits", [True, False])
def test_a_file_that_fits_is_read_from_end_to_end(tmp_path: Path, fits: bool) -> None:
    """For nobody, so that the system has it in memory; and nothing of one that does not fit."""
    path, count = tmp_path / "images.u8", 12 << 20
    path.write_bytes(bytes(count))
    with path.open("rb") as file:
        rows, before = RowFile(file.fileno(), path, 1024), bytes_read()
        with contextlib.closing(rows.warm(count - (not fits))):
            end = time.monotonic() + (20 if fits else 0.2)
            while bytes_read() < before + count and time.monotonic() < end:
                time.sleep(0.01)
    assert (bytes_read() >= before + count) == fits


def bytes_read() -> int:
    """What this process has read so far, from a disk or not."""
    return int(READ.read_text(encoding="ascii").split()[1])


def test_a_set_that_another_one_replaces_is_still_read(
    packed: PackedImages, tmp_path: Path
) -> None:
    path = shutil.copytree(packed.path, tmp_path / "set")
    source = MappedSource(PackedImages.open(path), SEED, CPU, stride=4)
    shutil.rmtree(path)
    fresh = MappedSource(packed, SEED, CPU, stride=4)
    for one, other in zip(batches(source, 4, 8), batches(fresh, 4, 8), strict=True):
        assert torch.equal(one, other)
    source.close()
    fresh.close()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("what", ["gone", "cut short", "other"])
def test_a_file_lost_on_the_way_is_named_in_one_line(
    packed: PackedImages, folder: Path, tmp_path: Path, workers: int, what: str
) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "files"))
    pictures = SourcePictures(Files(mine), packed.manifest)
    victim = mine / "04.png"
    if what == "gone":
        victim.unlink()
    else:
        content = victim.read_bytes()
        victim.write_bytes(b"no picture" if what == "other" else content[: len(content) // 2])
    source = TorchSource(pictures, OPTIONS, SEED, CPU, stride=4, workers=workers)
    with pytest.raises(DataError, match=r"^.*04\.png: [^\n]+$"):
        batches(source, 4, 12)
    source.close()


def test_a_worker_that_is_killed_is_an_error_and_no_hang(
    make: Callable[..., BatchSource],
) -> None:
    source = make("torch1", 4)
    source.batch(0, 4)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"^--loader torch: a process [^\n]+ --loader mapped$"):
        batches(source, 4, 20, start=1)


def test_workers_leave_interruptions_to_the_parent(make: Callable[..., BatchSource]) -> None:
    source, other = make("torch1", 4), make("resident", 4)
    source.batch(0, 4)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGINT)
    for one, same in zip(batches(source, 4, 8, 1), batches(other, 4, 8, 1), strict=True):
        assert torch.equal(one, same)


def test_workers_are_outside_of_the_group_that_torchrun_signals(
    make: Callable[..., BatchSource],
) -> None:
    make("torch1", 4).batch(0, 4)
    (worker,) = multiprocessing.active_children()
    wait_until(lambda: os.getpgid(worker.pid) == worker.pid)
    assert os.getpgrp() != worker.pid


def test_a_source_without_one_of_the_pictures_is_refused(
    packed: PackedImages, folder: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "files"))
    (mine / "05.png").unlink()
    with pytest.raises(DataError, match=r"05\.png is no longer in files"):
        SourcePictures(Files(mine), packed.manifest)


def test_stores_are_told_apart_by_their_files(packed: PackedImages, folder: Path) -> None:
    files = SourcePictures(Files(folder), packed.manifest)
    some, others = (Chosen(files, np.array(rows)) for rows in ([1, 4], [4, 1]))
    assert len({files.checksum, some.checksum, others.checksum}) == 3
    assert some.names == ["01.png", "04.png"]
    assert others.read(0) == (folder / "04.png").read_bytes()


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("stretch", [1, 3 * SIDE * SIDE * 3, 5000, 1 << 30])
def test_a_set_that_is_copied_in_pieces_is_whole(
    monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    """As many pictures at a time as the bytes allow; none is left out or doubled."""
    monkeypatch.setattr("pokegan.data.batches._STRETCH", stretch)
    images = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
    source = ResidentSource(images[:, ::-1], (0, 0, 0), SEED, CPU)  # in no order of memory
    assert np.array_equal(source.images.numpy(), images[:, ::-1])
    source.images.zero_()
    assert images.any()  # what was given is not written to
