"""The program `pokegan`: finds the command, runs it, and turns errors into one line."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

import pokegan
from pokegan.cli import (
    data,
    doctor,
    evaluate,
    export,
    generate,
    recipes,
    report,
    train,
    video,
)
from pokegan.errors import ConfigError, PeerError, PokeganError, RankError
from pokegan.training.launch import Launch

INTERRUPTED = 130
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class _Parser(argparse.ArgumentParser):
    """Ends wrong usage with one line and exit code 2, without the whole usage text."""

    def error(self, message: str) -> NoReturn:
        if not _speaks():
            self.exit(2)
        self.exit(2, f"{self.prog}: error: {message} (see `{self.prog} --help`)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for a mistake, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files hold letters that a terminal may not
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(arguments)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    except PokeganError as error:
        return _fail(error, "--traceback" in arguments)
    if not hasattr(args, "run"):
        parser.print_help()
        return 2
    try:
        return int(args.run(args))
    except PeerError as error:
        return error.code
    except RankError as error:
        _fail(error, args.traceback)
        return 1
    except PokeganError as error:
        return _fail(error, args.traceback)
    except KeyboardInterrupt:
        if _speaks():
            print("pokegan: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except (MemoryError, OSError) as error:
        return _fail(error, args.traceback)
    except Exception as error:
        _fail(error, args.traceback)
        hint = "" if args.traceback else "; --traceback shows where"
        if _speaks():
            print(f"pokegan: this is a fault of pokegan, not yours{hint}", file=sys.stderr)
        return 1


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser; `train --help` shows the defaults of the recipe named in `arguments`."""
    parser: argparse.ArgumentParser = _Parser(
        prog="pokegan", description="Train GANs on small picture collections; make new creatures."
    )
    parser.add_argument("--version", action="version", version=f"pokegan {pokegan.__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands: Commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    train.add_parser(commands, common, arguments)
    generate.add_parser(commands, common)
    video.add_parser(commands, common)
    export.add_parser(commands, common)
    report.add_parser(commands, common)
    evaluate.add_parser(commands, common)
    data.add_parser(commands, common)
    recipes.add_parser(commands, common)
    doctor.add_parser(commands, common)
    parser.set_defaults(traceback=False)
    return parser


def _fail(error: Exception, show_traceback: bool) -> int:
    if not _speaks():
        return 2
    if show_traceback:
        traceback.print_exception(error)
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"pokegan: error: {text}", file=sys.stderr)
    return 2


def _speaks() -> bool:
    """Whether errors are told here: under torchrun by one process a host."""
    try:
        return Launch.from_environment().speaks
    except ConfigError:
        return True
