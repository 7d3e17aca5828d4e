"""TensorBoard events, read back with TensorBoard's own reader."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
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


def histogram(events, tag):
    """Return the step, the numbers in each bin and the bins' edges, lowest first."""
    (event,) = events.Histograms(tag)
    value = event.histogram_value
    return event.step, list(value.bucket), [value.min, *value.bucket_limit]


def read_histograms(folder):
    return EventAccumulator(str(folder), size_guidance={"histograms": 0}).Reload()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_histogram(tmp_path, dtype):
    values = torch.randn(10, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    with TensorBoardWriter(tmp_path) as writer:
        writer.histogram(7, "weights", values)
    step, counts, edges = histogram(read_histograms(tmp_path), "weights")
    exact = values.double().numpy()
    wanted, _ = np.histogram(exact, bins=64)
    assert step == 7
    assert edges == pytest.approx(np.linspace(exact.min(), exact.max(), 65), abs=1e-9)
    # a value on an edge may be counted to either side
    assert np.abs(np.cumsum(counts) - np.cumsum(wanted)).max() <= (0 if dtype.itemsize == 4 else 3)
    value = read_histograms(tmp_path).Histograms("weights")[0].histogram_value
    assert value.num == 500
    assert value.sum == pytest.approx(exact.sum())
    assert value.sum_squares == pytest.approx(np.square(exact).sum(), rel=1e-5)


def test_histogram_of_awkward_values(tmp_path):
    with TensorBoardWriter(tmp_path) as writer:
        writer.histogram(1, "constant", torch.full((3, 2), 0.5))
        writer.histogram(1, "some", torch.tensor([1.0, torch.nan, 3.0, torch.inf]))
        writer.histogram(1, "none", torch.tensor([torch.nan]))
        writer.histogram(1, "empty", torch.zeros(0))
    events = read_histograms(tmp_path)
    assert sorted(events.Tags()["histograms"]) == ["constant", "some"]
    assert histogram(events, "constant") == (1, [6.0], [0.5, 0.5])
    _, counts, edges = histogram(events, "some")
    assert (counts[0], counts[-1], sum(counts), edges[0], edges[-1]) == (1, 1, 2, 1.0, 3.0)


def test_network(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    network[0].requires_grad_(False)
    network(torch.ones(1, 3)).sum().backward()
    with TensorBoardWriter(tmp_path) as writer:
        writer.network(5, "generator", network)
    assert sorted(read_histograms(tmp_path).Tags()["histograms"]) == [
        "gradients/generator/1",
        "weights/generator/0",
        "weights/generator/1",
    ]


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
        writer.histogram(1, "weights", torch.ones(3))
        writer.network(1, "generator", torch.nn.Linear(2, 2))
    assert not list(tmp_path.iterdir())


def test_nothing_is_imported_before_a_writer_is_made():
    code = (
        "import sys, pokegan.monitor.tensorboard\n"
        "print([name for name in ('torch', 'tensorboard') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
