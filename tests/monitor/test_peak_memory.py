"""Peak memory, in processes of their own: memory once used is never given back to the peak."""

import resource
import subprocess
import sys

import pytest
import torch

from pokegan.monitor import memory
from pokegan.monitor.memory import peak_gpu_memory_bytes, peak_memory_bytes

MIB = 2**20


def run(code):
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(line) for line in shown.stdout.split()]


def test_it_grows_by_what_is_used_and_stays():
    before, during, after = run(
        "from pokegan.monitor.memory import peak_memory_bytes as peak\n"
        "print(peak()); block = bytearray(b'x') * (200 * 2**20); print(peak())\n"
        "del block; print(peak())"
    )
    assert during - before == pytest.approx(200 * MIB, rel=0.05)
    assert after == pytest.approx(during, rel=0.01)  # Linux counts in batches


def test_the_program_that_started_this_one_does_not_count():
    block = bytearray(b"x") * (300 * MIB)  # this process is large when it starts the other
    (peak,) = run("from pokegan.monitor.memory import peak_memory_bytes as peak\nprint(peak())")
    assert peak < len(block) / 2


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_units_of_getrusage(monkeypatch, tmp_path, platform, unit):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    monkeypatch.setattr(memory.sys, "platform", platform)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak_memory_bytes() == pytest.approx(largest * unit, rel=0.01)


def test_without_a_line_for_it_getrusage_is_asked(monkeypatch, tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t     12 kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert peak_memory_bytes() > 10 * MIB


def test_status_is_read_in_kib(monkeypatch, tmp_path):
    (tmp_path / "status").write_text("VmPeak:\t  999 kB\nVmHWM:\t     12 kB\nVmRSS:\t 7 kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert peak_memory_bytes() == 12 * 1024


def test_torch_is_not_started_to_ask_it():
    assert run(
        "import sys; from pokegan.monitor.memory import peak_gpu_memory_bytes as peak\n"
        "assert peak() is None; print(int('torch' in sys.modules))"
    ) == [0]


def test_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert peak_gpu_memory_bytes() is None
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 5 * MIB)
    assert peak_gpu_memory_bytes() == 5 * MIB
