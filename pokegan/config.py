"""`RunConfig` and its parts: everything that makes a run, and nothing else.

Frozen dataclasses, validated once, JSON there and back without loss. A field that a user can set
carries its command-line flag, so that messages and `--help` come from here alone.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pokegan.errors import ConfigError

FORMAT = 1
RESUMABLE = (  # what may differ when a run goes on
    "length.epochs",
    "length.kimg",
    "length.steps",
    "data.source",
    "training.device",
    "output.sample_every",
    "output.log_every",
    "output.checkpoint_every",
    "output.keep_checkpoints",
)


def setting(
    default: Any,
    flag: str,
    help: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Declare a field that the command line can set.

    `choices`, `minimum` and `maximum` (both inclusive) are checked by `RunConfig.validated`.
    """
    metadata = {
        "flag": flag,
        "help": help,
        "unit": unit,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they are prepared."""

    source: str = setting(
        "demo", "--data", "a folder, archive or packed set, or: demo, pokeapi, kaggle:OWNER/NAME"
    )
    size: int = setting(64, "--size", "side of the square pictures", unit="px", minimum=8)
    background: str = setting(
        "white", "--background", "what transparency becomes: white, black or #rrggbb"
    )
    fit: str = setting("pad", "--fit", "how a picture becomes square", choices=("pad", "crop"))
    keep_duplicates: bool = setting(False, "--keep-duplicates", "keep exact and near duplicates")
    flip: bool = setting(True, "--flip", "mirror half of the pictures left to right")
    shift: int = setting(
        0,
        "--shift",
        "move pictures by up to this much, filled with background",
        unit="px",
        minimum=0,
    )


@dataclass(frozen=True)
class LatentConfig:
    """The latent vectors that the generator is fed."""

    size: int = setting(64, "--latent-size", "length of a latent vector", minimum=1, maximum=4096)
    distribution: str = setting(
        "normal", "--latent", "distribution of latents", choices=("normal", "uniform")
    )


@dataclass(frozen=True)
class NetworkConfig:
    """A network by its name in `pokegan.training.build`, and its constructor's options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is optimised."""

    loss: str = setting(
        "bce", "--loss", "adversarial loss", choices=("bce", "lsgan", "hinge", "rgan", "ragan")
    )
    label_smoothing: float = setting(
        0.0,
        "--label-smoothing",
        "a real picture's target is 1 minus this in the discriminator's loss",
        minimum=0.0,
        maximum=0.5,
    )
    smooth_fakes: bool = setting(
        False, "--smooth-fakes", "a fake's target is the label smoothing too, not 0"
    )
    label_noise: float = setting(
        0.0,
        "--label-noise",
        "every target moves by up to half of this, for each picture anew",
        minimum=0.0,
        maximum=1.0,
    )
    label_swap: float = setting(
        0.0,
        "--label-swap",
        "probability that a picture's target t becomes 1 - t",
        minimum=0.0,
        maximum=1.0,
    )
    real_labels: str = setting(
        "", "--real-labels", "LOW:HIGH, draw real targets from there, not by smoothing and noise"
    )
    fake_labels: str = setting(
        "", "--fake-labels", "LOW:HIGH, draw fake targets from there, not by smoothing and noise"
    )
    share_fakes: bool = setting(
        False, "--share-fakes", "the same fakes serve the discriminator and the generator"
    )
    discriminator_steps: int = setting(
        1,
        "--discriminator-steps",
        "discriminator updates a generator update",
        minimum=1,
        maximum=100,
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam's settings for one network."""

    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True)
class LengthConfig:
    """How long a run is, in exactly one of three units; the other two follow from it."""

    epochs: float | None = setting(
        None, "--epochs", "passes over the pictures", unit="epochs", minimum=0
    )
    kimg: float | None = setting(
        None, "--kimg", "thousands of pictures seen", unit="kimg", minimum=0
    )
    steps: int | None = setting(None, "--steps", "training steps", unit="steps", minimum=0)

    def total_steps(self, count: int, batch: int) -> int:
        """Return the run's steps for `count` pictures and a global batch of `batch`."""
        if self.steps is not None:
            return self.steps
        images = self.kimg * 1000 if self.kimg is not None else (self.epochs or 0) * count
        return -(-round(images) // batch)


@dataclass(frozen=True)
class TrainingConfig:
    """How it is optimised."""

    batch: int = setting(64, "--batch", "global batch", unit="images", minimum=2, maximum=65536)
    seed: int = setting(0, "--seed", "seed of everything random", minimum=0, maximum=2**63 - 1)
    device: str = setting("auto", "--device", "where to train", choices=("auto", "cpu", "cuda"))
    precision: str = setting(
        "auto",
        "--precision",
        "arithmetic of the networks; auto: bf16 where the processor multiplies it fast",
        choices=("auto", "fp32", "bf16"),
    )
    ema_kimg: float = setting(
        0.0,
        "--ema-kimg",
        "half-life of the generator's moving average; 0 turns it off",
        unit="kimg",
        minimum=0.0,
    )


@dataclass(frozen=True)
class OutputConfig:
    """What a run writes, and how often."""

    samples: int = setting(
        64, "--samples", "pictures in a sample grid", unit="images", minimum=1, maximum=1024
    )
    sample_every: int = setting(
        1,
        "--sample-every",
        "a sample grid every so many epochs (never more often than every 10 steps)",
        unit="epochs",
        minimum=1,
    )
    log_every: int = setting(
        20, "--log-every", "a line in stats.jsonl every so many steps", unit="steps", minimum=1
    )
    checkpoint_every: int = setting(
        1000, "--checkpoint-every", "a checkpoint every so many steps", unit="steps", minimum=1
    )
    keep_checkpoints: int = setting(
        3, "--keep-checkpoints", "the newest so many are kept", minimum=1
    )
    note: str = setting("", "--note", "a word for the run folder's name")


@dataclass(frozen=True)
class RunConfig:
    """A complete run. Recipes return it; the command line overrides parts of it."""

    recipe: str
    generator: NetworkConfig
    discriminator: NetworkConfig
    data: DataConfig = field(default_factory=DataConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    generator_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    length: LengthConfig = field(default_factory=lambda: LengthConfig(kimg=100.0))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def validated(self) -> "RunConfig":
        """Return self when every setting holds.

        Raises:
            ConfigError: one line that names the flag, the value and what would be right.
        """
        for entry in settings(self):
            entry.check(entry.value_in(self))
        for name in ("generator", "discriminator"):
            _check_optimizer(name, getattr(self, f"{name}_optimizer"))
        if self.objective.share_fakes and self.objective.discriminator_steps > 1:
            raise ConfigError(
                f"--discriminator-steps {self.objective.discriminator_steps} needs "
                "--no-share-fakes: in most steps there is no generator phase to share with"
            )
        interval("--real-labels", self.objective.real_labels)
        interval("--fake-labels", self.objective.fake_labels)
        lengths = (self.length.epochs, self.length.kimg, self.length.steps)
        if sum(value is not None for value in lengths) != 1:
            raise ConfigError("give the run's length by exactly one of --epochs, --kimg, --steps")
        return self

    def continues(self, other: "RunConfig") -> bool:
        """Return whether a run of `other` can go on as this one: equal but for `RESUMABLE`."""
        same = {
            entry.path: entry.value_in(other) for entry in settings() if entry.path in RESUMABLE
        }
        taken = self
        for path, value in same.items():
            part, name = path.split(".")
            changed = dataclasses.replace(getattr(taken, part), **{name: value})
            taken = dataclasses.replace(taken, **{part: changed})
        return taken == RunConfig.from_json(other.to_json())

    def to_json(self) -> str:
        """Return the config as JSON text; `from_json` gives an equal config back."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RunConfig":
        """Read what `to_json` wrote.

        Raises:
            ConfigError: the text is no JSON, of another format, or has unknown or missing parts.
        """
        try:
            tree = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the run's config is not JSON: {error}") from None
        if not isinstance(tree, dict) or tree.pop("format", None) != FORMAT:
            raise ConfigError(f"the run's config is not of format {FORMAT} of this pokegan")
        return typing.cast(RunConfig, _from_tree(cls, tree, "config")).validated()


@dataclass(frozen=True)
class Setting:
    """One field that the command line can set; `path` is such as `data.size`."""

    path: str
    kind: type
    optional: bool
    metadata: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """The command-line flag, with its dashes."""
        return str(self.metadata["flag"])

    def value_in(self, config: RunConfig) -> Any:
        """Return this setting's value in `config`."""
        part, name = self.path.split(".")
        return getattr(getattr(config, part), name)

    def check(self, value: Any) -> None:
        """Raise ConfigError when `value` is out of range or not among the choices."""
        if value is None and self.optional:
            return
        wanted = (int, float) if self.kind is float else self.kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.kind is not bool):
            raise ConfigError(f"{self.flag} {value!r}: a {self.kind.__name__} is wanted")
        choices = self.metadata["choices"]
        if choices and value not in choices:
            raise ConfigError(f"{self.flag} {value}: choose one of {', '.join(choices)}")
        if isinstance(value, int | float) and self.kind is not bool:
            self._check_range(value)

    def _check_range(self, value: float) -> None:
        minimum, maximum = self.metadata["minimum"], self.metadata["maximum"]
        unit = f" {self.metadata['unit']}" if self.metadata["unit"] else ""
        if value != value or abs(value) == float("inf"):
            raise ConfigError(f"{self.flag} {value}: a finite number is wanted")
        if minimum is not None and value < minimum:
            raise ConfigError(f"{self.flag} {value}: at least {minimum:g}{unit} is wanted")
        if maximum is not None and value > maximum:
            raise ConfigError(f"{self.flag} {value}: at most {maximum:g}{unit} is possible")


def settings(config: RunConfig | type[RunConfig] = RunConfig) -> Iterator[Setting]:
    """Yield every field that the command line can set, in the order of the config."""
    for part in dataclasses.fields(config):
        hint = typing.get_type_hints(RunConfig)[part.name]
        if not dataclasses.is_dataclass(hint):
            continue
        for leaf in dataclasses.fields(hint):
            if "flag" in leaf.metadata:
                kind, optional = _kind(typing.get_type_hints(hint)[leaf.name])
                yield Setting(f"{part.name}.{leaf.name}", kind, optional, leaf.metadata)


def override(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Return `config` with `values` put at their paths (such as `data.size`), validated.

    Giving one of the three lengths takes back the other two.
    """
    if any(path.startswith("length.") for path in values):
        config = dataclasses.replace(config, length=LengthConfig())
    for path, value in values.items():
        part, name = path.split(".")
        changed = dataclasses.replace(getattr(config, part), **{name: value})
        config = dataclasses.replace(config, **{part: changed})
    return config.validated()


def interval(flag: str, text: str) -> tuple[float, float] | None:
    """Return (low, high) of `LOW:HIGH`, or None of an empty text.

    Raises:
        ConfigError: it is something else, or not -1 <= low <= high <= 2.
    """
    if not text:
        return None
    try:
        low, high = (float(end) for end in text.split(":"))
    except ValueError:
        raise ConfigError(f"{flag} {text}: LOW:HIGH is wanted, such as 0.7:1.2") from None
    if not -1 <= low <= high <= 2:
        raise ConfigError(f"{flag} {text}: -1 <= LOW <= HIGH <= 2 is wanted")
    return low, high


def _kind(hint: Any) -> tuple[type, bool]:
    """Return (int | float | bool | str, whether None is allowed) of a field's type."""
    if isinstance(hint, types.UnionType):
        inner = [item for item in typing.get_args(hint) if item is not type(None)]
        return inner[0], True
    return hint, False


def _check_optimizer(name: str, optimizer: OptimizerConfig) -> None:
    if not 0 <= optimizer.lr <= 10:
        raise ConfigError(f"--{name}-lr {optimizer.lr}: a number in [0, 10] is wanted")
    for beta in (optimizer.beta1, optimizer.beta2):
        if not 0 <= beta < 1:
            raise ConfigError(f"{name}: Adam's beta {beta} is not in [0, 1)")
    if not optimizer.eps > 0:
        raise ConfigError(f"{name}: Adam's eps {optimizer.eps} is not positive")


def _from_tree(kind: Any, tree: Any, path: str) -> Any:
    """Build dataclass `kind` from a JSON object, refusing unknown and missing keys."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not an object")
    hints = typing.get_type_hints(kind)
    unknown = set(tree) - set(hints)
    if unknown:
        raise ConfigError(f"{path} has the unknown entry {sorted(unknown)[0]!r}")
    values = {
        name: _from_tree(hints[name], value, f"{path}.{name}")
        if dataclasses.is_dataclass(hints[name])
        else value
        for name, value in tree.items()
    }
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{path}: {error}") from None
