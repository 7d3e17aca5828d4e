"""TensorBoard events, read back with TensorBoard's own reader."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pokegan.monitor.tensorboard import TensorBoardWriter


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


def points(events, tag):
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]


def test_scalars(tmp_path):
    with TensorBoardWriter(tmp_path / "new") as writer:
        assert writer.disabled is None
        writer.scalars(10, {"loss/generator": 0.7, "score/real": 0.9})
        writer.scalars(20, {"loss/generator": 0.6, "score/real": None, "gone": float("nan")})
    events = read(tmp_path / "new")
    assert sorted(events.Tags()["scalars"]) == ["loss/generator", "score/real"]
    assert points(events, "loss/generator") == [(10, 0.7), (20, 0.6)]
    assert points(events, "score/real") == [(10, 0.9)]


def test_picture(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    with TensorBoardWriter(tmp_path) as writer:
        writer.picture(5, "samples", image)
    (event,) = read(tmp_path).Images("samples")
    assert (event.step, event.width, event.height) == (5, 9, 6)
    with Image.open(io.BytesIO(event.encoded_image_string)) as seen:
        assert np.array_equal(np.asarray(seen), image)


def test_text(tmp_path):
    with TensorBoardWriter(tmp_path) as writer:
        writer.text(0, "config", "batch **64**")
    (event,) = read(tmp_path).Tensors("config/text_summary")
    assert event.tensor_proto.string_val == [b"batch **64**"]


def test_flush_makes_events_readable(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    writer.scalars(1, {"loss": 2.0})
    writer.flush()
    assert points(read(tmp_path), "loss") == [(1, 2.0)]
    writer.close()


def test_resuming_forgets_what_came_after(tmp_path):
    with TensorBoardWriter(tmp_path) as writer:
        for step in (1, 2, 3, 4):
            writer.scalars(step, {"loss": float(step)})
    with TensorBoardWriter(tmp_path, purge_step=3) as writer:
        writer.scalars(3, {"loss": 30.0})
    assert points(read(tmp_path), "loss") == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_without_tensorboard_it_says_so_and_does_nothing(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delattr("torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with TensorBoardWriter(tmp_path / "new", purge_step=3) as writer:
        assert "pip install tensorboard" in writer.disabled
        assert "\n" not in writer.disabled
        writer.scalars(1, {"loss": 2.0})
        writer.picture(1, "samples", np.zeros((2, 2, 3), np.uint8))
        writer.text(1, "config", "text")
        writer.flush()
    assert not list(tmp_path.iterdir())


def test_nothing_is_imported_before_a_writer_is_made():
    code = (
        "import sys, pokegan.monitor.tensorboard\n"
        "print([name for name in ('torch', 'tensorboard') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
