"""The flags of `pokegan train` for networks and their optimisers."""

import argparse
import dataclasses
import json
from typing import Any

from pokegan.config import NetworkConfig, OptimizerConfig, RunConfig
from pokegan.errors import ConfigError

SIDES = ("generator", "discriminator")
ADAM = {
    "weight_decay": ("--weight-decay", "Adam's L2 penalty"),
    "beta1": ("--beta1", "Adam's decay of the mean gradient"),
    "beta2": ("--beta2", "Adam's decay of the mean squared gradient"),
    "eps": ("--adam-eps", "Adam's epsilon"),
}


def add_networks(parser: argparse.ArgumentParser, defaults: RunConfig) -> None:
    """Add the flags; the defaults shown are those of `defaults`."""
    rates = [getattr(defaults, f"{side}_optimizer").lr for side in SIDES]
    shown = f"{rates[0]:g}" if rates[0] == rates[1] else f"{rates[0]:g} and {rates[1]:g}"
    parser.add_argument(
        "--lr", type=float, metavar="X", help=f"learning rate of both sides (default: {shown})"
    )
    for side, rate in zip(SIDES, rates, strict=True):
        parser.add_argument(
            f"--{side}-lr", type=float, metavar="X", help=f"of the {side} (default: {rate:g})"
        )
    parser.add_argument(
        "--generator-lr-factor",
        type=float,
        metavar="X",
        help="the generator's learning rate as this much of the discriminator's",
    )
    for name, (flag, about) in ADAM.items():
        value = getattr(defaults.generator_optimizer, name)
        parser.add_argument(
            flag, dest=name, type=float, metavar="X", help=f"{about} (default: {value:g})"
        )
    for side in SIDES:
        network: NetworkConfig = getattr(defaults, side)
        parser.add_argument(
            f"--{side}",
            metavar="NAME",
            help=f"another network, its options at their defaults (default: {network.name})",
        )
        parser.add_argument(
            f"--{side}-option",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="an option of the network, VALUE as JSON (default: "
            f"{json.dumps(dict(network.options))})",
        )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of generator and discriminator, such as norm=instance or dropout=0.3",
    )
    parser.add_argument(
        "--init",
        choices=("normal", "xavier", "kaiming", "pytorch"),
        help=f"how weights are initialised (default: {defaults.generator.init})",
    )


def with_networks(config: RunConfig, args: argparse.Namespace) -> RunConfig:
    """Return `config` with what the flags of `add_networks` say.

    Raises:
        ConfigError: an option is not KEY=VALUE, or two flags speak against each other.
    """
    _check_rates(config, args)
    parts: dict[str, Any] = {}
    for side in SIDES:
        network: NetworkConfig = getattr(config, side)
        name = getattr(args, side)
        if name is not None:
            network = NetworkConfig(name, {}, network.init)
        options = dict(network.options)
        for flag, pairs in (("option", args.option), (f"{side}-option", _options(args, side))):
            options.update(_parsed(flag, pair) for pair in pairs)
        init = args.init or network.init
        parts[side] = dataclasses.replace(network, options=options, init=init)
        parts[f"{side}_optimizer"] = _optimizer(getattr(config, f"{side}_optimizer"), side, args)
    factor = args.generator_lr_factor
    if factor is not None:
        if args.generator_lr is not None:
            raise ConfigError("give one of --generator-lr and --generator-lr-factor")
        if not 0 <= factor <= 100:
            raise ConfigError(f"--generator-lr-factor {factor:g}: a number in [0, 100] is wanted")
        rate = parts["discriminator_optimizer"].lr * factor
        parts["generator_optimizer"] = dataclasses.replace(parts["generator_optimizer"], lr=rate)
    for role in ("encoder", "latent_discriminator"):
        other: NetworkConfig | None = getattr(config, role)
        if other is not None and args.init is not None:
            parts[role] = dataclasses.replace(other, init=args.init)
    return dataclasses.replace(config, **parts)


def given_networks(args: argparse.Namespace) -> list[str]:
    """Return which of the flags of `add_networks` were given."""
    names = ["lr", "generator_lr_factor", "option", "init"]
    for side in SIDES:
        names += [side, f"{side}_lr", f"{side}_option"]
    dashed = {name: f"--{name.replace('_', '-')}" for name in names}
    given = [flag for name, flag in dashed.items() if getattr(args, name) not in (None, [])]
    return given + [flag for name, (flag, _) in ADAM.items() if getattr(args, name) is not None]


def _check_rates(config: RunConfig, args: argparse.Namespace) -> None:
    """Refuse learning rates where the stages have them."""
    given = [
        flag for flag in ("lr", *(f"{side}_lr" for side in SIDES)) if vars(args)[flag] is not None
    ]
    if config.schedule.stages and given:
        raise ConfigError(
            f"--{given[0].replace('_', '-')} has no effect with --stages, whose cycles have the "
            "learning rates; write them there, and --generator-lr-factor for the generator's"
        )


def _options(args: argparse.Namespace, side: str) -> list[str]:
    pairs: list[str] = getattr(args, f"{side}_option")
    return pairs


def _parsed(flag: str, pair: str) -> tuple[str, Any]:
    key, equals, text = pair.partition("=")
    if not equals:
        raise ConfigError(f"--{flag} {pair}: KEY=VALUE is wanted")
    for read in (json.loads, float):  # JSON has no .3
        try:
            return key, read(text)
        except ValueError:
            continue
    return key, text  # a bare word, such as norm=instance


def _optimizer(before: OptimizerConfig, side: str, args: argparse.Namespace) -> OptimizerConfig:
    own = getattr(args, f"{side}_lr")
    rate = own if own is not None else args.lr
    changes = {name: getattr(args, name) for name in ADAM if getattr(args, name) is not None}
    if rate is not None:
        changes["lr"] = rate
    return dataclasses.replace(before, **changes)
