"""A trained generator on its own: what a run leaves, and what makes new creatures."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

import pokegan
from pokegan.config import LatentConfig, NetworkConfig
from pokegan.errors import CheckpointError, ConfigError
from pokegan.files import write_bytes, write_text
from pokegan.networks.progressive import Growable, without_fade
from pokegan.ops.random import Stream
from pokegan.render.pictures import to_uint8
from pokegan.tf32 import exact_float32
from pokegan.training import checkpoint
from pokegan.training.checkpoint import available
from pokegan.training.latents import draw, toward_mean, truncate
from pokegan.training.networks import build_generator
from pokegan.training.run_folder import RunFolder, find

FORMAT = 1


@dataclass(frozen=True)
class GeneratorSpec:
    """What a stranger needs to load the weights: `generator.json`, also inside the weight file.

    `alpha` is how far the newest layers of a growing network have faded in; below 1 the weights
    hold those of the fading ones too.
    """

    network: NetworkConfig
    latent: LatentConfig
    size: int
    recipe: str
    seed: int
    kimg: float
    alpha: float = 1.0

    def to_json(self) -> str:
        """Return the spec as JSON text."""
        facts = {
            "format": FORMAT,
            "pokegan": pokegan.__version__,
            "output": "[N, 3, size, size], RGB, -1 is black and 1 is white",
            **dataclasses.asdict(self),
        }
        return json.dumps(facts, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "GeneratorSpec":
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: it is damaged or of another format.
        """
        try:
            facts = json.loads(text)
            if facts["format"] != FORMAT:
                raise CheckpointError(f"generator of format {facts['format']}, not {FORMAT}")
            return cls(
                NetworkConfig(**facts["network"]),
                LatentConfig(**facts["latent"]),
                int(facts["size"]),
                str(facts["recipe"]),
                int(facts["seed"]),
                float(facts["kimg"]),
                float(facts.get("alpha", 1.0)),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"damaged generator description ({error})") from None


class Generator:
    """Makes pictures from seeds. Sample i of a seed is the same picture in any batch.

    The network always runs on whole chunks of `CHUNK` latents in float32, filled up with zeros, so
    that neither `n` nor what is drawn beside a sample can change one bit of it.
    """

    CHUNK = 16

    def __init__(self, network: nn.Module, spec: GeneratorSpec, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device, torch.float32).eval().requires_grad_(False)
        self.spec = spec

    def latents(
        self,
        n: int,
        seed: int = 0,
        truncation: float | None = None,
        first: int = 0,
        psi: float = 1.0,
    ) -> Tensor:
        """Return [n, latent size] float32: those of samples first, ..., first + n - 1.

        Raises:
            ConfigError: as `sample`.
        """
        _check_range(n, seed, first)
        samples = torch.arange(first, first + n, device=self.device)
        latents = draw(self.spec.latent, seed, Stream.SAMPLE, 0, samples)
        if truncation is not None:
            latents = truncate(latents, self.spec.latent, seed, samples, truncation)
        return toward_mean(latents, psi)

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Return the pictures [N, size, size, 3] uint8 of latents [N, latent size]."""
        chunks = []
        for chunk in torch.split(latents.to(self.device, torch.float32), self.CHUNK):
            whole = torch.nn.functional.pad(chunk, (0, 0, 0, self.CHUNK - len(chunk)))
            with torch.no_grad(), exact_float32():
                chunks.append(to_uint8(self.network(whole))[: len(chunk)])
        return np.concatenate(chunks)

    def sample(
        self,
        n: int,
        seed: int = 0,
        truncation: float | None = None,
        first: int = 0,
        psi: float = 1.0,
    ) -> NDArray[np.uint8]:
        """Return [n, size, size, 3] uint8: samples first, ..., first + n - 1 of `seed`.

        Args:
            n: how many.
            seed: in [0, 2^63).
            truncation: latents stay in [-truncation, truncation]; None for all of them.
            first: where to start.
            psi: then scale the latents toward their mean by this, 0 to 1.

        Raises:
            ConfigError: `n`, `seed`, `truncation`, `first` or `psi` is out of range.
        """
        return np.stack([picture for _, picture in self.stream(n, seed, truncation, first, psi)])

    def stream(
        self,
        n: int,
        seed: int = 0,
        truncation: float | None = None,
        first: int = 0,
        psi: float = 1.0,
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (number, [size, size, 3] uint8) of each sample of `sample`, a chunk in memory."""
        _check_range(n, seed, first)
        for start in range(first, first + n, self.CHUNK):
            count = min(self.CHUNK, first + n - start)
            latents = self.latents(count, seed, truncation, start, psi)
            yield from enumerate(self.decode(latents), start=start)

    def state(self) -> dict[str, Tensor]:
        """Return the weights; those of layers that have faded out are left out."""
        faded = isinstance(self.network, Growable) and self.spec.alpha == 1
        tensors = self.network.state_dict()
        return without_fade(tensors) if faded else tensors

    def save(self, path: Path) -> None:
        """Write the weights to `path` (.safetensors) and the spec beside it (.json)."""
        tensors = {name: value.contiguous() for name, value in self.state().items()}
        write_bytes(path, serialize(tensors, {"pokegan": self.spec.to_json()}))
        write_text(path.with_suffix(".json"), self.spec.to_json())


