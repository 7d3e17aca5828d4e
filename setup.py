"""Builds the two extension modules; everything else about the package is in pyproject.toml.

`_C` holds the schemas and the CPU kernels, `_C_cuda` only CUDA kernels, so that a CPU-only torch
can import the first. Both use the stable ABI of torch 2.11 and the limited API of Python 3.10.
An install without a compiler succeeds: `pokegan doctor` then tells what is missing.

Environment: FORCE_CUDA=1 makes a missing CUDA toolkit an error, FORCE_CUDA=0 builds no CUDA;
POKEGAN_SKIP_BUILD=1 skips both; POKEGAN_WERROR=1 turns warnings into errors;
POKEGAN_REQUIRE_BUILD=1 makes a failed build an error; TORCH_CUDA_ARCH_LIST as in torch.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
TORCH_TARGET = "0x020b000000000000"  # torch 2.11
PYTHON_TARGET = "0x030A0000"  # Python 3.10
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"


def find_cuda_home() -> str | None:
    """The root of a real CUDA toolkit; an nvcc on PATH may be a wrapper that stands elsewhere."""
    nvcc = shutil.which("nvcc")
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    candidates += [str(Path(nvcc).resolve().parent.parent)] if nvcc else []
    candidates += ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda"]
    for candidate in candidates:
        root = Path(candidate) if candidate else None
        if root and (root / "bin/nvcc").exists() and (root / "include/cuda_runtime.h").exists():
            return str(root)
    return None


CUDA_HOME = find_cuda_home()
if CUDA_HOME:
    os.environ["CUDA_HOME"] = CUDA_HOME  # read by torch when it is imported

import torch  # noqa: E402  (after CUDA_HOME is set)
from torch.utils import cpp_extension  # noqa: E402
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # noqa: E402


def why_no_cuda() -> str | None:
    """The reason why the CUDA module is not built, or None when it is."""
    force = os.environ.get("FORCE_CUDA", "")
    if force == "0":
        return "FORCE_CUDA=0"
    if torch.version.cuda is None:
        return "this torch has no CUDA"
    if CUDA_HOME is None:
        return "no CUDA toolkit found (set CUDA_HOME to its root)"
    return None


def extensions() -> list:
    """Return the modules to build: `_C`, and `_C_cuda` where a toolkit and a torch fit."""
    macros = [("TORCH_TARGET_VERSION", TORCH_TARGET), ("Py_LIMITED_API", PYTHON_TARGET)]
    warnings = ["-Wall", "-Wextra"] + ["-Werror"] * (os.environ.get("POKEGAN_WERROR") == "1")
    headers = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*.h"))]
    # Nobody reads errno or traps: without them roots and choices are vectorised, to the same bits.
    fast = ["-fno-math-errno", "-fno-trapping-math"]
    cxx = ["-O3", "-std=c++17", "-fvisibility=hidden", *fast, *warnings]
    modules = [
        CppExtension(
            "pokegan._C",
            sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("*.cpp"))
            + sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc/cpu").glob("*.cpp")),
            define_macros=macros,
            depends=headers,
            extra_compile_args={"cxx": cxx},
            py_limited_api=True,
        )
    ]
    cuda_sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc/cuda").glob("*.c*"))
    if why_no_cuda() is None:
        if not cuda_sources:
            sys.exit("pokegan: csrc/cuda is empty: this source tree is not complete")
        if not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.is_available():
            os.environ["TORCH_CUDA_ARCH_LIST"] = DEFAULT_ARCHITECTURES
        modules.append(
            CUDAExtension(
                "pokegan._C_cuda",
                cuda_sources,
                define_macros=[*macros, ("USE_CUDA", None)],
                depends=headers,
                extra_compile_args={
                    "cxx": cxx,
                    "nvcc": ["-O3", "-std=c++17", "-Xptxas", "-v", "-Xcompiler", "-Wall,-Wextra"]
                    + ["-Werror", "all-warnings"] * (os.environ.get("POKEGAN_WERROR") == "1"),
                },
                py_limited_api=True,
            )
        )
    return modules


class OptionalBuild(BuildExtension):
    """Builds each module on its own and writes down what became of it."""

    def run(self) -> None:
        """Build, then leave the outcome beside the modules."""
        self.outcome = {"_C": "not built", "_C_cuda": f"not built: {why_no_cuda()}"}
        super().run()  # sets `inplace` aside while it works
        self._write()
        for name, state in self.outcome.items():  # a module of an earlier build is not this one
            for stale in (self._folder() / "pokegan").glob(f"{name}.*"):
                if state != "built" and stale.suffix in (".so", ".pyd"):
                    stale.unlink()

    def build_extensions(self) -> None:
        """Build what can be built; go on after what cannot."""
        outcome = self.outcome
        built, wanted = [], self.extensions
        for extension in wanted:
            name = extension.name.rpartition(".")[2]
            try:
                self._build_one(extension)
                outcome[name] = "built"
                built.append(extension)
            except Exception as error:  # whatever a toolchain can fail with
                outcome[name] = f"not built: {_one_line(error)}"
                print(f"pokegan: {extension.name} was not built: {error}", file=sys.stderr)
                if os.environ.get("POKEGAN_REQUIRE_BUILD") == "1":
                    raise
        self.extensions = built

    def _build_one(self, extension) -> None:
        if os.environ.get("POKEGAN_SKIP_BUILD") == "1":
            raise RuntimeError("POKEGAN_SKIP_BUILD=1")
        self.extensions = [extension]
        super().build_extensions()

    def _folder(self) -> Path:
        beside = self.inplace or getattr(self, "editable_mode", False)
        return ROOT if beside else Path(self.build_lib)

    def _write(self) -> None:
        target = self._folder() / "pokegan/_build.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        facts = {"modules": self.outcome, "torch": torch.__version__, "cuda_home": CUDA_HOME}
        if self.outcome["_C_cuda"] == "built":
            facts["cuda_targets"] = cuda_targets()
        target.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def cuda_targets() -> list[str]:
    """What nvcc makes for TORCH_CUDA_ARCH_LIST or this machine: sm_80, or compute_90 for PTX."""
    flags = getattr(cpp_extension, "_get_cuda_arch_flags", list)()  # private: none if it goes
    code = " ".join(flag.rpartition("code=")[2] for flag in flags)  # "-gencode=" has one, too
    return sorted(set(re.findall(r"(?:sm|compute)_\d+[af]?", code)))


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


if os.environ.get("FORCE_CUDA") == "1" and why_no_cuda() is not None:
    sys.exit(f"pokegan: FORCE_CUDA=1, but {why_no_cuda()}")

setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": OptionalBuild},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
