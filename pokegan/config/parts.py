"""The parts of a run's config. A field that a user can set carries its flag, unit and range."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pokegan.config.setting import setting


@dataclass(frozen=True)
class LatentConfig:
    """The latent vectors that the generator is fed."""

    size: int = setting(64, "--latent-size", "length of a latent vector", minimum=1, maximum=4096)
    distribution: str = setting(
        "normal", "--latent", "distribution of latents", choices=("normal", "uniform")
    )


@dataclass(frozen=True)
class NetworkConfig:
    """A network by its name in `pokegan.training.networks`, its constructor's options, its init."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    init: str = "normal"


def _every(flag: str, what: str) -> Any:
    return setting(
        1, flag, f"{what} every so many steps, as much stronger", unit="steps", minimum=1
    )


LOSSES = (
    "bce",
    "smooth-bce",
    "lsgan",
    "hinge",
    "wgan",
    "wgan-gp",
    "rgan",
    "ragan",
    "r3gan",
)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is optimised. None is what the loss implies (`pokegan.objectives.settings.defaults`)."""

    loss: str = setting("bce", "--loss", "adversarial loss", choices=LOSSES)
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
    discriminator_steps: int | None = setting(
        None,
        "--discriminator-steps",
        "discriminator updates a generator update",
        unset="by the loss: 5 for wgan and wgan-gp, else 1",
        minimum=1,
        maximum=100,
    )
    weight_clip: float | None = setting(
        None,
        "--weight-clip",
        "clamp the discriminator's weights to plus or minus this after its update; 0 turns it off",
        unset="by the loss: 0.01 for wgan, else 0",
        minimum=0.0,
    )
    gradient_penalty: float | None = setting(
        None,
        "--gradient-penalty",
        "weight of (|gradient| - 1)^2 between reals and fakes",
        unset="by the loss: 10 for wgan-gp, else 0",
        minimum=0.0,
    )
    gradient_penalty_every: int = _every("--gradient-penalty-every", "the gradient penalty")
    consistency: float = setting(
        0.0,
        "--consistency",
        "weight of the consistency term of CT-GAN (its paper has 2); needs dropout",
        minimum=0.0,
    )
    consistency_every: int = _every("--consistency-every", "the consistency term")
    r1: float | None = setting(
        None,
        "--r1",
        "gamma of R1: half of it weighs |gradient|^2 at the reals",
        unset="by the loss: 2 for r3gan, else 0",
        minimum=0.0,
    )
    r1_every: int = _every("--r1-every", "R1")
    r2: float | None = setting(
        None,
        "--r2",
        "gamma of R2: half of it weighs |gradient|^2 at the fakes",
        unset="by the loss: 2 for r3gan, else 0",
        minimum=0.0,
    )
    r2_every: int = _every("--r2-every", "R2")
    diff_augment: str = setting(
        "",
        "--diff-augment",
        "augment what the discriminator sees, differentiably: colour, translation, cutout, "
        "with commas between",
    )
    ada_target: float = setting(
        0.0,
        "--ada-target",
        "adaptive augmentation keeps the mean sign of D(real) here (its paper has 0.6); "
        "0 turns it off",
        minimum=0.0,
        maximum=0.99,
    )
    ada_p: float = setting(
        0.0,
        "--ada-p",
        "augment as adaptive augmentation does, with this probability throughout; 0 turns it off",
        minimum=0.0,
        maximum=1.0,
    )
    ada_kimg: float = setting(
        500.0,
        "--ada-kimg",
        "how long the adaptive probability takes from 0 to 1 at least",
        unit="kimg",
        minimum=0.001,
    )


@dataclass(frozen=True)
class AutoencodingConfig:
    """Weights of AEGAN's terms (arXiv 2004.05472); without an encoder nothing looks at them."""

    reconstruction: float = setting(
        1.0, "--reconstruction-weight", "weight of |G(E(x)) - x|", minimum=0.0
    )
    latent_reconstruction: float = setting(
        0.5, "--latent-reconstruction-weight", "weight of (E(G(z)) - z)^2", minimum=0.0
    )
    generator: float = setting(
        0.005, "--adversarial-weight", "weight of fooling the discriminator", minimum=0.0
    )
    encoder: float = setting(
        0.1, "--latent-adversarial-weight", "weight of fooling that of latents", minimum=0.0
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam's settings for the networks of one side."""

    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rates and the size of the pictures change over a run."""

    rates: str = setting(
        "constant",
        "--lr-schedule",
        "how learning rates fall",
        choices=("constant", "cosine", "step"),
    )
    final: float = setting(
        0.0,
        "--lr-final",
        "what the cosine leaves of the learning rates",
        minimum=0.0,
        maximum=1.0,
    )
    decay_kimg: float = setting(
        100.0,
        "--lr-decay-kimg",
        "the step schedule multiplies the rates every so often",
        unit="kimg",
        minimum=0.001,
    )
    decay: float = setting(
        0.5, "--lr-decay", "what the step schedule multiplies them by", minimum=0.0, maximum=1.0
    )
    warmup_kimg: float = setting(
        0.0, "--lr-warmup-kimg", "learning rates rise from 0 this long", unit="kimg", minimum=0.0
    )
    stages: str = setting(
        "",
        "--stages",
        "grow progressively: SIZE:RATExEPOCHS,RATExEPOCHS;SIZE:..., such as "
        "16:5e-4x100,2e-4x200;32:5e-4x100",
    )
    freeze: bool = setting(
        False, "--freeze-stages", "what earlier stages learned stays as it is in later ones"
    )
    fade: float = setting(
        0.5,
        "--fade",
        "share of a stage in which its new layers fade in; 0 turns it off",
        minimum=0.0,
        maximum=1.0,
    )


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
        "arithmetic of the networks; auto: bf16 where the processor multiplies it fast; tf32: "
        "float32 whose products a CUDA GPU rounds to 10 bits, and whose convolutions a CPU with "
        "AMX computes with 16",
        choices=("auto", "fp32", "tf32", "bf16"),
    )
    compile: str = setting(
        "auto",
        "--compile",
        "compile a whole step, and capture it in a CUDA graph; auto: with CUDA; on a processor "
        "record its operators, which gives the bits of off, sooner",
        choices=("auto", "on", "off"),
    )
    ema_kimg: float = setting(
        0.0,
        "--ema-kimg",
        "half-life of the generator's moving average; 0 turns it off",
        unit="kimg",
        minimum=0.0,
    )
    scaling: str = setting(
        "strong",
        "--scaling",
        "what --batch is on several ranks: strong, of all together; weak, of each of them",
        choices=("strong", "weak"),
    )
    sync_batchnorm: str = setting(
        "on",
        "--sync-batchnorm",
        "batch norm over all ranks; off: each over its own share, faster, another result",
        choices=("on", "off"),
    )
    rank_timeout: float = setting(
        600.0,
        "--rank-timeout",
        "several ranks end, and name the one that is stuck, after no progress for so long",
        unit="s",
        minimum=5.0,
        maximum=86400.0,
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
        "a sample grid every so many epochs (at least 10 steps apart; on a GPU also a 50th of the "
        "steps so far)",
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
    plots: bool = setting(
        True, "--plots", "draw plots, animations and the report when the run ends"
    )
    metrics_every: float = setting(
        0.0,
        "--metrics-every",
        "measure the pictures every so often and at the end; 0 turns it off",
        unit="kimg",
        minimum=0.0,
    )
    metrics_samples: int = setting(
        1000, "--metrics-samples", "pictures to measure", unit="images", minimum=10
    )
    metrics_features: str = setting(
        "efficientnet-lite2",
        "--metrics-features",
        "what the Fréchet distance and its like are taken on",
        choices=("efficientnet-lite2", "pyramid"),
    )
    best_by: str = setting(
        "score",
        "--best-by",
        "measure by which the best state is kept",
        choices=("score", "fid", "kid", "swd"),
    )
    note: str = setting("", "--note", "a word for the run folder's name")
