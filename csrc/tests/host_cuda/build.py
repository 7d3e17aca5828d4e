"""Builds the CUDA kernels for the processor, as the operators of `torch.ops.pokegan_host_cuda`.

    library = build(folder)
    torch.ops.load_library(library)

A launch `kernel<<<grid, block, 0, stream>>>(arguments)` becomes a call of the scheduler beside this
file, and the most blocks of a grid become 3, so that the loops of those that go round are run with
little to do. Nothing else of a kernel is changed. It needs g++ or clang++, and no CUDA toolkit.
"""

import os
import re
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.cpp_extension import get_cxx_compiler, include_paths

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent
NAMESPACE = "pokegan_host_cuda"
_FLAGS = [
    *("-std=c++17", "-O2", "-g1", "-fPIC", "-Wno-unknown-pragmas"),
    *("-DTORCH_TARGET_VERSION=0x020b000000000000", "-DPy_LIMITED_API=0x030A0000"),
]
_REPLACED = (  # what asks a GPU
    (r"const torch::stable::accelerator::DeviceGuard guard\(.*?\);", ""),
    (r"STD_CUDA_KERNEL_LAUNCH_CHECK\(\);", ""),
    (r"TORCH_ERROR_CODE_CHECK\(\s*aoti_torch_get_current_cuda_stream\(.*?\)\);", ""),
    (r"STABLE_TORCH_LIBRARY_IMPL\(pokegan, CUDA,", f"STABLE_TORCH_LIBRARY_IMPL({NAMESPACE}, CPU,"),
    (r"STABLE_TORCH_LIBRARY\(pokegan,", f"STABLE_TORCH_LIBRARY({NAMESPACE},"),
    (r"< (65535|4096) \? ([\w.]+) : \1", r"< 3 ? \2 : 3"),
    (r'#include "\.\./', f'#include "{SOURCES}/'),
)


def build(folder: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile all of csrc/cuda/*.cu, the schemas and `faults.cu` into one library in `folder`.

    Args:
        folder: empty, for what is built.
        flags: of the compiler and the linker besides ours.

    Raises:
        RuntimeError: the compiler fails; the message has what it says.
    """
    kernels = sorted((SOURCES / "cuda").glob("*.cu"))
    sources = [*kernels, SOURCES / "ops.cpp", HERE / "faults.cu", HERE / "scheduler.cpp"]
    for header in (SOURCES / "cuda").glob("*.h"):
        (folder / header.name).write_text(rewritten(header.read_text("utf-8")), encoding="utf-8")
    with ThreadPoolExecutor() as pool:
        objects = list(pool.map(lambda source: _compiled(source, folder, flags), sources))
    library = folder / f"lib{NAMESPACE}.so"
    libraries = Path(torch.__file__).parent / "lib"
    _run("-shared", *flags, *map(str, objects), "-o", str(library), f"-L{libraries}", *_LINKED)
    return library


_LINKED = ("-lc10", "-ltorch_cpu", "-ltorch")


def rewritten(text: str) -> str:
    """Return a source of kernels as one of C++, for the headers in this folder."""
    for pattern, replacement in _REPLACED:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    while (begin := text.find("<<<")) >= 0:
        end = text.index(">>>(", begin)
        name = max(text.rfind(mark, 0, begin) for mark in ";{}")
        kernel = text[name + 1 : begin]
        before, kernel = kernel[: len(kernel) - len(kernel.lstrip())], kernel.strip()
        label = re.match(r"(?:case [\w:]+:\s*)?", kernel)
        assert label is not None
        before, kernel = before + label.group(), kernel[label.end() :]
        grid, block = _arguments(text[begin + 3 : end])[:2]
        call = f"::host_cuda::launch({grid}, {block}, {kernel}, "
        text = f"{text[: name + 1]}{before}{call}{text[end + 4 :]}"
    return text


def _compiled(source: Path, folder: Path, flags: tuple[str, ...]) -> Path:
    copy = folder / f"{source.stem}.cpp"
    copy.write_text(rewritten(source.read_text(encoding="utf-8")), encoding="utf-8")
    out = folder / f"{source.stem}.o"
    paths = [f"-isystem{path}" for path in (*include_paths(), sysconfig.get_paths()["include"])]
    _run("-c", str(copy), "-o", str(out), *_FLAGS, *flags, f"-I{HERE}", f"-I{SOURCES}", *paths)
    return out


def _arguments(text: str) -> list[str]:
    """Split at the commas that are in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _run(*arguments: str) -> None:
    own = {**os.environ, "LD_PRELOAD": ""}  # the compiler needs no sanitizer's library
    command = [get_cxx_compiler(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=own)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), tuple(sys.argv[2:])))
