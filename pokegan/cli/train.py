"""`pokegan train`: a new run, or `--resume` of one."""

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pokegan import recipes
from pokegan.cli.networks import add_networks, given_networks, with_networks
from pokegan.cli.progress import bar
from pokegan.config import RESUMABLE, RunConfig, Setting, override, settings
from pokegan.errors import ConfigError

if TYPE_CHECKING:
    from pokegan.training.run import Run


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: argparse.ArgumentParser,
    arguments: Sequence[str] = (),
) -> None:
    """Add the command; its defaults shown are those of the recipe named in `arguments`."""
    named = next((word for word in arguments[1:] if word in recipes.RECIPES), recipes.DEFAULT)
    defaults = recipes.get(named)
    parser = commands.add_parser(
        "train",
        parents=[common],
        help="train a GAN on pictures",
        description="Train a GAN on pictures. With no argument: the house DCGAN on the demo set.",
        epilog=f"The defaults shown are those of the recipe {named}.",
    )
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help=f"one of {', '.join(recipes.RECIPES)}"
    )
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue this run folder")
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder, new or empty")
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="when --out holds this run already, go on with it: for jobs that are started again",
    )
    for entry in settings():
        _add_setting(parser, entry, defaults)
    add_networks(parser, defaults)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, print where things are, and return the exit code."""
    from pokegan.recipes.changes import fit_to_loss
    from pokegan.training.launch import Launch
    from pokegan.training.session import resume, train

    main = Launch.from_environment().is_main
    say = functools.partial(print, flush=True)  # a rank that is lost ends without flushing
    changes = {
        entry.path: getattr(args, entry.path)
        for entry in settings()
        if getattr(args, entry.path) is not None
    }
    if args.resume is not None:
        _check_resume(args, changes)
        with bar("preparing", shown=main) as progress:
            done = resume(args.resume, changes, say, progress)
    else:
        if args.go_on and args.out is None:
            raise ConfigError("--continue needs --out RUN, the folder to go on in")
        config = override(recipes.get(args.recipe or recipes.DEFAULT), _with_length(changes))
        config, off = fit_to_loss(with_networks(config, args).validated(), changes)
        if off and main:
            say(f"note      --loss {config.objective.loss}: without the recipe's {', '.join(off)}")
        with bar("preparing", shown=main) as progress:
            done = train(config, args.out, say, progress, args.go_on)
    if main:
        _tell(done)
    return 0 if done.signal is None else 128 + done.signal


def _tell(done: "Run") -> None:
    """Print what a run has left, and what to do next."""
    kimg = done.images / 1000
    print(f"\ndone      {done.steps:,} steps, {kimg:g} kimg in {done.seconds:.0f} s")
    print(f"time      {_shares(done.spent)}")
    print(f"samples   {done.grid}")
    for name, path in (("animation", done.animation), ("report   ", done.report)):
        if path.exists():
            print(f"{name} {path}")
    print(f"weights   {done.weights}")
    print(f"next      pokegan generate {done.folder} -n 16 --out creatures")
    if done.signal is not None:
        print(f"stopped by {done.signal.name}; continue with: pokegan train --resume {done.folder}")


def _shares(spent: Mapping[str, float]) -> str:
    """Say how the time was divided, the largest share first."""
    whole = sum(spent.values()) or 1.0
    parts = sorted(spent.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {100 * seconds / whole:.1f} %" for name, seconds in parts)


def _with_length(changes: dict[str, Any]) -> dict[str, Any]:
    """Return `changes` with the length that new stages have, where no other is given."""
    from pokegan.training.stages import epochs, parse_stages

    stages = parse_stages(changes.get("schedule.stages", ""))
    if not stages or any(path.startswith("length.") for path in changes):
        return changes
    return changes | {"length.epochs": epochs(stages)}


def _add_setting(parser: argparse.ArgumentParser, entry: Setting, defaults: RunConfig) -> None:
    value = entry.value_in(defaults)
    shown = "off" if value is False else "on" if value is True else value
    text = entry.metadata["help"].replace("%", "%%")
    if value is None and entry.metadata["unset"]:
        text += f" (default: {entry.metadata['unset']})"
    elif value not in (None, ""):
        unit = f" {entry.metadata['unit']}" if entry.metadata["unit"] else ""
        text += f" (default: {shown}{unit})"
    if entry.kind is bool:
        action: Any = argparse.BooleanOptionalAction
        parser.add_argument(entry.flag, dest=entry.path, action=action, default=None, help=text)
        return
    choices = entry.metadata["choices"] or None
    metavar = None if choices else {int: "N", float: "X", str: "TEXT"}[entry.kind]
    parser.add_argument(
        entry.flag, dest=entry.path, type=entry.kind, choices=choices, metavar=metavar, help=text
    )


def _check_resume(args: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Refuse what a run cannot change once it has begun."""
    flags = {entry.path: entry.flag for entry in settings()}
    wrong = [flags[path] for path in changes if path not in RESUMABLE]
    wrong += given_networks(args)
    wrong += ["--out"] if args.out is not None else []
    wrong += ["--continue"] if args.go_on else []
    wrong += [f"the recipe {args.recipe}"] if args.recipe is not None else []
    if wrong:
        allowed = ", ".join(flags[path] for path in RESUMABLE)
        raise ConfigError(
            f"--resume goes on with the run's own settings; leave out {wrong[0]} "
            f"(only {allowed} can change)"
        )
