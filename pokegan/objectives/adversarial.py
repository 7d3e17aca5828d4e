"""Generator against discriminator: a phase each, and one for every lazy penalty between them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pokegan.augment.policy import Role
from pokegan.objectives.labels import Labels
from pokegan.objectives.losses import AdversarialLoss
from pokegan.objectives.penalties import Penalty, Seen
from pokegan.objectives.phases import Phase, PhaseResult, StepInput
from pokegan.objectives.precision import at_least_float32

Network = Callable[[Tensor], Tensor]
LatentSampler = Callable[[Tensor, Tensor, str], Tensor]
Augment = Callable[[Tensor, Tensor, Tensor, Role], Tensor]
Gather = Callable[[Tensor], Tensor]


class AdversarialObjective:
    """The two-player game of arXiv 1406.2661 with any pair of losses.

    A penalty of every step is a term of the discriminator's loss: one update for both. A lazy one
    (`every` > 1) is a phase with an update of its own and `every` times its weight, as in arXiv
    1912.04958 (appendix B, without its small change to Adam's settings); it sees the pictures that
    the discriminator's phase of that step saw. So a phase does the same whenever it runs.

    Recorded: `loss/discriminator` (without penalties, so that runs with and without compare),
    `loss/generator`, `penalty/<name>` (weight included, `every` not), and mean scores:
    `score/real` D(x) and `score/fake` D(G(z)) before the discriminator's update,
    `score/fake_after` the D(G(z)) that the generator meets after it. `AdversarialLoss.score` says
    what a score is.

    Args:
        generator: latents [N, Z] to pictures [N, 3, H, W].
        discriminator: pictures to logits [N]; with penalties not compiled on its own, for no
            compiled graph can be differentiated twice.
        latents: (samples [N], step, name of the phase) to latents [N, Z].
        loss: the two sides' losses.
        labels: the discriminator's targets; hard ones if None.
        share_fakes: the discriminator's fakes serve the generator's phase too, so the generator
            runs forward once a step. Not together with `discriminator_steps` > 1.
        discriminator_steps: the generator is updated in one step of so many.
        penalties: on the discriminator.
        weight_clip: bound of the discriminator's parameters after each of its updates, or None.
        augment: (pictures [N, 3, H, W], step, samples [N], role) to pictures of that shape, right
            before the discriminator; role is real, fake, or generator for the fakes of the
            generator's phase, through which gradients pass. None for no augmentation.
        observe: gets the detached logits [N] of the real pictures in the discriminator's phase,
            above those of a picture on which it is undecided.
        gather: [N] values of this share of the batch to those of all of it, differentiable by its
            own; for a loss that is `batchwide`. None: the share is the batch.
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
        penalties: Sequence[Penalty] = (),
        weight_clip: float | None = None,
        augment: Augment | None = None,
        observe: Callable[[Tensor], None] | None = None,
        gather: Gather | None = None,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.latents = latents
        self.loss = loss
        self.labels = labels or Labels()
        self.share_fakes = share_fakes
        self.discriminator_steps = discriminator_steps
        self._constant = [penalty for penalty in penalties if penalty.every == 1]
        self._lazy = [penalty for penalty in penalties if penalty.every > 1]
        self.weight_clip = weight_clip
        self.augment = augment
        self.observe = observe
        self.gather = gather if loss.batchwide else None

    def phases(self) -> list[Phase]:
        """Return the discriminator's phase, those of its lazy penalties, and the generator's."""
        return [
            Phase(
                "discriminator",
                ("discriminator",),
                self.discriminator_loss,
                clip=self.weight_clip,
                second_order=any(penalty.second_order for penalty in self._constant),
            ),
            *(
                Phase(
                    f"penalty/{penalty.name}",
                    ("discriminator",),
                    functools.partial(self.lazy_penalty, penalty),
                    every=penalty.every,
                    clip=self.weight_clip,
                    second_order=penalty.second_order,
                )
                for penalty in self._lazy
            ),
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
        fake = self._augmented(self._fakes_for_discriminator(inputs), inputs, "fake")
        real = self._augmented(inputs.real, inputs, "real")
        real_logits = at_least_float32(self.discriminator(real))
        fake_logits = at_least_float32(self.discriminator(fake))
        if self.observe is not None:
            self.observe(real_logits.detach() - (self.loss.undecided or 0.0))
        loss = self._told_apart(real_logits, fake_logits, inputs)
        recorded = {
            "loss/discriminator": loss.detach(),
            "score/real": self.loss.score(real_logits),
            "score/fake": self.loss.score(fake_logits),
        }
        seen = Seen(real, fake, inputs.samples, inputs.step, inputs.anchor)
        if self._lazy:
            inputs.shared |= {"seen/real": real, "seen/fake": fake}
        for penalty in self._constant:
            term = penalty(self.discriminator, seen)
            recorded[f"penalty/{penalty.name}"] = term.detach()
            loss = loss + term
        return PhaseResult(loss, recorded)

    def lazy_penalty(self, penalty: Penalty, inputs: StepInput) -> PhaseResult:
        """Return a penalty as heavy as all the steps that it stands for."""
        real, fake = inputs.shared["seen/real"], inputs.shared["seen/fake"]
        seen = Seen(real, fake, inputs.samples, inputs.step, inputs.anchor)
        term = penalty(self.discriminator, seen)
        return PhaseResult(penalty.every * term, {f"penalty/{penalty.name}": term.detach()})

    def generator_loss(self, inputs: StepInput) -> PhaseResult:
        """Return how badly the generator fools the discriminator."""
        fakes = inputs.shared.pop("fakes", None)
        if fakes is None:
            fakes = self.generator(self.latents(inputs.samples, inputs.step, "generator"))
        logits = at_least_float32(self.discriminator(self._augmented(fakes, inputs, "generator")))
        loss = self._fooled(logits, self._real_logits(inputs, logits))
        return PhaseResult(
            loss,
            {"loss/generator": loss.detach(), "score/fake_after": self.loss.score(logits)},
        )

    def _told_apart(self, real: Tensor, fake: Tensor, inputs: StepInput) -> Tensor:
        """Return the discriminator's loss on [N] logits, of the whole batch where it must be."""
        if self.gather is None:
            return self.labels.loss(self.loss, real, fake, inputs)
        everyone = dataclasses.replace(inputs, samples=self.gather(inputs.samples))
        return self.labels.loss(self.loss, self.gather(real), self.gather(fake), everyone)

    def _fooled(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the generator's loss on [N] logits, of the whole batch where it must be."""
        if self.gather is None:
            return self.loss.generator(fake, real)
        return self.loss.generator(self.gather(fake), self.gather(real))

    def _augmented(self, pictures: Tensor, inputs: StepInput, role: Role) -> Tensor:
        if self.augment is None:
            return pictures
        return self.augment(pictures, inputs.step, inputs.samples, role)

    def _real_logits(self, inputs: StepInput, fake_logits: Tensor) -> Tensor:
        """What a relativistic loss compares fakes with; the others do not look."""
        if not self.loss.relativistic:
            return fake_logits
        with torch.no_grad():
            return at_least_float32(
                self.discriminator(self._augmented(inputs.real, inputs, "real"))
            )

    def _fakes_for_discriminator(self, inputs: StepInput) -> Tensor:
        latents = self.latents(inputs.samples, inputs.step, "discriminator")
        if self.share_fakes:
            inputs.shared["fakes"] = self.generator(latents)
            return inputs.shared["fakes"].detach()
        with torch.no_grad():
            return self.generator(latents)
