"""Generator against discriminator: two phases a step."""

from collections.abc import Callable

import torch
from torch import Tensor

from pokegan.objectives.labels import Labels
from pokegan.objectives.losses import AdversarialLoss
from pokegan.objectives.phases import Phase, PhaseResult, StepInput

Network = Callable[[Tensor], Tensor]
LatentSampler = Callable[[Tensor, Tensor, str], Tensor]


class AdversarialObjective:
    """The two-player game of arXiv 1406.2661 with any pair of losses.

    Args:
        generator: latents [N, Z] to pictures [N, 3, H, W].
        discriminator: pictures to logits [N].
        latents: (samples [N], step, name of the phase) to latents [N, Z].
        loss: the two sides' losses.
        labels: the discriminator's targets; hard ones if None.
        share_fakes: the discriminator's fakes serve the generator's phase too, so the generator
            runs forward once a step.
        discriminator_steps: the generator is updated in one step of so many.
    """

    def __init__(
        self,
        generator: Network,
        discriminator: Network,
        latents: LatentSampler,
        loss: AdversarialLoss,
        labels: Labels | None = None,
        share_fakes: bool = False,
        discriminator_steps: int = 1,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.latents = latents
        self.loss = loss
        self.labels = labels or Labels()
        self.share_fakes = share_fakes
        self.discriminator_steps = discriminator_steps

    def phases(self) -> list[Phase]:
        """Return the discriminator's phase, then the generator's."""
        return [
            Phase("discriminator", ("discriminator",), self.discriminator_loss),
            Phase(
                "generator",
                ("generator",),
                self.generator_loss,
                frozen=("discriminator",),
                every=self.discriminator_steps,
            ),
        ]

    def discriminator_loss(self, inputs: StepInput) -> PhaseResult:
        """Return how badly the discriminator tells real pictures from fakes."""
        fakes = self._fakes_for_discriminator(inputs)
        real_logits = self.discriminator(inputs.real).float()
        fake_logits = self.discriminator(fakes).float()
        loss = self.labels.loss(self.loss, real_logits, fake_logits, inputs)
        return PhaseResult(
            loss,
            {
                "loss/discriminator": loss.detach(),
                "score/real": real_logits.detach().sigmoid().mean(),
                "score/fake": fake_logits.detach().sigmoid().mean(),
            },
        )

    def generator_loss(self, inputs: StepInput) -> PhaseResult:
        """Return how badly the generator fools the discriminator."""
        fakes = inputs.shared.pop("fakes", None)
        if fakes is None:
            fakes = self.generator(self.latents(inputs.samples, inputs.step, "generator"))
        logits = self.discriminator(fakes).float()
        loss = self.loss.generator(logits, self._real_logits(inputs, logits))
        return PhaseResult(
            loss,
            {
                "loss/generator": loss.detach(),
                "score/fake_after": logits.detach().sigmoid().mean(),
            },
        )

    def _real_logits(self, inputs: StepInput, fake_logits: Tensor) -> Tensor:
        """What a relativistic loss compares fakes with; the others do not look."""
        if not self.loss.relativistic:
            return fake_logits
        with torch.no_grad():
            return self.discriminator(inputs.real).float()

    def _fakes_for_discriminator(self, inputs: StepInput) -> Tensor:
        latents = self.latents(inputs.samples, inputs.step, "discriminator")
        if self.share_fakes:
            inputs.shared["fakes"] = self.generator(latents)
            return inputs.shared["fakes"].detach()
        with torch.no_grad():
            return self.generator(latents)
