"""`pokegan doctor`: what was built, what is in use, and what to do about the rest."""

import argparse


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: argparse.ArgumentParser,
) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor", parents=[common], help="say what is built and in use, and what to do"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 when pokegan can train here."""
    from pokegan.training.diagnosis import report

    for line in report():
        print(line)
    return 0
