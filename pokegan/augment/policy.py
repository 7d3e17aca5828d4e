"""What augmentations of the discriminator's inputs share: who calls them, for whom, and which."""

from collections.abc import Collection
from typing import Literal, Protocol

from torch import Tensor

from pokegan.errors import ConfigError

Role = Literal["real", "fake", "generator"]


class DiscriminatorAugment(Protocol):
    """Stands before the discriminator wherever it is called on pictures."""

    def __call__(self, pictures: Tensor, step: Tensor | int, samples: Tensor, role: Role) -> Tensor:
        """Return the pictures augmented, differentiable in them.

        Args:
            pictures: [N, 3, H, W].
            step: the step, an int or an int64 scalar on the device of `pictures`.
            samples: [N] int64 global sample indices.
            role: reals or fakes of the discriminator's phase, or fakes of the generator's; each
                has random numbers of its own.

        Returns:
            Like `pictures`.
        """
        ...


def parse_policy(
    policy: str | Collection[str], choices: tuple[str, ...], flag: str
) -> frozenset[str]:
    """Return the names in `policy`: a collection, or text with commas between; none if empty.

    `color` is taken for `colour`.

    Raises:
        ConfigError: a name is not among `choices`; the message names `flag`.
    """
    parts = policy.split(",") if isinstance(policy, str) else policy
    names = [part.strip() for part in parts if part.strip()]
    names = ["colour" if name == "color" else name for name in names]
    for name in names:
        if name not in choices:
            raise ConfigError(
                f"{flag} {','.join(names)}: {name!r} is unknown; give any of "
                f"{', '.join(choices)}, with commas between"
            )
    return frozenset(names)
