"""DiffAugment: the same kinds of change to real and generated pictures, with gradients through.

Source: Zhao et al., arXiv 2006.10738. The arithmetic is `pokegan.ops.diff_augment`.
"""

from collections.abc import Collection

from torch import Tensor

from pokegan.augment.policy import Role, parse_policy
from pokegan.ops import diff_augment
from pokegan.ops.random import Stream

POLICIES = ("colour", "translation", "cutout")
_STREAMS: dict[Role, Stream] = {
    "real": Stream.AUGMENT_REAL,
    "fake": Stream.AUGMENT_FAKE,
    "generator": Stream.AUGMENT_GENERATOR,
}


class DiffAugment:
    """Augments what the discriminator sees, in every phase; a `DiscriminatorAugment`.

    Args:
        policy: any of colour, translation, cutout: a collection, or text with commas between.
        seed: the run's seed.
        fill: what a translation uncovers, in [-1, 1]; 0 in the paper.

    Raises:
        ConfigError: the policy is unknown.
    """

    def __init__(self, policy: str | Collection[str], seed: int, fill: float = 0.0) -> None:
        self.policy = parse_policy(policy, POLICIES, "--diff-augment")
        self.seed = seed
        self.fill = fill

    def __call__(self, pictures: Tensor, step: Tensor | int, samples: Tensor, role: Role) -> Tensor:
        """Return the pictures augmented, or the input itself under an empty policy."""
        if not self.policy:
            return pictures
        return diff_augment(
            pictures,
            self.seed,
            _STREAMS[role],
            step,
            samples,
            colour="colour" in self.policy,
            translation="translation" in self.policy,
            cutout="cutout" in self.policy,
            fill=self.fill,
        )
