"""The augmentations on a GPU against the CPU, without a synchronisation; needs a GPU."""

import pytest
import torch

from pokegan.augment import AdaptiveAugment, PictureAugmentation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
BACKGROUND = (10, 200, 90)


def some_pictures() -> torch.Tensor:
    random = torch.Generator().manual_seed(6)
    pictures = torch.rand((16, 3, 64, 64), generator=random) * 2 - 1
    return pictures.contiguous(memory_format=torch.channels_last)


def test_pictures_are_augmented_as_on_the_cpu_and_nothing_waits() -> None:
    augment = PictureAugmentation(
        brightness=0.3,
        contrast=0.2,
        saturation=0.1,
        hue=0.1,
        rotation=15,
        background=BACKGROUND,
        seed=3,
    )
    want = augment(some_pictures(), torch.arange(16))
    pictures, samples = some_pictures().cuda(), torch.arange(16, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = augment(pictures, samples)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(got.cpu(), want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("padding", ["background", "reflect"])
def test_a_captured_adaptive_step_is_that_of_the_cpu(padding: str) -> None:
    def made() -> AdaptiveAugment:
        return AdaptiveAugment(1, BACKGROUND, p=0.4, speed_kimg=0.5, every=2, padding=padding)

    host, device = made(), made().cuda()
    there = some_pictures().cuda().requires_grad_()
    samples, number = torch.arange(16, device="cuda"), torch.zeros((), dtype=torch.int64).cuda()

    def step(augment, pictures, number, samples):
        out = augment(pictures, number, samples, "real")
        (gradient,) = torch.autograd.grad(out.square().sum(), pictures)
        augment.observe(out.detach().mean((1, 2, 3)))
        augment.update(16)
        return out.detach(), gradient

    fresh = {name: part.clone() for name, part in device.state_dict().items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(device, there, number, samples)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(device, there, number, samples)
    device.load_state_dict(fresh)
    for i in range(5):
        number.fill_(i)
        graph.replay()
        leaf = some_pictures().requires_grad_()
        want = step(host, leaf, torch.tensor(i), torch.arange(16))
        got = tuple(part.cpu() for part in captured)
        torch.testing.assert_close(got, want, atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(device.p.cpu(), host.p)
    assert host.p != 0.4
