"""A set made again by its manifest: the same pixels, or one line that says what is not there."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from awkward import Files
from picture_files import saved
from PIL import Image

from pokegan.data import PackedImages, PrepareOptions, prepare
from pokegan.data.creatures import draw_creature
from pokegan.data.remake import comparison, read_manifest, remake
from pokegan.data.sources import DemoSource
from pokegan.errors import ConfigError, DataError

OPTIONS = PrepareOptions(24, background=(9, 8, 7), fit="crop", min_size=40, min_foreground=0.01)


@pytest.fixture
def made(tmp_path: Path) -> PackedImages:
    """A set of six of eight pictures: one is a duplicate, one is too small."""
    (folder := tmp_path / "in").mkdir()
    for i in range(6):
        picture = Image.fromarray(draw_creature(i, 48, 0))
        (folder / f"{i}.png").write_bytes(saved(picture, "PNG"))
    shutil.copy(folder / "0.png", folder / "zero.png")
    picture.resize((20, 20)).save(folder / "small.png")
    images = prepare(Files(folder), OPTIONS, tmp_path / "set", workers=0)
    assert images.manifest.counts() == {"kept": 6, "same file": 1, "too small": 1}
    return images


def again(made: PackedImages, **options: object) -> PackedImages:
    folder = made.path.parent
    return remake(made.manifest, Files(folder / "in"), folder / "again", workers=0, **options)


def test_the_same_pixels_also_after_files_were_added(made: PackedImages) -> None:
    folder = made.path.parent / "in"
    Image.fromarray(draw_creature(9, 64, 0)).save(folder / "0a.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "zero.png").unlink()  # a duplicate is not needed
    images = again(made)
    assert images.manifest.checksum == made.manifest.checksum
    assert (images.path / "images.u8").read_bytes() == (made.path / "images.u8").read_bytes()
    then, now = made.manifest, images.manifest
    assert dataclasses.replace(now, created=then.created) == then
    assert comparison(then, now) == "the same pictures and the same pixels as in the first set"


def test_the_manifest_alone_is_enough(made: PackedImages) -> None:
    (made.path / "images.u8").unlink()
    for path in (made.path, made.path / "manifest.json"):
        images = remake(
            read_manifest(path), Files(made.path.parent / "in"), made.path.parent / "b", workers=0
        )
        assert images.manifest.checksum == made.manifest.checksum


def test_renamed_files_are_found_by_content(made: PackedImages) -> None:
    folder = made.path.parent / "in"
    (folder / "sub").mkdir()
    (folder / "3.png").rename(folder / "sub" / "three.png")
    (folder / "1.png").rename(folder / "swap.png")
    (folder / "2.png").rename(folder / "1.png")
    (folder / "swap.png").rename(folder / "2.png")
    images = again(made)
    assert images.names == made.names
    assert images.manifest.checksum == made.manifest.checksum


def test_what_is_missing_or_changed_is_named_in_one_line(made: PackedImages) -> None:
    folder = made.path.parent / "in"
    for i in range(4):
        (folder / f"{i}.png").unlink()
    (folder / "zero.png").unlink()
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes() + b"\0")
    with pytest.raises(DataError) as caught:
        again(made)
    message = str(caught.value)
    assert message.startswith("in is not what the set was made of: missing: ")
    assert message.endswith(" and 1 more; changed: 5.png")
    assert "\n" not in message
    assert sorted(path.name for path in made.path.parent.iterdir()) == ["in", "set"]


def test_an_older_set_at_the_place_stays_when_it_fails(made: PackedImages) -> None:
    (made.path.parent / "in" / "4.png").unlink()
    before = (made.path / "images.u8").read_bytes()
    with pytest.raises(DataError, match=r"missing: 4\.png"):
        remake(made.manifest, Files(made.path.parent / "in"), made.path, workers=0)
    assert (PackedImages.open(made.path, verify=True).path / "images.u8").read_bytes() == before


def test_drawn_pictures(tmp_path: Path) -> None:
    first = prepare(DemoSource(count=5), PrepareOptions(16), tmp_path / "set", workers=0)
    images = remake(first.manifest, DemoSource(), tmp_path / "again", workers=0)
    assert images.manifest.checksum == first.manifest.checksum
    with pytest.raises(DataError, match="demo is not what the set was made of: changed: creature"):
        remake(first.manifest, DemoSource(seed=1), tmp_path / "again", workers=0)


def test_other_versions_are_told(made: PackedImages) -> None:
    then = dataclasses.replace(made.manifest, tools={"pillow": "1.0"}, checksum="0")
    now = dataclasses.replace(made.manifest, tools={"pillow": "2.0", "resvg_py": "3"})
    assert comparison(then, now).endswith("pillow 1.0 then, 2.0 now; resvg_py none then, 3 now")


def test_unreadable_manifests_are_one_line(made: PackedImages, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere cannot be read: No such file"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"in.manifest\.json cannot be read"):
        read_manifest(tmp_path / "in")
    with pytest.raises(DataError, match="is not the manifest of a packed set"):
        read_manifest(tmp_path / "in" / "0.png")
    newer = dataclasses.replace(made.manifest, options={**made.manifest.options, "sharpen": 1})
    with pytest.raises(ConfigError, match="the option sharpen is not known"):
        remake(newer, Files(tmp_path / "in"), tmp_path / "again", workers=0)


def test_a_set_of_the_first_version_is_opened(made: PackedImages) -> None:
    """Without sizes of originals, and without the filters among the options."""
    import json

    path = made.path / "manifest.json"
    values = json.loads(path.read_text())
    values["version"] = 1
    for row in values["pictures"]:
        for key in ("format", "width", "height"):
            del row[key]
    for key in ("min_size", "max_aspect", "plain_background", "min_foreground"):
        del values["options"][key]
    path.write_text(json.dumps(values))
    images = PackedImages.open(made.path, verify=True)
    assert images.manifest.pictures[0][2:] == (None, None, None)
    assert images.manifest.pictures[0][:2] == made.manifest.pictures[0][:2]
    assert again(images).manifest.checksum == made.manifest.checksum
