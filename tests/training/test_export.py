"""What is exported makes the same pictures where pokegan is not: the card's own code is run."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pokegan import recipes
from pokegan.cli.main import main
from pokegan.config import LatentConfig, RunConfig, override
from pokegan.errors import PokeganError
from pokegan.monitor.stats import StatsWriter
from pokegan.networks.progressive import Growable
from pokegan.training.export import export_onnx, export_safetensors, write_card
from pokegan.training.generator import Generator, GeneratorSpec, load
from pokegan.training.networks import build_generator, grown_options
from pokegan.training.program import write_down
from pokegan.training.run_folder import RunFolder
from pokegan.training.session import train

ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pokegan":
            raise ImportError("a stranger has no pokegan")
sys.meta_path.insert(0, Blocked())
"""


def make(config: RunConfig, alpha: float = 1.0) -> Generator:
    """A generator of a recipe whose norms have statistics, as after training."""
    torch.manual_seed(0)
    network = build_generator(config.generator, config.latent, config.data.size)
    if alpha < 1:
        assert isinstance(network, Growable)
        network.begin_fade()
        network.set_alpha(alpha)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    spec = GeneratorSpec(
        config.generator, config.latent, config.data.size, config.recipe, 0, 1.0, alpha
    )
    return Generator(network, spec)


def code_of(folder: Path, name: str) -> str:
    """The card's own code for a file."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"## `{re.escape(name)}`\n\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def run_alone(folder: Path, name: str, latents: torch.Tensor) -> np.ndarray:
    """Run the card's code in a process without pokegan, on these latents."""
    np.save(folder / "given.npy", latents.numpy())
    given = 'numpy.load("given.npy")' if "onnx" in name else 'torch.tensor(numpy.load("given.npy"))'
    code, count = re.subn(
        r"(torch\.rand|numpy\.random)[^\n]*?(?=\})", given, code_of(folder, name), count=1
    )
    assert count == 1
    code = f"{ALONE}import numpy\n{code}\nnumpy.save('made.npy', numpy.asarray(pictures))\n"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=300)
    return np.load(folder / "made.npy")


def config_of(name: str) -> RunConfig:
    config = recipes.get(name)
    return grown_options(config) if name == "progan" else config


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_the_program_of_every_recipe_is_its_network(name: str) -> None:
    generator = make(config_of(name))
    latents = generator.latents(3, seed=2)
    program = write_down(generator.network, latents[:2], "latents")
    named = {**program.weights, "latents": latents}

    def value(argument: object) -> object:
        if isinstance(argument, list):
            return [value(one) for one in argument]
        return named.get(argument, argument) if isinstance(argument, str) else argument

    for step in program.steps:
        operator = torch.ops
        for part in step["operator"].split("."):
            operator = getattr(operator, part)
        named[step["result"]] = operator(*value(step["arguments"]), **step.get("options", {}))
    with torch.no_grad():
        assert torch.equal(named[program.result], generator.network(latents))


@pytest.mark.parametrize(
    ("name", "alpha"), [("hpml", 1.0), ("dcgan-fc", 1.0), ("progan", 0.4)], ids=str
)
def test_a_stranger_gets_the_same_pictures(tmp_path: Path, name: str, alpha: float) -> None:
    generator = make(config_of(name), alpha)
    export_safetensors(generator, tmp_path)
    write_card(generator, tmp_path, None, {})
    latents = generator.latents(5, seed=1)
    with torch.no_grad():
        expected = generator.network(latents).numpy()
    found = run_alone(tmp_path, "generator.safetensors", latents)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (load(tmp_path / "generator.safetensors").sample(5) == generator.sample(5)).all()


def test_attention_is_exported_too(tmp_path: Path) -> None:
    path = {"generator.options": {"channels": [32, 16], "attention": 8}}
    config = override(recipes.get("hpml"), path | {"data.size": 16})
    generator = make(config)
    export_safetensors(generator, tmp_path)
    write_card(generator, tmp_path, None, {})
    latents = generator.latents(3)
    with torch.no_grad():
        expected = generator.network(latents).numpy()
    found = run_alone(tmp_path, "generator.safetensors", latents)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["hpml", "gan-pokemon-resnet", "progan"])
def test_onnx_makes_the_same_pictures(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxruntime", reason="needs pokegan[export]")
    pytest.importorskip("onnxscript", reason="needs pokegan[export]")
    generator = make(config_of(name))
    export_onnx(generator, tmp_path)
    write_card(generator, tmp_path, None, {})
    latents = generator.latents(7, seed=5)
    with torch.no_grad():
        expected = generator.network(latents).numpy()
    found = run_alone(tmp_path, "generator.onnx", latents)
    assert np.abs(found - expected).max() <= 1e-4


def test_the_command_exports_a_run_with_a_card(
    tmp_path: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny, tmp_path / "run")
    out = tmp_path / "mine"
    assert main(["export", str(run.folder), "--out", str(out)]) == 0
    told = capsys.readouterr().out.split()
    assert told == [str(out / "generator.safetensors"), str(out / "README.md")]
    assert {item.name for item in out.iterdir()} == {
        *("generator.safetensors", "generator.json", "README.md", "samples.png")
    }
    exported, own = load_file(out / "generator.safetensors"), load_file(run.weights)
    assert all(torch.equal(exported[name], own[name]) for name in own)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"| batch | {tiny.training.batch} |" in card
    assert str(tmp_path) not in card  # no folder of whoever trained it


def test_a_metric_that_is_not_finite_is_told_in_the_card(tmp_path: Path, tiny: RunConfig) -> None:
    run = train(tiny, tmp_path / "run")
    with StatsWriter(RunFolder(run.folder).stats, resume_step=6) as stats:
        stats.write(6, {"metrics/fid": float("nan"), "metrics/kid": 1.5})
    assert main(["export", str(run.folder), "--out", str(tmp_path / "mine")]) == 0
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "| metrics/fid | not finite |" in card
    assert "| metrics/kid | 1.5 |" in card


@pytest.mark.parametrize(
    ("source", "out"), [("run", "run"), ("run/generator.safetensors", "run"), ("run", "a file")]
)
def test_where_it_cannot_go(
    tmp_path: Path, tiny: RunConfig, source: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny, tmp_path / "run")
    before = {item: item.stat().st_mtime_ns for item in run.folder.rglob("*")}
    place = run.weights if out == "a file" else tmp_path / out
    capsys.readouterr()
    assert main(["export", str(tmp_path / source), "--out", str(place)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert {item: item.stat().st_mtime_ns for item in run.folder.rglob("*")} == before


def test_without_onnx_nothing_is_written(
    tmp_path: Path, tiny: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tiny, tmp_path / "run")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    formats = ["--format", "safetensors", "--format", "onnx"]
    assert main(["export", str(run.folder), *formats, "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_uniform_latents_are_told_in_the_card(tmp_path: Path) -> None:
    generator = make(
        override(recipes.get("hpml"), {"latent.distribution": "uniform", "data.size": 64})
    )
    assert generator.spec.latent == LatentConfig(size=16, distribution="uniform")
    export_safetensors(generator, tmp_path)
    write_card(generator, tmp_path, None, {})
    assert "torch.rand(16, 16) * 2 - 1" in code_of(tmp_path, "generator.safetensors")


def test_what_is_no_operator_is_refused() -> None:
    class Odd(torch.nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return given.to(torch.float64)

    with pytest.raises(PokeganError, match="cannot be written down"):
        write_down(Odd().eval(), torch.zeros(2, 3), "latents")
