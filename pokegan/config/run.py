"""`RunConfig`: a complete run; frozen, validated once, JSON there and back without loss."""

import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pokegan.config.data import DataConfig
from pokegan.config.parts import (
    AutoencodingConfig,
    LatentConfig,
    LengthConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    OutputConfig,
    ScheduleConfig,
    TrainingConfig,
)
from pokegan.config.setting import Setting, interval, kind_of
from pokegan.errors import ConfigError

FORMAT = 1
RESUMABLE = (  # what may differ when a run goes on
    "length.epochs",
    "length.kimg",
    "length.steps",
    "data.source",
    "data.loader",
    "data.workers",
    "training.device",
    "training.rank_timeout",
    "training.compile",
    "output.sample_every",
    "output.plots",
    "output.log_every",
    "output.checkpoint_every",
    "output.keep_checkpoints",
    "output.metrics_every",
    "output.metrics_samples",
    "output.metrics_features",
    "output.best_by",
)
SAME_BATCHES = ("auto", "resident", "mapped")  # loaders that may take each other's place


@dataclass(frozen=True)
class RunConfig:
    """A complete run. Recipes return it; the command line overrides parts of it."""

    recipe: str
    generator: NetworkConfig
    discriminator: NetworkConfig
    encoder: NetworkConfig | None = None
    latent_discriminator: NetworkConfig | None = None
    data: DataConfig = field(default_factory=DataConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    autoencoding: AutoencodingConfig = field(default_factory=AutoencodingConfig)
    generator_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    discriminator_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    length: LengthConfig = field(default_factory=lambda: LengthConfig(kimg=100.0))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
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
        if (self.encoder is None) != (self.latent_discriminator is None):
            raise ConfigError("an encoder needs a latent discriminator, and the other way round")
        interval("--real-labels", self.objective.real_labels)
        interval("--fake-labels", self.objective.fake_labels)
        lengths = (self.length.epochs, self.length.kimg, self.length.steps)
        if sum(value is not None for value in lengths) != 1:
            raise ConfigError("give the run's length by exactly one of --epochs, --kimg, --steps")
        return self

    def continues(self, other: "RunConfig") -> bool:
        """Return whether a run of `other` can go on as this one: equal but for `RESUMABLE`.

        Of the loaders only those that give the same batches may take each other's place.
        """
        if not same_batches(self.data.loader, other.data.loader):
            return False
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


def same_batches(one: str, other: str) -> bool:
    """Return whether two loaders give the same batches, bit for bit."""
    return one == other or {one, other}.issubset(SAME_BATCHES)


def settings(config: RunConfig | type[RunConfig] = RunConfig) -> Iterator[Setting]:
    """Yield every field that the command line can set, in the order of the config."""
    for part in dataclasses.fields(config):
        hint = typing.get_type_hints(RunConfig)[part.name]
        if not dataclasses.is_dataclass(hint):
            continue
        for leaf in dataclasses.fields(hint):
            if "flag" in leaf.metadata:
                kind, optional = kind_of(typing.get_type_hints(hint)[leaf.name])
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


def _check_optimizer(name: str, optimizer: OptimizerConfig) -> None:
    for key, value in dataclasses.asdict(optimizer).items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"{name}_optimizer.{key} {value!r}: a number is wanted")
    if not 0 <= optimizer.lr <= 10:
        raise ConfigError(f"--{name}-lr {optimizer.lr}: a number in [0, 10] is wanted")
    for flag, beta in (("--beta1", optimizer.beta1), ("--beta2", optimizer.beta2)):
        if not 0 <= beta < 1:
            raise ConfigError(f"{flag} {beta}: a number in [0, 1) is wanted")
    if not 0 < optimizer.eps <= 1:
        raise ConfigError(f"--adam-eps {optimizer.eps}: a number in (0, 1] is wanted")
    if not 0 <= optimizer.weight_decay <= 1:
        raise ConfigError(f"--weight-decay {optimizer.weight_decay}: a number in [0, 1] is wanted")


def _from_tree(kind: Any, tree: Any, path: str) -> Any:
    """Build dataclass `kind` from a JSON object, refusing unknown and missing keys."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not an object")
    hints = typing.get_type_hints(kind)
    unknown = set(tree) - set(hints)
    if unknown:
        raise ConfigError(f"{path} has the unknown entry {sorted(unknown)[0]!r}")
    values = {name: _value(hints[name], value, f"{path}.{name}") for name, value in tree.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{path}: {error}") from None


def _value(hint: Any, value: Any, path: str) -> Any:
    """Return `value` as what `hint` says: a part of its own, one that may be None, or plain."""
    parts = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
    if not parts or (value is None and parts[0] is not hint):
        return value
    return _from_tree(parts[0], value, path)
