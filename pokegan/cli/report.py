"""`pokegan report`: one HTML file about a run, or several runs side by side."""

import argparse
from pathlib import Path

MOST = 8


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: argparse.ArgumentParser,
) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        parents=[common],
        help="write an HTML report of a run, or of several side by side",
        description="Write one HTML file that opens offline: samples over time, losses, gradients, "
        "metrics, nearest training pictures. Each run has its own from its end on.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help=f"up to {MOST} run folders")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the file (default: report.html in the run's folder; of several runs in this one)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report and print where it is."""
    from pokegan.errors import ConfigError
    from pokegan.training.report import write_report
    from pokegan.training.run_folder import find

    if len(args.runs) > MOST:
        raise ConfigError(f"{len(args.runs)} runs: a report shows up to {MOST} side by side")
    folders = [find(Path(one)) for one in args.runs]
    out = args.out or (folders[0].report if len(folders) == 1 else Path("report.html"))
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file, such as {out / 'report.html'}")
    write_report(folders, out)
    print(out)
    return 0
