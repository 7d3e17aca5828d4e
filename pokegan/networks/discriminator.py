"""What every discriminator gives: a logit a picture, and the activations that it is made from."""

from torch import Tensor, nn


class Discriminator(nn.Module):
    """Hidden layers and a head.

    A subclass sets `layers`, from pictures to the last hidden activations [N, ...], and `head`,
    from these to one value a picture.
    """

    layers: nn.Module
    head: nn.Module

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, 3, size, size] in [-1, 1] to [N] logits."""
        logits: Tensor = self.head(self.layers(pictures))
        return logits.reshape(pictures.shape[0])

    def features(self, pictures: Tensor) -> Tensor:
        """[N, 3, size, size] in [-1, 1] to [N, F], the last hidden activations."""
        hidden: Tensor = self.layers(pictures)
        return hidden.flatten(1)

    def logits_and_features(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return `forward` and `features` of one pass, which share its dropout masks.

        Both serve the consistency term of CT-GAN (arXiv 1803.01541, eq. 5).
        """
        hidden: Tensor = self.layers(pictures)
        logits: Tensor = self.head(hidden)
        return logits.reshape(pictures.shape[0]), hidden.flatten(1)
