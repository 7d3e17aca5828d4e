"""Prints the registers, spills and shared memory of every CUDA kernel as a Markdown table.

    python csrc/tests/ptxas_report.py            compiles csrc/cuda for sm_80 and sm_90
    python csrc/tests/ptxas_report.py LOG        reads the output of a build with `-Xptxas -v`
    python csrc/tests/ptxas_report.py --write    puts the table into docs/kernels.md

Needs nvcc and cu++filt or c++filt; no GPU. Ends with 1 when a kernel spills.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/kernels.md"
MARKS = ("<!-- ptxas begin -->", "<!-- ptxas end -->")
ARCHITECTURES = ("80", "90")


class Kernel(NamedTuple):
    """What ptxas says of one kernel on one architecture; memory in bytes."""

    name: str
    architecture: str
    registers: int
    spills: int
    shared: int


def build_output() -> str:
    """Compile every CUDA source and return what ptxas says."""
    import torch.utils.cpp_extension as extension

    nvcc = shutil.which("nvcc", path=f"{extension.CUDA_HOME or ''}/bin") or shutil.which("nvcc")
    if nvcc is None:
        sys.exit("ptxas_report: no nvcc found: set CUDA_HOME")
    includes = [f"-I{path}" for path in extension.include_paths(device_type="cuda")]
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    macros = ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    flags = ["-O3", "-std=c++17", "-Xptxas", "-v", "-c", "-o"]
    said = ""
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((ROOT / "csrc/cuda").glob("*.cu")):
            command = [nvcc, *flags, f"{folder}/{source.stem}.o", str(source)]
            done = subprocess.run(
                [*command, *targets, *macros, *includes], capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(done.stderr)
            said += done.stdout + done.stderr
    return said


def kernels(output: str) -> list[Kernel]:
    """Read the kernels out of a build's output, each once an architecture."""
    found: dict[tuple[str, str], Kernel] = {}
    entry, spills = None, 0
    for line in output.splitlines():
        if start := re.search(r"Compiling entry function '(\w+)' for 'sm_(\d+)a?'", line):
            entry, spills = start.groups(), 0
        elif spilled := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spills = int(spilled[1]) + int(spilled[2])
        elif entry and (used := re.search(r"Used (\d+) registers", line)):
            shared = re.search(r"(\d+) bytes smem", line)
            found[entry] = Kernel(*entry, int(used[1]), spills, int(shared[1]) if shared else 0)
            entry = None
    return list(found.values())


def demangled(names: list[str]) -> list[str]:
    """Return the names as they are in the source, template arguments kept, parameters not."""
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None:
        return names
    plain = subprocess.run(
        [tool], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [_short(name) for name in plain]


def _short(name: str) -> str:
    name = name.replace("(anonymous namespace)", "")
    name = re.sub(r"\((bool|int|unsigned int|[\w:]+::\w+)\)|^void ", "", name)
    name = re.sub(r"[\w:]*::", "", name)
    return re.sub(r">?\(.*", lambda end: ">" if end[0].startswith(">") else "", name)


def table(found: list[Kernel]) -> str:
    """Return Markdown with one row a kernel, its figures for each architecture side by side."""
    rows: dict[str, dict[str, Kernel]] = {}
    for name, kernel in zip(demangled([kernel.name for kernel in found]), found, strict=True):
        rows.setdefault(name, {})[kernel.architecture] = kernel
    seen = sorted({kernel.architecture for kernel in found})
    lines = [
        "| kernel | " + " | ".join(f"registers, sm_{a}" for a in seen) + " | spills | shared |"
    ]
    lines.append("|---|" + "---:|" * (len(seen) + 2))
    for name, by_architecture in sorted(rows.items()):
        registers = [
            str(by_architecture[a].registers) if a in by_architecture else "" for a in seen
        ]
        spills = max(kernel.spills for kernel in by_architecture.values())
        shared = max(kernel.shared for kernel in by_architecture.values())
        lines.append(f"| `{name}` | {' | '.join(registers)} | {spills} | {shared} |")
    return "\n".join(lines)


def write(text: str) -> None:
    """Put the table between its marks in the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    PAGE.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> int:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", nargs="?", type=Path, help="output of a build with -Xptxas -v")
    parser.add_argument("--write", action="store_true", help="put the table into docs/kernels.md")
    arguments = parser.parse_args()
    output = arguments.log.read_text(encoding="utf-8") if arguments.log else build_output()
    found = kernels(output)
    if not found:
        sys.exit("ptxas_report: no kernel in the output: was it built with -Xptxas -v?")
    write(table(found)) if arguments.write else print(table(found))
    return int(any(kernel.spills for kernel in found))


if __name__ == "__main__":
    sys.exit(main())
