"""A network written down as a list of PyTorch's own operators, for who does not have pokegan."""

import dataclasses
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, TensorArgument

from pokegan.errors import PokeganError

EXAMPLES = 2  # of the batch that is traced; any other size runs too
MOST_EXAMPLES = 4096
CHECKS = (torch.ops.aten._assert_tensor_metadata.default,)  # compute nothing


@dataclasses.dataclass(frozen=True)
class Program:
    """What a network computes, for a batch of any size.

    Attributes:
        steps: in order; each has `operator`, a name under `torch.ops`, the list `arguments`,
            perhaps the mapping `options`, and the name of its `result`. In the arguments a text is
            the name of a tensor: the input, a weight or an earlier result; texts that name no
            tensor stand for themselves.
        weights: the tensors that the steps name, by their names in the network's state dict.
        result: the name of the network's output.
    """

    steps: list[dict[str, Any]]
    weights: dict[str, Tensor]
    result: str


def trace(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Return `network`, in eval mode, as PyTorch's exported graph for a batch of any size."""
    batch = torch.export.Dim("batch", min=1, max=MOST_EXAMPLES)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of parts of torch.export about others of its parts
        return torch.export.export(network, (example,), dynamic_shapes=({0: batch},))


def write_down(network: nn.Module, example: Tensor, name: str) -> Program:
    """Return what `network` computes in inference as a program.

    Args:
        network: in eval mode, with one input and one output.
        example: an input [2, ...]; its first axis may have any length later.
        name: what the program calls the input.

    Raises:
        PokeganError: it holds something that is no number, text, list or tensor.
    """
    exported = trace(network, example)
    held = {**exported.state_dict, **exported.constants}
    names, weights = {}, {}
    for spec in exported.graph_signature.input_specs:
        assert isinstance(spec.arg, TensorArgument)
        if spec.kind is InputKind.USER_INPUT:
            names[spec.arg.name] = name
            continue
        names[spec.arg.name] = str(spec.target)
        weights[str(spec.target)] = held[str(spec.target)].detach()
    steps: list[dict[str, Any]] = []
    for node in exported.graph.nodes:
        if _keeps_type(node):
            names[node.name] = names[str(node.args[0])]
        elif node.op == "call_function" and node.target not in CHECKS:
            names[node.name] = f"step {len(steps)}"
            steps.append(_step(node, names))
    (output,) = exported.graph_signature.user_outputs
    used = {text for step in steps for text in _texts(step)}
    return Program(
        steps, {key: value for key, value in weights.items() if key in used}, names[str(output)]
    )


def _keeps_type(node: torch.fx.Node) -> bool:
    """Whether this converts a tensor to the type that it has."""
    if node.target is not torch.ops.aten.to.dtype:
        return False
    given = node.args[0]
    assert isinstance(given, torch.fx.Node)
    return bool(given.meta["val"].dtype == node.meta["val"].dtype)


def _step(node: torch.fx.Node, names: dict[str, str]) -> dict[str, Any]:
    if not isinstance(node.target, torch._ops.OpOverload):
        raise PokeganError(f"the network cannot be written down: {node.target} is no operator")
    step: dict[str, Any] = {
        "operator": str(node.target),
        "arguments": [_value(one, names) for one in node.args],
        "result": names[node.name],
    }
    if node.kwargs:
        step["options"] = {key: _value(one, names) for key, one in node.kwargs.items()}
    return step


def _value(argument: Any, names: dict[str, str]) -> Any:
    if isinstance(argument, torch.fx.Node):
        return names[argument.name]
    if isinstance(argument, list | tuple):
        return [_value(one, names) for one in argument]
    if argument is None or isinstance(argument, bool | int | float):
        return argument
    if isinstance(argument, str) and argument not in names.values():
        return argument
    raise PokeganError(f"the network cannot be written down: {argument!r} is no number or tensor")


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []
