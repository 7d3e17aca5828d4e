"""AEGAN (arXiv 2004.05472): an autoencoder both ways and a discriminator for either side.

X are pictures and Z latents. The generator makes X_hat = G(Z) and X_tilde = G(E(X)), the encoder
Z_hat = E(X) and Z_tilde = E(G(Z)): what is made from the other side, and what came back.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pokegan.errors import ConfigError
from pokegan.objectives.adversarial import LatentSampler, Network
from pokegan.objectives.phases import Phase, PhaseResult, StepInput
from pokegan.objectives.precision import at_least_float32
from pokegan.ops.soft_labels import cross_entropy

CHUNK = 64  # pictures that are reconstructed at once


@dataclass(frozen=True)
class TermWeights:
    """How much each term counts, 0 or more.

    Attributes:
        reconstruction: of the L1 between X_tilde and X.
        latent_reconstruction: of the mean square of Z_tilde - Z.
        generator: of how badly X_hat and X_tilde fool their discriminator, the mean of both.
        encoder: of how badly Z_hat and Z_tilde fool theirs, the mean of both.
        real: share of the real side in a discriminator's loss, at most 1; what is made and what
            came back have half of the rest each.

    Raises:
        ConfigError: a weight is out of its range.
    """

    reconstruction: float = 1.0
    latent_reconstruction: float = 0.5
    generator: float = 0.005
    encoder: float = 0.1
    real: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"weight {field.name} {value:g}: a number of 0 or more is wanted")
        if self.real > 1:
            raise ConfigError(f"weight real {self.real:g}: a number in [0, 1] is wanted")


class _Cycles(NamedTuple):
    """What one step compares; the names are those in `StepInput.shared`."""

    latents: Tensor  # Z
    fakes: Tensor  # X_hat
    encoded: Tensor  # Z_hat
    reconstructions: Tensor  # X_tilde
    reencoded: Tensor  # Z_tilde


class AutoencodingObjective:
    """The four players of AEGAN, with cross entropy on logits.

    Args:
        generator: latents [N, Z] to pictures [N, 3, H, W] in [-1, 1].
        encoder: pictures to latents.
        discriminator: pictures to logits [N].
        latent_discriminator: latents to logits [N].
        latents: (samples [N], step, "discriminator" or "generator") to latents [N, Z].
        weights: of the terms; the paper's author's if None.
        share_fakes: what the discriminators are shown serves the generator's and encoder's phase
            too, so these run forward once a step, each twice. Otherwise that phase has latents of
            its own; the terms are the same.
    """

    def __init__(
        self,
        generator: Network,
        encoder: Network,
        discriminator: Network,
        latent_discriminator: Network,
        latents: LatentSampler,
        weights: TermWeights | None = None,
        share_fakes: bool = True,
    ) -> None:
        self.generator = generator
        self.encoder = encoder
        self.discriminator = discriminator
        self.latent_discriminator = latent_discriminator
        self.latents = latents
        self.weights = weights or TermWeights()
        self.share_fakes = share_fakes

    def phases(self) -> list[Phase]:
        """Return the phase of both discriminators, then that of generator and encoder."""
        discriminators = ("discriminator", "latent_discriminator")
        return [
            Phase("latent and picture discriminators", discriminators, self.discriminator_loss),
            Phase(
                "generator and encoder",
                ("generator", "encoder"),
                self.generator_loss,
                frozen=discriminators,
            ),
        ]

    def discriminator_loss(self, inputs: StepInput) -> PhaseResult:
        """Return how badly X and Z are told from what is made and from what came back."""
        made = self._cycles_for_discriminators(inputs)
        x = [
            at_least_float32(self.discriminator(pictures))
            for pictures in (inputs.real, made.fakes, made.reconstructions)
        ]
        z = [
            at_least_float32(self.latent_discriminator(latents))
            for latents in (made.latents, made.encoded, made.reencoded)
        ]
        pictures, latents = self._told_apart(*x), self._told_apart(*z)
        return PhaseResult(
            pictures + latents,
            {
                "loss/discriminator": pictures.detach(),
                "loss/latent_discriminator": latents.detach(),
                "score/real": _score(x[0]),
                "score/fake": _score(x[1]),
                "score/reconstruction": _score(x[2]),
                "score/latent_real": _score(z[0]),
                "score/latent_fake": _score(z[1]),
                "score/latent_reconstruction": _score(z[2]),
            },
        )

    def generator_loss(self, inputs: StepInput) -> PhaseResult:
        """Return how badly both come back, and how badly they fool the discriminators."""
        made = self._cycles_for_generator(inputs)
        x = [
            at_least_float32(self.discriminator(pictures))
            for pictures in (made.fakes, made.reconstructions)
        ]
        z = [
            at_least_float32(self.latent_discriminator(latents))
            for latents in (made.encoded, made.reencoded)
        ]
        terms = {
            "reconstruction": _l1(made.reconstructions, inputs.real),
            "latent_reconstruction": F.mse_loss(
                at_least_float32(made.reencoded), at_least_float32(made.latents)
            ),
            "generator": (cross_entropy(x[0], 1.0) + cross_entropy(x[1], 1.0)) / 2,
            "encoder": (cross_entropy(z[0], 1.0) + cross_entropy(z[1], 1.0)) / 2,
        }
        loss = torch.stack([getattr(self.weights, name) * term for name, term in terms.items()])
        return PhaseResult(
            loss.sum(),
            {
                **{f"loss/{name}": term.detach() for name, term in terms.items()},
                "score/fake_after": _score(x[0]),
                "score/reconstruction_after": _score(x[1]),
                "score/latent_fake_after": _score(z[0]),
                "score/latent_reconstruction_after": _score(z[1]),
            },
        )

    def _told_apart(self, real: Tensor, made: Tensor, came_back: Tensor) -> Tensor:
        share = self.weights.real
        others = (cross_entropy(made, 0.0) + cross_entropy(came_back, 0.0)) / 2
        return share * cross_entropy(real, 1.0) + (1 - share) * others

    def _cycles_for_discriminators(self, inputs: StepInput) -> _Cycles:
        if self.share_fakes:
            cycles = self._cycles(inputs, "discriminator")
            inputs.shared.update(cycles._asdict())
            return _Cycles(*(tensor.detach() for tensor in cycles))
        with torch.no_grad():
            return self._cycles(inputs, "discriminator")

    def _cycles_for_generator(self, inputs: StepInput) -> _Cycles:
        if self.share_fakes:
            return _Cycles(*(inputs.shared.pop(name) for name in _Cycles._fields))
        return self._cycles(inputs, "generator")

    def _cycles(self, inputs: StepInput, phase: str) -> _Cycles:
        latents = self.latents(inputs.samples, inputs.step, phase)
        fakes, encoded = self.generator(latents), self.encoder(inputs.real)
        return _Cycles(latents, fakes, encoded, self.generator(encoded), self.encoder(fakes))


def reconstruct(encoder: nn.Module, generator: nn.Module, pictures: Tensor) -> Tensor:
    """Return G(E(X)) of [N, 3, H, W] pictures, as the networks are outside of training.

    Without gradients and in eval mode, so that pictures kept from training leave no trace in batch
    norms; each module then has its mode again.
    """
    with torch.no_grad(), _evaluating(encoder, generator):
        return torch.cat([generator(encoder(part)) for part in torch.split(pictures, CHUNK)])


def reconstruction_l1(encoder: nn.Module, generator: nn.Module, pictures: Tensor) -> Tensor:
    """Return the mean |X_tilde - X| over pictures in [-1, 1] as a scalar; see `reconstruct`."""
    return _l1(reconstruct(encoder, generator, pictures), pictures)


def _l1(made: Tensor, wanted: Tensor) -> Tensor:
    return F.l1_loss(at_least_float32(made), at_least_float32(wanted))


@contextlib.contextmanager
def _evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put `networks` in eval mode for a while."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _score(logits: Tensor) -> Tensor:
    return logits.detach().sigmoid().mean()
