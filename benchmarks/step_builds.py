"""A run's parts with steps in a mode by name, and runs brought to the same state or nearly."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pokegan.config import RunConfig, override
from pokegan.data.loaders import PictureSet
from pokegan.training.build import Parts, build
from pokegan.training.compiled_step import CompiledStep, Runner
from pokegan.training.networks import build_networks
from pokegan.training.step import EagerStep
from pokegan.training.whole_step import WholeStep

# Ways to run a step, by device; the first is what the others are compared with.
MODES = {"cpu": ("eager", "recorded", "compiled"), "cuda": ("eager", "compiled", "captured")}
_COMPILE = {"eager": "off", "recorded": "auto", "compiled": "off", "captured": "on", "auto": "auto"}


class FellBackError(RuntimeError):
    """Steps did not run in the mode that was asked for."""


def build_in(mode: str, config: RunConfig, packed: PictureSet, in_float64: bool = False) -> Parts:
    """Return the parts of a run.

    Args:
        mode: of its steps, one of `MODES`, or auto for what a run would choose. Compiled steps
            raise where they do not work; after other ones `require` says.
        config: all other settings.
        packed: the pictures.
        in_float64: networks, and what they are given, instead of the config's precision.
    """
    config = override(config, {"training.compile": _COMPILE[mode]})
    parts = build(config, packed, networks_in_float64(config) if in_float64 else None)
    if mode != "compiled":
        return parts
    assert isinstance(parts.step, EagerStep)
    return dataclasses.replace(parts, step=CompiledStep(Runner(WholeStep(parts.step.parts))))


def networks_in_float64(config: RunConfig) -> dict[str, nn.Module]:
    """Return the networks of a run in float64, which turn whatever they are given into it."""
    networks = build_networks(config)
    for network in networks.values():
        network.double().register_forward_pre_hook(_to_float64)
    return networks


def _to_float64(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        one.double() if isinstance(one, Tensor) and one.is_floating_point() else one
        for one in inputs
    )


def require(mode: str, parts: Parts) -> None:
    """Raise `FellBackError` unless the steps that were run are of that mode."""
    if parts.step.mode != mode:
        reasons = "; ".join(parts.step.news()) or "no reason was told"
        raise FellBackError(f"steps are {parts.step.mode}, not {mode}: {reasons}")


def copy_state(one: Parts, other: Parts) -> None:
    """Bring the second run to the state of the first."""
    other.load(copy.deepcopy(one.state()))


def nudge(parts: Parts, share: float = 1e-7) -> None:
    """Change every weight by about that share of itself, as a loaded state.

    Weights that are written any other way have their spectral norms found anew, by one more
    iteration: more than a rounding.
    """
    random = torch.Generator().manual_seed(0)
    state = copy.deepcopy(parts.state())
    for name, network in parts.networks.items():
        for key, weight in network.named_parameters():
            noise = torch.randn(weight.shape, generator=random).to(weight)
            state["networks"][name][key].mul_(1 + share * noise)
    parts.load(state)


def apart(one: Parts, other: Parts) -> float:
    """Return the largest distance between the weights of two networks over their length."""
    worst = 0.0
    for name, network in one.networks.items():
        a, b = (
            torch.cat([p.detach().double().flatten() for p in net.parameters()])
            for net in (network, other.networks[name])
        )
        worst = max(worst, float((a - b).norm() / a.norm()))
    return worst


def difference(
    wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], floor: float = 1e-3
) -> float:
    """Return the largest relative difference of two steps' losses.

    Args:
        wanted: what one of them recorded.
        found: what the other did.
        floor: losses nearer to 0 count as it.
    """
    return max(
        float((found[name] - value).abs()) / max(float(value.abs()), floor)
        for name, value in wanted.items()
        if name.startswith("loss/")
    )
