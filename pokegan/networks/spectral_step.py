"""A spectral norm within a step that is compiled or captured as a whole.

There a weight's version cannot be asked for: what is iterated when is fixed while the step is
traced, from what the step itself updates.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pokegan.ops.spectral_norm_reference import Factors

Normalised = dict[tuple[torch.dtype, bool], list[Tensor]]


class TracedStep:
    """The factors and normalised weights of one network from update to update of one step.

    The same iterations as by versions: one at the first training forward after every update, with
    `exact` one at every forward; forward passes in between share the normalised weights.

    Args:
        iterate: runs the power method on the weights as they are, changing u and v.
        recall: gives the factors of u and v as they are; told whether sigma is on record.
        scale: divides the weights by sigma, in a dtype.
        exact: iterate at every forward, and at a layer's use before the first one. Otherwise what
            was found before the step is taken up.
    """

    def __init__(
        self,
        iterate: Callable[[], Factors],
        recall: Callable[[bool], Factors],
        scale: Callable[[Factors, torch.dtype], list[Tensor]],
        exact: bool,
    ) -> None:
        self.iterate = iterate
        self.recall = recall
        self.scale = scale
        self.current = not exact
        self.exact = exact
        self.factors: Factors | None = None
        self.normalised: Normalised = {}

    def begin_forward(self) -> None:
        """Start a forward pass of the whole network."""
        if self.exact:
            self.written()

    def written(self) -> None:
        """Take the weights as changed."""
        self.current = False
        self.factors = None
        self.normalised = {}

    def weights(self, dtype: torch.dtype, training: bool) -> list[Tensor]:
        """Return the normalised weights in `dtype`, differentiable where gradients are on."""
        grad = torch.is_grad_enabled()
        if training and not self.current:
            self.written()
            self.factors, self.current = self.iterate(), True
        elif self.factors is None:
            self.factors = self.recall(self.current)
        for key in ((dtype, grad), (dtype, True)):
            if key in self.normalised:
                return self.normalised[key]
        self.normalised[dtype, grad] = self.scale(self.factors, dtype)
        return self.normalised[dtype, grad]
