"""The shared batch norm's arithmetic on a GPU, against PyTorch's own layer."""

import pytest
import torch
from torch import nn

from pokegan.networks.batch_norm import BatchNorm2d, share
from pokegan.training.distributed import Ranks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_one_rank_is_the_whole_batch(dtype: torch.dtype, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    batch = (torch.randn(32, 48, 8, 8, device="cuda") * 3 + 5).to(dtype).to(memory_format=layout)
    slopes = torch.randn_like(batch)
    results = []
    for make in (BatchNorm2d, nn.BatchNorm2d):
        norm = make(48).cuda()
        if make is BatchNorm2d:
            share(norm, Ranks())
        x = batch.clone().requires_grad_()
        out = norm(x)
        out.backward(slopes)
        found = (out, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
        assert out.dtype == dtype
        results.append([one.detach().float() for one in found])
    close = (
        {"rtol": 2e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    )
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **close)
