"""`pokegan export`: a generator for those who do not have pokegan."""

import argparse
import json
from pathlib import Path

FORMATS = ("safetensors", "onnx")


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: argparse.ArgumentParser,
) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        parents=[common],
        help="write a generator that runs without pokegan",
        description="Write a run's generator so that it runs without pokegan, with a model card.",
    )
    parser.add_argument(
        "source", metavar="RUN", help="a run folder, a checkpoint .pt or a .safetensors"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        action="append",
        help="safetensors: weights, and a JSON program of PyTorch operators; onnx: checked with "
        "ONNX Runtime; may be given twice (default: safetensors)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("generator"),
        metavar="FOLDER",
        help="folder of the files (default: generator)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files and print their paths."""
    from pokegan.errors import ConfigError
    from pokegan.training.export import check_onnx, export_onnx, export_safetensors, write_card
    from pokegan.training.generator import load
    from pokegan.training.run_folder import RunFolder, find

    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out {args.out}: is a file; a folder is wanted")
    source = Path(args.source)
    if RunFolder(args.out).config.exists():
        raise ConfigError(f"--out {args.out}: is a run folder; name another one")
    formats = args.format or FORMATS[:1]
    if "onnx" in formats:
        check_onnx()
    generator = load(source)
    writers = {"safetensors": export_safetensors, "onnx": export_onnx}
    for name in formats:
        print(writers[name](generator, args.out))
    folder = find(source) if source.is_dir() else None
    config = None if folder is None else folder.read_config()
    print(
        write_card(generator, args.out, config, {} if folder is None else _measured(folder.stats))
    )
    return 0


def _measured(stats: Path) -> dict[str, float | None]:
    """Return the newest value of every metric in a run's records."""
    found: dict[str, float | None] = {}
    if stats.exists():
        for line in stats.read_text(encoding="utf-8").splitlines():
            facts = json.loads(line) if line.endswith("}") else {}
            found |= {key: value for key, value in facts.items() if key.startswith("metrics/")}
    return found
