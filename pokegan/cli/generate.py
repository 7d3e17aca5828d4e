"""`pokegan generate`: new creatures from a run, a checkpoint or a weight file."""

import argparse
from pathlib import Path


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: argparse.ArgumentParser,
) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "generate",
        parents=[common],
        help="make new creatures",
        description="Make new creatures. Picture i of a seed is the same in every command.",
    )
    parser.add_argument(
        "source", metavar="RUN", help="a run folder, a checkpoint .pt or a .safetensors"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="STEP",
        help="of a run: a checkpoint's step, or best (default: last)",
    )
    parser.add_argument("-n", type=int, default=16, metavar="N", help="how many (default: 16)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("creatures"),
        metavar="DIR",
        help="folder of the pictures (default: creatures)",
    )
    add_latent_flags(parser)
    parser.add_argument("--grid", action="store_true", help="one grid.png instead of singles")
    parser.add_argument(
        "--interpolate",
        type=int,
        metavar="K",
        help="a grid.png of n rows; row i goes from creature i to creature i + 1 in K pictures",
    )
    parser.add_argument("--columns", type=int, metavar="N", help="of the grid (default: square)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.set_defaults(run=run)


def add_latent_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose creatures; they mean the same in every command."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="number of the first")
    parser.add_argument(
        "--truncation",
        type=float,
        metavar="T",
        help="keep latents within [-T, T] by drawing anew: smaller is safer and less varied",
    )
    parser.add_argument(
        "--psi",
        type=float,
        default=1.0,
        metavar="P",
        help="scale latents toward their mean by this, 0 to 1 (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the pictures and print where they are."""
    from pokegan.errors import ConfigError
    from pokegan.render.pictures import save_grid, save_picture
    from pokegan.training.generator import load
    from pokegan.training.hardware import choose_device
    from pokegan.training.walks import line

    if args.interpolate is not None and args.columns is not None:
        raise ConfigError("--columns goes without --interpolate, which has columns of its own")
    if args.columns is not None and args.columns < 1:
        raise ConfigError(f"--columns {args.columns}: at least 1 is wanted")
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out {args.out}: is a file; a folder is wanted")
    generator = load(args.source, str(choose_device(args.device)), args.checkpoint)
    choice = (args.seed, args.truncation, args.first, args.psi)
    path = args.out / "grid.png"
    if args.interpolate is not None:
        save_grid(line(generator, args.n, args.interpolate, *choice), path, args.interpolate)
        print(path)
        return 0
    if args.grid:
        save_grid(generator.sample(args.n, *choice), path, columns=args.columns)
        print(path)
        return 0
    for number, picture in generator.stream(args.n, *choice):
        save_picture(picture, args.out / f"seed-{args.seed}-{number:05d}.png")
    print(f"{args.n} pictures in {args.out}")
    return 0
