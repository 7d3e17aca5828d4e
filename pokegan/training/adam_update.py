"""Adam's update as one operator on lists of tensors, for steps that are one function of tensors.

The state is that of the `torch.optim.Adam`, in place: a checkpoint is the same in every mode. The
arithmetic is the fused kernel that the optimiser itself calls.
"""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor

from pokegan.ops.python_operator import python_operator
from pokegan.training.step import StepRefusedError

_NEEDED = {"fused": True, "amsgrad": False, "maximize": False, "decoupled_weight_decay": False}


class Adam(torch.optim.Adam):
    """PyTorch's Adam, without the import of PyTorch's compiler when it is made, loaded or saved.

    That takes 2 s, and all that it is for is that a compiler passes these methods by.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)


class AdamUpdate:
    """Updates what one fused `torch.optim.Adam` of one group updates.

    The learning rate is read from a tensor, which `prepare` fills from the group's: schedules work
    in a graph that is compiled or captured once.

    Args:
        optimizer: its state is made when it has none, as its first step would.

    Raises:
        StepRefusedError: it is another kind of optimiser.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        groups = optimizer.param_groups
        settings = {key: groups[0].get(key, False) for key in _NEEDED}
        if not isinstance(optimizer, torch.optim.Adam) or len(groups) > 1 or settings != _NEEDED:
            kind = type(optimizer).__name__
            raise StepRefusedError("optimiser", f"{kind} has no operator; fused Adam has one")
        self.optimizer = optimizer
        self.parameters: list[Tensor] = [p for p in groups[0]["params"] if p.requires_grad]
        device = self.parameters[0].device
        exact = torch.float64 if device.type == "cpu" else torch.float32  # what the kernels read
        self.rate = torch.zeros((), dtype=exact, device=device)
        self._filled: float | None = None
        self._take_state()

    def prepare(self) -> bool:
        """Set the rate of the next step; return whether the state was replaced by a loaded one."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        if rate != self._filled:
            self.rate.fill_(rate)
            self._filled = rate
        if self._state is self.optimizer.state:
            return False
        self._take_state()
        return True

    def __call__(self, gradients: Sequence[Tensor | None]) -> None:
        """Update in place by `gradients`, one a parameter; None leaves its parameter as it is."""
        group = self.optimizer.param_groups[0]
        given = [place for place, gradient in enumerate(gradients) if gradient is not None]
        torch.ops.pokegan.adam_update(
            [self.parameters[place] for place in given],
            [gradient for gradient in gradients if gradient is not None],
            [self.means[place] for place in given],
            [self.squares[place] for place in given],
            [self.steps[place] for place in given],
            self.rate,
            *group["betas"],
            group["eps"],
            group["weight_decay"],
        )

    def _take_state(self) -> None:
        self._state = self.optimizer.state
        for parameter in self.parameters:
            state = self._state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self._state[parameter] for parameter in self.parameters]
        self.means: list[Tensor] = [state["exp_avg"] for state in states]
        self.squares: list[Tensor] = [state["exp_avg_sq"] for state in states]
        self.steps: list[Tensor] = [state["step"] for state in states]


def _adam_update(
    parameters: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
    rate: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Make one step of Adam (arXiv 1412.6980, Algorithm 1) with the fused kernel, in place."""
    laid_out = [  # the kernel goes through memory and takes all orders of dimensions for the same
        gradient if gradient.stride() == own.stride() else torch.empty_like(own).copy_(gradient)
        for gradient, own in zip(gradients, parameters, strict=True)
    ]
    torch._foreach_add_(steps, 1)
    torch._fused_adam_(
        parameters,
        laid_out,
        means,
        squares,
        [],
        steps,
        lr=rate,
        beta1=beta1,
        beta2=beta2,
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )


python_operator(
    _adam_update,
    "adam_update",
    changes=("parameters", "means", "squares", "steps"),
)