def _check_range(n: int, seed: int, first: int) -> None:
    if n < 1 or first < 0 or first + n > 2**32:
        raise ConfigError(
            f"-n {n} --first {first}: at least 1 picture is wanted, numbered 0 to 2^32 - 1"
        )
    if not 0 <= seed < 2**63:
        raise ConfigError(f"--seed {seed}: a number in [0, 2^63) is wanted")


def load(
    path: str | Path, device: str = "cpu", checkpoint: str | None = None, average: bool = True
) -> Generator:
    """Return the generator of a run folder, a checkpoint (.pt) or a weight file (.safetensors).

    Args:
        path: of any of the three.
        device: where it runs.
        checkpoint: of a run folder, the step of one, or `best` by its metric; the last weights if
            None.
        average: the moving average; else the weights as they are trained, which only checkpoints
            hold (of a run folder the newest).

    Raises:
        CheckpointError: there is nothing of the kind at `path`, or it is damaged.
        ConfigError: `checkpoint` or `average` mean nothing for what is at `path`.
    """
    path = Path(path)
    if path.is_dir():
        path = _of_run(find(path), checkpoint, average)
    elif not path.exists():
        raise CheckpointError(f"{path}: there is no such run, checkpoint or weight file")
    elif checkpoint is not None:
        raise ConfigError(f"--checkpoint {checkpoint}: {path} is a file; give its run folder")
    if path.suffix != ".safetensors":
        return _from_checkpoint(path, device, average)
    if not average:
        raise ConfigError(f"--no-ema: {path} holds the moving average alone; give a checkpoint")
    return _from_safetensors(path, device)


def _of_run(folder: RunFolder, which: str | None, average: bool) -> Path:
    """Return the file of a run's generator."""
    folder.read_config()
    if which == "best":
        path = folder.best_weights if average else folder.best
        if not path.exists():
            raise CheckpointError(
                f"{folder.path}: no best checkpoint; train with --metrics-every to have one"
            )
        return path
    steps = {str(int(path.stem.split("-")[1])): path for path in available(folder.checkpoints)}
    if which is not None:
        if which not in steps:
            kept = ", ".join(steps) or "none"
            raise CheckpointError(f"--checkpoint {which}: of {folder.path} there are: {kept}")
        return steps[which]
    if not average and steps:
        return available(folder.checkpoints)[-1]
    if not folder.weights.exists():
        raise CheckpointError(f"{folder.path}: no generator.safetensors yet; train it for longer")
    return folder.weights


def _from_safetensors(path: Path, device: str) -> Generator:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("pokegan")
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged weight file ({error})") from None
    if text is None:
        raise CheckpointError(f"{path}: not a generator of pokegan (no description inside)")
    return _assemble(path, GeneratorSpec.from_json(text), tensors, device)


def _from_checkpoint(path: Path, device: str, average: bool) -> Generator:
    state = checkpoint.load(path)
    if "generator_spec" not in state or "ema" not in state:
        raise CheckpointError(f"{path}: this checkpoint holds no generator")
    weights = state["ema"] if average else state["networks"]["generator"]
    return _assemble(path, GeneratorSpec.from_json(state["generator_spec"]), weights, device)


def _assemble(path: Path, spec: GeneratorSpec, tensors: dict[str, Any], device: str) -> Generator:
    network = build_generator(spec.network, spec.latent, spec.size)
    if isinstance(network, Growable) and spec.alpha < 1:
        network.begin_fade()
    elif isinstance(network, Growable):
        tensors = without_fade(tensors)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: weights do not fit the network ({str(error).splitlines()[-1].strip()})"
        ) from None
    return Generator(network, spec, device)
