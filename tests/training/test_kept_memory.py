"""Freed memory is used again, not given back and zeroed anew: counted in page faults."""

import subprocess
import sys

import pytest

from pokegan.training.hardware import keep_freed_memory

# 4 maps of 40 MB, allocated, written and freed twelve times; prints the faults of the last four
ROUNDS = """
import resource, sys, torch
from pokegan.training.hardware import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(12):
    if turn == 8:
        before = faults()
    maps = [torch.full((10_000_000,), 1.0) for _ in range(4)]
    del maps
print(faults() - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is Linux's")
def test_maps_of_one_step_serve_the_next():
    if not keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    every_page_each_round = 4 * 4 * 40_000_000 // 4096
    assert faults("keep") < every_page_each_round / 10
    assert faults("stock") >= every_page_each_round
