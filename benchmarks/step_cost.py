"""What a training step costs, counted on the networks themselves, without running them.

The phases of a recipe run on the meta device: shapes, no numbers. Every operator is noted with its
floating-point operations (torch.utils.flop_counter; a multiply and an add are two) and the elements
that it reads and writes; every exchange between ranks with its bytes. Both depend linearly on the
batch, so two batches tell them for any.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.errors import ConfigError
from pokegan.networks.batch_norm import share
from pokegan.objectives.phases import StepInput
from pokegan.training.build import build_phases
from pokegan.training.networks import build_networks

ADAM_ELEMENTS = 7  # reads weight, gradient and two moments, writes all but the gradient
NOT_RUN = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach")


@dataclass(frozen=True)
class Operator:
    """One operator of a step, as a line in the pictures n of a rank: fixed + n * each.

    Attributes:
        flops: (fixed, each) floating-point operations.
        elements: (fixed, each) read and written.
    """

    flops: tuple[float, float]
    elements: tuple[float, float]

    def at(self, pictures: float) -> tuple[float, float]:
        """Return floating-point operations and elements for so many pictures."""
        return (
            self.flops[0] + pictures * self.flops[1],
            self.elements[0] + pictures * self.elements[1],
        )


@dataclass(frozen=True)
class StepCost:
    """What one step in which every phase runs costs a rank.

    Attributes:
        recipe: its name.
        size: of the pictures in px.
        batch: the recipe's own, global.
        parameters: by network.
        operators: in order, the updates included.
        gradients: bytes of each all-reduce of a network's gradients, float32.
        gathers: bytes of a rank's share in each all-gather of batch norm.
        sums: bytes of each all-reduce of batch norm's backward pass.
    """

    recipe: str
    size: int
    batch: int
    parameters: dict[str, int]
    operators: tuple[Operator, ...]
    gradients: tuple[int, ...]
    gathers: tuple[int, ...]
    sums: tuple[int, ...]

    @property
    def flops_per_picture(self) -> float:
        """Return the floating-point operations that one picture more costs."""
        return sum(operator.flops[1] for operator in self.operators)

    @property
    def elements_per_picture(self) -> float:
        """Return the elements that one picture more makes operators read and write."""
        return sum(operator.elements[1] for operator in self.operators)


def step_cost(recipe: str, size: int) -> StepCost:
    """Count a step of `recipe` on pictures of `size` px.

    Args:
        recipe: its name.
        size: of the pictures in px.

    Raises:
        ConfigError: there is no such recipe, it has no such size, or its step holds what cannot
            run without numbers, such as spectral norm.
    """
    return cost_of(override(recipes.get(recipe), {"data.size": size}))


def cost_of(config: RunConfig) -> StepCost:
    """Count a step of the run that `config` describes.

    Raises:
        ConfigError: its step holds what cannot run without numbers.
    """
    made = {name: network.to("meta") for name, network in build_networks(config).items()}
    try:
        few, more = (_run(config, made, batch, None)[0] for batch in (2, 4))
    except (NotImplementedError, RuntimeError) as error:
        raise ConfigError(
            f"{config.recipe}: a step of it cannot run without numbers: {error}"
        ) from error
    operators = [_line(a, b) for a, b in zip(few, more, strict=True)]
    counts = {name: sum(p.numel() for p in one.parameters()) for name, one in made.items()}
    peers = _Counting()
    phases = _run(config, made, 2, peers)[1]
    updated = [name for phase in phases for name in phase.updates]
    for name in updated:
        elements = float(ADAM_ELEMENTS * 2 * counts[name])  # of 4 bytes, where others have 2
        operators.append(Operator((0.0, 0.0), (elements, 0.0)))
    return StepCost(
        config.recipe,
        config.data.size,
        config.training.batch,
        counts,
        tuple(operators),
        tuple(4 * counts[name] for name in updated),
        tuple(peers.gathers),
        tuple(peers.sums),
    )


Noted = list[tuple[float, float]]


def _run(
    config: RunConfig, networks: dict[str, nn.Module], batch: int, peers: "_Counting | None"
) -> tuple[Noted, Sequence[Any]]:
    """Run every phase forwards and backwards on the meta device; return what was noted."""
    for network in networks.values():
        share(network, peers)
    phases = build_phases(config, networks, (255, 255, 255), None)
    size = config.data.size
    real = torch.empty(batch, 3, size, size, device="meta")
    samples = torch.empty(batch, dtype=torch.int64, device="meta")
    inputs = StepInput(real, samples, torch.empty((), dtype=torch.int64, device="meta"))
    notes = _Notes()
    for phase in phases:
        frozen = [p for name in phase.frozen for p in networks[name].parameters()]
        for parameter in frozen:
            parameter.requires_grad_(False)
        with notes:
            phase.loss(inputs).loss.backward()  # type: ignore[no-untyped-call]  # torch's
        for parameter in frozen:
            parameter.requires_grad_(True)
        for network in networks.values():
            network.zero_grad(set_to_none=True)
    return notes.operators, phases


def _line(few: tuple[float, float], more: tuple[float, float]) -> Operator:
    """Return the line through what was noted for 2 and for 4 pictures."""
    flops, elements = ((2 * a - b, (b - a) / 2) for a, b in ((few[0], more[0]), (few[1], more[1])))
    return Operator(flops, elements)


class _Notes(TorchDispatchMode):
    """Notes (floating-point operations, elements) of every operator that does something."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Noted = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet is torch.ops.aten.batch_norm_update_stats:  # has no kernel for shapes alone
            out = tuple(args[0].new_empty(args[0].shape[1]) for _ in range(2))
        else:
            out = func(*args, **kwargs)
        if func.is_view or packet.__name__ in NOT_RUN:
            return out
        count = flop_registry.get(packet)
        flops = count(*args, **kwargs, out_val=out) if count is not None else 0
        tensors = [one for one in tree_leaves((args, kwargs, out)) if isinstance(one, Tensor)]
        self.operators.append((float(flops), float(sum(one.numel() for one in tensors))))
        return out


class _Counting:
    """`Peers` of two ranks who note what they would exchange."""

    count = 2
    rank = 0

    def __init__(self) -> None:
        self.gathers: list[int] = []
        self.sums: list[int] = []

    def gather(self, values: Tensor) -> Tensor:
        self.gathers.append(values.numel() * values.element_size())
        return values.new_empty((self.count, *values.shape))

    def sum(self, values: Tensor) -> Tensor:
        self.sums.append(values.numel() * values.element_size())
        return torch.empty_like(values)
