"""A generator for those who do not have pokegan: weights with a program, ONNX, a model card."""

import copy
import importlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as serialize

import pokegan
from pokegan.config import RunConfig
from pokegan.errors import ConfigError, PokeganError
from pokegan.files import atomic_path, write_bytes, write_text
from pokegan.render.pictures import save_grid
from pokegan.training.generator import Generator, GeneratorSpec
from pokegan.training.program import EXAMPLES, trace, write_down

INPUT, OUTPUT = "latents", "pictures"
WEIGHTS = "generator.safetensors"
DESCRIPTION = "generator.json"
ONNX = "generator.onnx"
CARD = "README.md"
SAMPLES = "samples.png"
TOLERANCE = 1e-4  # of ONNX Runtime against PyTorch, in the pictures' range of 2

Measured = Mapping[str, float | None]

LOAD = f"""\
import functools, json, torch
from safetensors.torch import load_file

spec = json.load(open("{DESCRIPTION}"))
named = load_file("{WEIGHTS}") | {{"{INPUT}": LATENTS}}
def value(a):
    if isinstance(a, list): return [value(x) for x in a]
    return named.get(a, a) if isinstance(a, str) else a
for step in spec["program"]:
    operator = functools.reduce(getattr, step["operator"].split("."), torch.ops)
    options = {{key: value(x) for key, x in step.get("options", {{}}).items()}}
    named[step["result"]] = operator(*value(step["arguments"]), **options)
pictures = named[spec["pictures"]]  # [16, 3, SIZE, SIZE], RGB, -1 is black and 1 is white
"""
LOAD_ONNX = f"""\
import numpy, onnxruntime

session = onnxruntime.InferenceSession("{ONNX}")
pictures = session.run(None, {{"{INPUT}": LATENTS}})[0]
"""


def export_safetensors(generator: Generator, folder: Path) -> Path:
    """Write the weights and their description with the program that uses them; return the first.

    `pokegan.load` reads the weights too.

    Raises:
        PokeganError: the network cannot be written down, or the program computes something else.
    """
    network = copy.deepcopy(generator.network).cpu()  # the generator stays where it is
    latents = generator.latents(4).cpu()
    program = write_down(network, latents[:EXAMPLES], INPUT)
    facts = {
        **json.loads(generator.spec.to_json()),
        "input": {"name": INPUT, "shape": ["N", generator.spec.latent.size]},
        "program": program.steps,
        "pictures": program.result,
    }
    path = folder / WEIGHTS
    tensors = {name: value.contiguous() for name, value in generator.state().items()}
    write_bytes(path, serialize(tensors | program.weights, {"pokegan": generator.spec.to_json()}))
    write_text(folder / DESCRIPTION, json.dumps(facts, indent=1) + "\n")
    return path


def check_onnx() -> Any:
    """Return the module of ONNX Runtime.

    Raises:
        ConfigError: what writes or checks ONNX is not installed.
    """
    try:
        import onnxruntime

        importlib.import_module("onnxscript")  # torch.onnx needs it and says so less clearly
    except ImportError:
        raise ConfigError("--format onnx needs pip install 'pokegan[export]'") from None
    return onnxruntime


