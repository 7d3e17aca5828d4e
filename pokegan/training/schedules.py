"""Learning rates over a run: a factor as a pure function of the progress in kimg."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pokegan.errors import ConfigError

SCHEDULES = ("constant", "cosine", "step")


@dataclass(frozen=True)
class Schedule:
    """The shape of a learning rate: a linear warm-up, then constant or falling.

    Attributes:
        name: constant; cosine, from 1 to `final` over the rest of the run (arXiv 1608.03983,
            equation 5, one period); or step, times `decay` every `decay_kimg`.
        final: what cosine ends at, as a fraction in [0, 1].
        decay: what step multiplies by, in (0, 1].
        decay_kimg: how often step does, in kimg; positive for step.
        warmup_kimg: kimg in which the rate rises from 0, at least 0.
    """

    name: str = "constant"
    final: float = 0.0
    decay: float = 0.5
    decay_kimg: float = 0.0
    warmup_kimg: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ConfigError(f"--lr-schedule {self.name}: choose one of {', '.join(SCHEDULES)}")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"--lr-final {self.final:g}: a fraction in [0, 1] is wanted")
        if not 0 < self.decay <= 1:
            raise ConfigError(f"--lr-decay {self.decay:g}: a number in (0, 1] is wanted")
        if self.name == "step" and not 0 < self.decay_kimg < math.inf:
            raise ConfigError(
                f"--lr-decay-kimg {self.decay_kimg:g}: --lr-schedule step needs a positive number"
            )
        if not 0 <= self.warmup_kimg < math.inf:
            raise ConfigError(
                f"--lr-warmup-kimg {self.warmup_kimg:g}: a number of at least 0 is wanted"
            )

    def factor(self, progress_kimg: float, total_kimg: float) -> float:
        """Return what the base learning rate is multiplied by, in [0, 1].

        Args:
            progress_kimg: thousands of pictures seen, at least 0. Beyond the run's length, cosine
                stays at `final`.
            total_kimg: the run's length as planned when it began. Only cosine depends on it.
        """
        return self._warmup(progress_kimg) * self._decay(progress_kimg, total_kimg)

    def _warmup(self, progress: float) -> float:
        return min(1.0, progress / self.warmup_kimg) if self.warmup_kimg > 0 else 1.0

    def _decay(self, progress: float, total: float) -> float:
        if self.name == "cosine":
            rest = total - self.warmup_kimg
            done = (progress - self.warmup_kimg) / rest if rest > 0 else 0.0
            half = (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2
            return self.final + (1 - self.final) * half
        if self.name == "step":
            passed = progress / self.decay_kimg
            return self.decay ** math.floor(passed + 1e-9)  # 0.3 / 0.1 is less than 3
        return 1.0


def apply(optimizer: torch.optim.Optimizer, base_lr: float, factor: float) -> None:
    """Set the learning rate of every group to `base_lr` times `factor`, without a host sync.

    A rate that is a tensor is filled in place, so that a captured or compiled optimiser step reads
    the new value; give fused Adam `lr=torch.tensor(lr, device=device)` for that. A rate that is a
    number is replaced, which an eager step reads. Call it outside of a capture.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(base_lr * factor)
        else:
            group["lr"] = base_lr * factor
