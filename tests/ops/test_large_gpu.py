"""CUDA kernels on more than one grid takes at once, so that threads go round; needs a GPU."""

import pytest
import torch

from pokegan.ops import batch_gather, diff_augment, dropout, label_targets, random, status
from pokegan.ops.batch_gather import batch_gather_reference
from pokegan.ops.diff_augment import diff_augment_reference
from pokegan.ops.dropout import dropout_reference
from pokegan.ops.random import Stream
from pokegan.ops.soft_labels import label_targets_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
MANY = 70_000  # a grid has at most 65,535 blocks along its second and third axis


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not status().cuda:
        pytest.fail(f"the CUDA kernels are not in use: {status().cuda_reason}")


def test_batch_gather() -> None:
    images = torch.randint(0, 256, (9, 2, 2, 3), dtype=torch.uint8, device="cuda")
    indices = torch.randint(0, 9, (MANY,), device="cuda")
    assert torch.equal(batch_gather(images, indices), batch_gather_reference(images, indices))


def test_diff_augment() -> None:
    images = torch.randn(MANY, 3, 4, 4, device="cuda")
    place = (3, Stream.AUGMENT_REAL, 11, torch.arange(MANY, device="cuda"))
    out, expected = diff_augment(images, *place), diff_augment_reference(images, *place)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_second_gradients_of_pictures_in_several_shares() -> None:
    images = torch.randn(2, 3, 65, 64, device="cuda", requires_grad=True)
    first, second = torch.randn(2, *images.shape, device="cuda").unbind()
    first.requires_grad_()
    place = (3, Stream.AUGMENT_REAL, 11, torch.arange(2, device="cuda"))
    results = []
    for augment in (diff_augment, diff_augment_reference):
        out = augment(images, *place, fill=1.0)
        (gradient,) = torch.autograd.grad(out, images, first, create_graph=True)
        results.append(torch.autograd.grad(gradient, first, second)[0])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_random_uniform() -> None:
    place = (5, Stream.LATENT, 3, torch.arange(100_000, device="cuda"), 400)
    assert torch.equal(random.uniform(*place), random.uniform_reference(*place))


def test_dropout() -> None:
    values = torch.ones(64, 1_100_000, dtype=torch.bfloat16, device="cuda")
    place = (0.5, 1, 70_000, 2, torch.arange(64, device="cuda"))
    assert torch.equal(dropout(values, *place), dropout_reference(values, *place))


def test_label_targets() -> None:
    place = (torch.arange(1_100_000, device="cuda"), 9, 5, (0.7, 1.2), (-0.1, 0.3), 0.4)
    for ours, theirs in zip(label_targets(*place), label_targets_reference(*place), strict=True):
        assert torch.equal(ours, theirs)
