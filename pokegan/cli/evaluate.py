"""`pokegan evaluate`: how good the pictures of a run are, in numbers."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pokegan.metrics.result import Evaluation


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: argparse.ArgumentParser,
) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        parents=[common],
        help="measure how good generated pictures are",
        description="Measure the pictures of a run against real ones; several runs are put in "
        "order, a collapsed one last. docs/metrics.md says what each number is.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="RUN",
        help="run folders, checkpoints .pt or weight files .safetensors",
    )
    parser.add_argument("--data", metavar="DATA", help="the real pictures (default: the run's own)")
    parser.add_argument(
        "-n", type=int, default=10_000, metavar="N", help="pictures to generate (default: 10000)"
    )
    parser.add_argument(
        "--features",
        choices=("efficientnet-lite2", "inception", "pyramid"),
        default="efficientnet-lite2",
        help="of a network, or of none (pyramid); (default: efficientnet-lite2)",
    )
    parser.add_argument(
        "--inception-weights", type=Path, metavar="FILE", help="instead of the download"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.add_argument(
        "--truncation", type=float, metavar="T", help="keep latents within [-T, T] (default: all)"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="STEP",
        help="of a run: a checkpoint's step, or best (default: last)",
    )
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the moving average of the weights (default: on)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of evaluation.json and nearest.png (default: RUN/evaluation, or "
        "evaluation-NAME beside a file)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, write what was found, and print it."""
    from pokegan.cli.progress import bar
    from pokegan.errors import ConfigError
    from pokegan.files import write_text
    from pokegan.metrics.result import ranking_text
    from pokegan.training.evaluation import Options, evaluate_run

    if args.out is not None and len(args.sources) > 1:
        raise ConfigError(f"--out {args.out}: leave it out for several runs; each has its own")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out {args.out}: is a file; a folder is wanted")
    options = Options(
        args.data,
        args.n,
        args.features,
        args.inception_weights,
        args.seed,
        args.truncation,
        args.checkpoint,
        args.ema,
        args.device,
    )
    results: list[Evaluation] = []
    for source in args.sources:
        out = args.out or _default_out(Path(source))
        with bar("generating") as progress:
            found = evaluate_run(source, options, out / "nearest.png", progress)
        write_text(out / "evaluation.json", json.dumps(found.to_json(), indent=1) + "\n")
        results.append(found)
        if not args.json:
            print(found.to_text())
            print(f"  nearest training pictures: {out / 'nearest.png'}\n")
    if args.json:
        trees = [one.to_json() for one in results]
        print(json.dumps(trees[0] if len(trees) == 1 else trees, indent=1))
    elif len(results) > 1:
        print(ranking_text(results))
    return 0


def _default_out(source: Path) -> Path:
    """Return a folder within the run, or one of its own beside a file."""
    if source.is_dir():
        return source / "evaluation"
    return source.with_name(f"evaluation-{source.stem}")
