"""What the discriminator is told to answer: hard, smoothed, noisy, drawn or swapped targets."""

from dataclasses import dataclass

from torch import Tensor

from pokegan.errors import ConfigError
from pokegan.objectives.losses import AdversarialLoss
from pokegan.objectives.phases import StepInput
from pokegan.ops import soft_labels

Interval = tuple[float, float]


@dataclass(frozen=True)
class LabelRule:
    """How targets are drawn: uniform in an interval, each sample and side on its own.

    Attributes:
        real: (low, high) of the targets of real pictures.
        fake: (low, high) of the targets of fakes.
        swap: probability that a target t becomes 1 - t, tossed for each sample, for its real and
            its fake target independently.
    """

    real: Interval = (1.0, 1.0)
    fake: Interval = (0.0, 0.0)
    swap: float = 0.0

    def __post_init__(self) -> None:
        for side, (low, high) in (("real", self.real), ("fake", self.fake)):
            if not -1 <= low <= high <= 2:
                raise ConfigError(
                    f"{side} targets in {low:g}:{high:g}: -1 <= low <= high <= 2 is wanted"
                )
        if not 0 <= self.swap <= 1:
            raise ConfigError(f"swap {self.swap:g}: a probability in [0, 1] is wanted")

    @classmethod
    def smoothed(
        cls,
        smoothing: float = 0.0,
        noise: float = 0.0,
        swap: float = 0.0,
        smooth_fakes: bool = False,
    ) -> "LabelRule":
        """Return real = 1 - smoothing + noise (U - 1/2) and fake = 0 + noise (U - 1/2).

        Args:
            smoothing: in [0, 0.5].
            noise: width of the interval, in [0, 1].
            swap: in [0, 1].
            smooth_fakes: fakes get `smoothing` instead of 0. One-sided is arXiv 1606.03498.

        Raises:
            ConfigError: an argument is out of its range.
        """
        if not 0 <= smoothing <= 0.5:
            raise ConfigError(f"smoothing {smoothing:g}: a number in [0, 0.5] is wanted")
        if not 0 <= noise <= 1:
            raise ConfigError(f"noise {noise:g}: a number in [0, 1] is wanted")
        real, fake = 1 - smoothing, smoothing if smooth_fakes else 0.0
        half = noise / 2
        return cls((real - half, real + half), (fake - half, fake + half), swap)

    @property
    def drawn(self) -> bool:
        """Whether targets differ between samples."""
        return self.real[0] < self.real[1] or self.fake[0] < self.fake[1] or self.swap > 0


class Labels:
    """A rule and the seed that its draws come from.

    Args:
        rule: how targets are drawn.
        seed: the run's seed.
    """

    def __init__(self, rule: LabelRule | None = None, seed: int = 0) -> None:
        self.rule = rule or LabelRule()
        self.seed = seed

    def loss(
        self, loss: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor, inputs: StepInput
    ) -> Tensor:
        """Return the discriminator's loss on this step's targets; a loss without targets as is."""
        if loss.form is None or not self.rule.drawn:
            return loss.discriminator(
                real_logits, fake_logits, self.rule.real[0], self.rule.fake[0]
            )
        return soft_labels(
            loss.form,
            real_logits,
            fake_logits,
            inputs.samples,
            inputs.step,
            self.seed,
            self.rule.real,
            self.rule.fake,
            self.rule.swap,
        )
