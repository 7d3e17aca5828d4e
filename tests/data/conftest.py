"""A cache of a test's own; shards to look at, and the pictures that they were made of."""

from pathlib import Path

import pytest
from picture_files import saved
from PIL import Image

from pokegan.data import PrepareOptions
from pokegan.data.creatures import draw_creature
from pokegan.data.sharding import ShardOptions, shard
from pokegan.data.shards import ShardPictures
from pokegan.data.sources import FolderSource

COUNT = 23
PREPARED = PrepareOptions(16)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, not made yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("POKEGAN_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creatures as RGBA PNG, JPEG and palette PNG; a duplicate, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures") / "mixed"
    for i in range(COUNT):
        drawn = Image.fromarray(draw_creature(i, 48))
        path = folder / f"set {i % 2}" / f"no. {i}.v1"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % 3 == 0:
            path.write_bytes(saved(drawn, "PNG"))
        elif i % 3 == 1:
            path.write_bytes(saved(drawn.convert("RGB"), "JPEG", quality=95))
        else:
            path.write_bytes(saved(drawn.convert("P"), "PNG"))
    (folder / "twin.png").write_bytes((folder / "set 0" / "no. 6.v1").read_bytes())
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="session")
def made(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardPictures:
    out = tmp_path_factory.mktemp("made") / "shards"
    return shard(FolderSource(mixed), ShardOptions(PREPARED, pictures=5), out, workers=2)