def export_onnx(generator: Generator, folder: Path) -> Path:
    """Write the network as ONNX, input `latents` [N, size], output `pictures`; return the path.

    Raises:
        ConfigError: ONNX is not installed.
        PokeganError: ONNX Runtime makes other pictures of it than PyTorch.
    """
    onnxruntime = check_onnx()
    network = copy.deepcopy(generator.network).cpu()  # the generator stays where it is
    latents = generator.latents(5).cpu()
    path = folder / ONNX
    with atomic_path(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts of torch.onnx about others of its parts
            made = torch.onnx.export(
                trace(network, latents[:EXAMPLES]),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
        assert made is not None
        made.model.metadata_props["pokegan"] = generator.spec.to_json()
        made.save(str(temporary))
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {INPUT: latents.numpy()})
        with torch.no_grad():
            off = float(np.abs(found - network(latents).numpy()).max())
        if not off <= TOLERANCE:
            raise PokeganError(
                f"ONNX Runtime's pictures differ by {off:.2g} from PyTorch's; more than "
                f"{TOLERANCE:g} is not written"
            )
    return path


def write_card(
    generator: Generator, folder: Path, config: RunConfig | None, measured: Measured
) -> Path:
    """Write what a stranger wants to know beside what was exported, with samples; return the path.

    Args:
        generator: what was exported.
        folder: where.
        config: the settings of its run, where they are known.
        measured: the newest metrics of the run, by name; None where one is not finite.
    """
    spec = generator.spec
    save_grid(generator.sample(32), folder / SAMPLES, columns=8)
    path = folder / CARD
    write_text(path, "\n".join(_card(generator, spec, folder, config, measured)) + "\n")
    return path


def _card(
    generator: Generator,
    spec: GeneratorSpec,
    folder: Path,
    config: RunConfig | None,
    measured: Measured,
) -> list[str]:
    parameters = sum(parameter.numel() for parameter in generator.network.parameters())
    facts: dict[str, Any] = {
        "recipe": f"`{spec.recipe}` of pokegan {pokegan.__version__}",
        "network": f"`{spec.network.name}`, {parameters:,} parameters",
        "latents": f"{spec.latent.size} numbers, {_distribution(spec)}",
        "pictures": f"{spec.size} x {spec.size} px, RGB",
        "training": f"{spec.kimg:,.1f} thousand pictures shown, seed {spec.seed}",
    }
    if config is not None:
        facts["pictures trained on"] = f"`{Path(config.data.source).name}`"
        facts["loss"] = f"`{config.objective.loss}`"
        facts["batch"] = config.training.batch
    for name, value in measured.items():
        facts[name] = "not finite" if value is None else f"{value:.4g}"
    lines = [
        f"# A generator of {spec.size} px pictures ({spec.recipe})",
        "",
        f"![samples, not picked: seed 0, numbers 0 to 31]({SAMPLES})",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
    ]
    for name, code in ((WEIGHTS, LOAD), (ONNX, LOAD_ONNX)):
        if (folder / name).exists():
            lines += ["", f"## `{name}`", "", "```python", _filled(code, spec, name), "```"]
    lines += [
        "",
        "## Limits",
        "",
        "Made to draw creatures like those that it was trained on, and nothing else. A generator",
        "trained on few pictures can repeat some of them: compare before you publish. The rights",
        "of those who drew the pictures that it was trained on are not changed by training.",
    ]
    if config is not None:
        text = json.dumps(_settings(config), indent=1)
        lines += ["", "## All settings", "", "```json", text, "```"]
    return lines


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return all settings, without the folders of whoever trained it."""
    found: dict[str, Any] = json.loads(config.to_json())
    found["data"]["source"] = Path(config.data.source).name
    return found


def _distribution(spec: GeneratorSpec) -> str:
    return "normal, N(0, 1)" if spec.latent.distribution == "normal" else "uniform in [-1, 1)"


def _filled(code: str, spec: GeneratorSpec, name: str) -> str:
    """Return `code` with this generator's latents and size in it."""
    size, uniform = spec.latent.size, spec.latent.distribution == "uniform"
    torch_code = f"torch.rand(16, {size}) * 2 - 1" if uniform else f"torch.randn(16, {size})"
    numpy_code = (
        f"numpy.random.uniform(-1, 1, (16, {size})).astype(numpy.float32)"
        if uniform
        else f"numpy.random.randn(16, {size}).astype(numpy.float32)"
    )
    latents = numpy_code if name == ONNX else torch_code
    return code.replace("LATENTS", latents).replace("SIZE", str(spec.size)).rstrip()
