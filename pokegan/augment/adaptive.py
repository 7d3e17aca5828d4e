"""Adaptive discriminator augmentation: as much augmentation as the discriminator's overfitting.

Source: Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020 (arXiv
2006.06676): the overfitting heuristic r_t of equation 1, the rule of section 3.1.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from pokegan.augment.adaptive_draws import TRANSFORMS, draw, placement, recolour
from pokegan.augment.geometry import resample
from pokegan.augment.layout import checked_background, restored, widened
from pokegan.augment.policy import Role, parse_policy
from pokegan.errors import ConfigError
from pokegan.ops.random import Stream
from pokegan.peers import Peers

PADDINGS = ("background", "reflect")
_STREAMS: dict[Role, Stream] = {
    "real": Stream.ADA_REAL,
    "fake": Stream.ADA_FAKE,
    "generator": Stream.ADA_GENERATOR,
}


class AdaptiveAugment(nn.Module):
    """Augments what the discriminator sees with a probability p that follows its overfitting.

    A `DiscriminatorAugment`. p and what it follows are buffers: they stay on the device, move
    without a host synchronisation, and a checkpoint of the buffers resumes exactly. In a
    discriminator's step, call `observe` on its logits for real pictures, then `update` once.

    r_t is the mean of sign(D(real)) over the last `every` discriminator steps, and
    p <- p + sign(r_t - target) batch every / (speed_kimg 1000), clamped to [0, 1]. The paper
    clamps below only; above 1 nothing would change but the time that p takes to come back.

    Differentiable twice in the pictures, on torch 2.11 too; p and the parameters have no gradient.

    Args:
        seed: the run's seed.
        background: RGB bytes, the data's own background.
        target: r_t to hold, in (-1, 1), or None to keep p as it is.
        speed_kimg: thousands of real pictures in which p could go from 0 to 1, above 0.
        p: in [0, 1], where p starts.
        every: discriminator steps between two changes of p, 1 or more.
        policy: any of blit (moves by whole pixels, flips, quarter turns), geometry (scaling,
            rotation, stretching, drift) and colour (brightness, contrast, luma, hue, saturation):
            a collection, or text with commas between.
        padding: what lies outside of a picture: its background, or its reflection.
        peers: the ranks whose signs count too; None for this process alone.

    Raises:
        ConfigError: an argument is unknown or out of range.
    """

    p: Tensor
    sign: Tensor
    step_signs: Tensor
    window_signs: Tensor
    window_steps: Tensor

    def __init__(
        self,
        seed: int,
        background: Sequence[int],
        *,
        target: float | None = 0.6,
        speed_kimg: float = 500.0,
        p: float = 0.0,
        every: int = 4,
        policy: str | Collection[str] = TRANSFORMS,
        padding: str = "background",
        peers: Peers | None = None,
    ) -> None:
        super().__init__()
        _check(target, speed_kimg, p, every, padding)
        self.seed = seed
        self.background = checked_background(background) if padding == "background" else None
        self.peers = peers
        self.target = target
        self.speed_kimg = speed_kimg
        self.every = every
        self.policy = parse_policy(policy, TRANSFORMS, "policy")
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("sign", torch.zeros(()))  # of the last step
        self.register_buffer("step_signs", torch.zeros(2))  # sum and count of this step
        self.register_buffer("window_signs", torch.zeros(2))  # of the steps since p changed
        self.register_buffer("window_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, pictures: Tensor, step: Tensor | int, samples: Tensor, role: Role) -> Tensor:
        """Return the pictures augmented.

        Args:
            pictures: [N, 3, H, W] float32, bfloat16 or float64; H = W where quarter turns are to
                keep the whole picture.
            step: the step, an int or an int64 scalar on the device of `pictures`.
            samples: [N] int64 global sample indices.
            role: for whom.

        Returns:
            Like `pictures`, in the same memory format; values may leave [-1, 1]. Computed in
            float32 or wider, also under autocast.
        """
        if not self.policy:
            return pictures
        with torch.autocast(pictures.device.type, enabled=False):
            values = widened(pictures)
            height, width = values.shape[2:]
            draws = draw(
                self.seed, _STREAMS[role], step, samples, self.p, self.policy, height, width
            )
            if self.policy & {"blit", "geometry"}:
                values = resample(values, placement(draws), self.background)
            if "colour" in self.policy:
                values = recolour(values, draws)
            return restored(values, pictures)

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        """Count the signs of the discriminator's logits for (augmented) real pictures."""
        signs = real_logits.detach().float().sign()
        self.step_signs.add_(torch.stack((signs.sum(), torch.ones_like(signs).sum())))

    @torch.no_grad()
    def update(self, batch: int) -> None:
        """End a discriminator step; in every `every`-th one, move p.

        Args:
            batch: real pictures of the step on this rank; as many on every other one.
        """
        if self.peers is not None:
            self.step_signs.copy_(self.peers.sum(self.step_signs))
            batch *= self.peers.count
        self.sign.copy_(_mean(self.step_signs))
        self.window_signs.add_(self.step_signs)
        self.window_steps.add_(1)
        self.step_signs.zero_()
        due = self.window_steps >= self.every
        if self.target is not None:
            stride = batch * self.every / (self.speed_kimg * 1000)
            moved = self.p + (_mean(self.window_signs) - self.target).sign() * stride
            self.p.copy_(torch.where(due, moved.clamp(0, 1), self.p))
        self.window_signs.mul_(~due)
        self.window_steps.mul_(~due)

    def recorded(self) -> dict[str, Tensor]:
        """Return detached scalars: p, and the mean sign of the last step."""
        return {"augment/p": self.p.clone(), "augment/sign": self.sign.clone()}


def _mean(signs: Tensor) -> Tensor:
    return signs[0] / signs[1].clamp(min=1)


def _check(target: float | None, speed_kimg: float, p: float, every: int, padding: str) -> None:
    rules = (
        (target is None or -1 < target < 1, f"--ada-target {target}: give a number in (-1, 1)"),
        (0 < speed_kimg < float("inf"), f"--ada-kimg {speed_kimg:g}: give kimg above 0"),
        (0 <= p <= 1, f"--ada-p {p:g}: give a probability from 0 to 1"),
        (every >= 1, f"every {every}: give 1 or more steps"),
        (padding in PADDINGS, f"padding {padding!r}: choose one of {', '.join(PADDINGS)}"),
    )
    for holds, message in rules:
        if not holds:
            raise ConfigError(message)
