"""Sources that copy to a GPU while they read ahead; needs a GPU."""

from pathlib import Path

import pytest
import torch

from pokegan.data import PackedImages, PrepareOptions
from pokegan.data.batches import Augmentation, BatchSource, ResidentSource
from pokegan.data.encoded import SourcePictures
from pokegan.data.loaders import choose
from pokegan.data.mapped import MappedSource
from pokegan.data.sources import DemoSource
from pokegan.data.torch_source import TorchSource

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
AUGMENTATION = Augmentation(flip=True, shift=2)


@pytest.mark.parametrize("name", ["mapped", "torch"])
@pytest.mark.parametrize("side_stream", [False, True])
def test_the_bits_are_those_of_the_resident_set(
    packed_folder: Path, name: str, side_stream: bool
) -> None:
    """The device is kept busy, so a buffer written too early would show.

    Not so by `torch`, which draws each picture anew: it takes longer than any work of the device.
    """
    gpu, packed = torch.device("cuda"), PackedImages.open(packed_folder)
    batch, products = (4096, 20) if name == "mapped" else (64, 200)
    more = {"augmentation": AUGMENTATION, "stride": batch}
    if name == "mapped":
        source: BatchSource = MappedSource(packed, 3, gpu, **more)
    else:
        pictures = SourcePictures(DemoSource(count=20), packed.manifest)
        options = PrepareOptions(16, keep_duplicates=True)
        source = TorchSource(pictures, options, 3, gpu, **more, workers=2)
    resident = ResidentSource(packed.images, packed.background, 3, gpu, augmentation=AUGMENTATION)
    stream = torch.cuda.Stream() if side_stream else torch.cuda.current_stream()
    busy = torch.rand(4096, 4096, device=gpu)
    shown = []
    with torch.cuda.stream(stream):
        for step in range(6):
            for _ in range(products):
                busy = busy @ busy / 2048
            shown.append(source.batch(step * batch, batch).images)
        expected = [resident.batch(step * batch, batch).images for step in range(6)]
    torch.cuda.synchronize()
    source.close()
    assert all(torch.equal(*both) for both in zip(shown, expected, strict=True))


def test_auto_looks_at_the_gpu() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    assert choose("auto", 10**6, torch.device("cuda")).name == "resident"
    assert choose("auto", total, torch.device("cuda")).name == "mapped"
