"""Which loader is taken, and what is refused; the files that torchvision may decode."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from awkward import make_awkward
from PIL import Image

from pokegan.data import PackedImages, PrepareOptions, free_memory, prepare
from pokegan.data.creatures import draw_creature
from pokegan.data.encoded import SourcePictures
from pokegan.data.loaders import RESIDENT_SHARE, check_loader, choose, open_pictures
from pokegan.data.plain import plainly_encoded
from pokegan.data.quiet import quiet
from pokegan.data.sources import DemoSource
from pokegan.data.streamed import StreamedSet, pillow_square
from pokegan.data.torch_source import _decoded_jpeg, square
from pokegan.errors import ConfigError, DataError

CPU = torch.device("cpu")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine with a billion bytes free."""
    monkeypatch.setattr(free_memory, "_available", lambda meminfo: 10**9)
    monkeypatch.setattr(free_memory, "_group_room", lambda membership, groups: [2**63])
    return 10**9


def test_auto_is_resident_up_to_its_share_of_the_free_memory(free: int) -> None:
    limit = int(RESIDENT_SHARE * free)
    assert choose("auto", limit, CPU).name == "resident"
    assert choose("auto", limit + 1, CPU).name == "mapped"
    assert choose("auto", limit // 2, CPU, processes=2).name == "resident"
    assert choose("auto", limit // 2 + 1, CPU, processes=2).name == "mapped"
    assert choose("auto", 3 * 10**8, CPU).why == (
        "the pictures take 300 MB, more than 25% of the 1 GB free on cpu"
    )


@pytest.mark.parametrize("name", ["resident", "mapped", "torch", "dali"])
def test_a_loader_that_is_named_is_taken(free: int, name: str) -> None:
    assert choose(name, free, CPU).name == name


def test_resident_is_refused_where_it_cannot_be(free: int) -> None:
    with pytest.raises(ConfigError, match="--loader resident: the pictures take 2 GB, and 1 GB"):
        choose("resident", 2 * free, CPU)


def test_free_memory_is_what_linux_calls_available(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   3000 kB\n")
    assert free_memory._available(tmp_path / "meminfo") == 3000 * 1024
    assert free_memory._available(tmp_path / "none") > 2**28
    assert 2**20 < free_memory.free_bytes(CPU) < 2**50


def test_free_memory_is_bounded_by_every_group_above(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("12:cpu:/other\n0::/outer/inner\n")
    for name, limit, used, cached in (("outer", "1000", 700, 100), ("outer/inner", "max", 5, 0)):
        group = tmp_path / "groups" / name
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
    room = free_memory._group_room(tmp_path / "membership", tmp_path / "groups")
    assert min(room) == 1000 - 700 + 100
    assert min(free_memory._group_room(tmp_path / "none", tmp_path)) == 2**63


def test_workers_without_decoding_are_refused() -> None:
    with pytest.raises(ConfigError, match="--workers 2 has no effect without --loader torch or"):
        check_loader("mapped", 2)
    with pytest.raises(ConfigError, match="--workers 0: DALI decodes in threads of its own"):
        check_loader("dali", 0)
    check_loader("torch", 0)
    check_loader("auto", None)


def test_dali_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^--loader dali: .* pip install 'pokegan\[dali\]'"):
        check_loader("dali", None)


def test_a_packed_set_has_no_files_to_stream(packed_folder: Path) -> None:
    options = PrepareOptions(16)
    assert isinstance(open_pictures(str(packed_folder), options, "auto"), PackedImages)
    with pytest.raises(DataError, match="has no picture files to decode: use --loader mapped"):
        open_pictures(str(packed_folder), options, "torch")


def test_a_streamed_set_is_the_packed_one(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(draw_creature(i, 20, 0)).save(folder / f"{i}.png")
    (folder / "5.png").write_bytes((folder / "2.png").read_bytes())
    options = PrepareOptions(16)
    packed = open_pictures(str(folder), options, "mapped")
    streamed = open_pictures(str(folder), options, "torch")
    assert isinstance(packed, PackedImages)
    assert isinstance(streamed, StreamedSet)
    assert len(packed) == len(streamed) == 5
    assert list(streamed.pictures.names) == packed.names
    every = np.arange(5)
    np.testing.assert_array_equal(streamed.squares(every), packed.squares(every))
    assert streamed.background == packed.background
    assert streamed.checksum != packed.checksum


def test_the_demo_set_is_streamed_as_it_is_drawn(tmp_path: Path) -> None:
    options = PrepareOptions(16, (10, 20, 30), keep_duplicates=True)
    source = DemoSource(count=4)
    packed = prepare(source, options, tmp_path / "set", workers=0)
    streamed = StreamedSet(SourcePictures(source, packed.manifest), options)
    some = np.array([0, 3, 1])
    np.testing.assert_array_equal(streamed.squares(some), packed.squares(some))


def test_torchvision_and_preparation_give_the_same_squares(tmp_path: Path) -> None:
    """Of every awkward file: those that decoders read differently go the way of preparation."""
    awkward = make_awkward(tmp_path / "awkward")
    fits = [PrepareOptions(32), PrepareOptions(24, (9, 90, 200), fit="crop")]
    trusted = set()
    for name in awkward.good:
        content = (tmp_path / "awkward" / name).read_bytes()
        for options in fits:
            expected = pillow_square(content, name, options)
            np.testing.assert_array_equal(square(content, name, options), expected, name)
        if plainly_encoded(content):
            trusted.add(name)
            is_jpeg = content.startswith(b"\xff\xd8")
            with quiet():
                assert not is_jpeg or _decoded_jpeg(content, fits[0]) is not None
    assert {"rgb.png", "rgba.png", "photo.jpg", "really-a-jpeg.png"} <= trusted
    wary = ("key", "profile", "16", "palette", "cmyk", "turned", "animated", "alpha")
    trusted.discard("turned/damaged exif.jpg")  # damaged: it turns nothing
    assert not any(word in name for name in trusted for word in wary)


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("shape", [(300, 260), (130, 127), (20, 31), (128, 900)])
def test_a_jpeg_of_any_size_is_decoded_as_preparation_does(
    fit: str, shape: tuple[int, int]
) -> None:
    """Preparation decodes a large one at a half, a quarter or an eighth."""
    file = io.BytesIO()
    Image.fromarray(draw_creature(3, 64, 0)).convert("RGB").resize(shape).save(file, "JPEG")
    options = PrepareOptions(8, fit=fit)
    expected = pillow_square(file.getvalue(), "it", options)
    np.testing.assert_array_equal(square(file.getvalue(), "it", options), expected)


def test_a_jpeg_of_too_many_pixels_is_refused_undecoded() -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG")
    content = file.getvalue()
    size = content.index(b"\xff\xc0") + 5
    huge = content[:size] + b"\xff\xff\xff\xff" + content[size + 4 :]
    assert plainly_encoded(huge)
    with pytest.raises(DataError, match="it: too many pixels: "):
        square(huge, "it", PrepareOptions(16))


def test_what_cannot_be_read_is_refused_alike(tmp_path: Path) -> None:
    awkward = make_awkward(tmp_path / "awkward")
    options = PrepareOptions(32)
    files = [tmp_path / "awkward" / name for name in awkward.bad]
    checked = 0
    for path in files:
        if path.is_file() and path.stat().st_size < options.max_bytes:
            with pytest.raises(DataError, match=f"^{path.name}: [^\n]+$"):
                square(path.read_bytes(), path.name, options)
            checked += 1
    assert checked > 5
