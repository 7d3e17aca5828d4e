"""`pokegan video`: a run's progress, walks through its creatures, truncation, as a video."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pokegan.cli.generate import add_latent_flags

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("progress", "walk", "truncation")
HOLD_SECONDS = 1.5


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: argparse.ArgumentParser,
) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "video",
        parents=[common],
        help="make a video: progress of a run, walks between creatures",
        description="Make a video of a run. A walk and a truncation sweep loop without a jump.",
    )
    parser.add_argument(
        "source",
        metavar="RUN",
        help="a run folder; but for progress also a checkpoint .pt or a .safetensors",
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="progress",
        help="progress: the sample grids of the run in their order; walk: each creature turns into "
        "the next ones and back; truncation: from all variety to the mean and back "
        "(default: progress)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=".mp4, .webp or .gif (default: RUN-KIND.mp4)"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="length (default: 10)"
    )
    parser.add_argument(
        "--fps", type=float, metavar="N", help="frames a second (default: 30; .webp and .gif 20)"
    )
    parser.add_argument(
        "--max-side", type=int, default=768, metavar="PX", help="longest side (default: 768)"
    )
    parser.add_argument(
        "-n", type=int, default=16, metavar="N", help="creatures at a time (default: 16)"
    )
    parser.add_argument(
        "--keys", type=int, default=4, metavar="K", help="creatures on each walk (default: 4)"
    )
    add_latent_flags(parser)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the video and print where it is."""
    from pokegan.render.video import check_video, save_video

    out = args.out or Path(f"{_name(Path(args.source).resolve())}-{args.kind}.mp4")
    usual = 30.0 if out.suffix.lower() == ".mp4" else 20.0
    fps = usual if args.fps is None else args.fps
    count = check_video(out, args.seconds, fps, args.max_side)
    frames = _progress(args, count, fps) if args.kind == "progress" else _latent(args, count)
    save_video(frames, out, fps, args.max_side)
    print(out)
    return 0


def _name(source: Path) -> str:
    """Return what a run folder, dots and all, or a file is called."""
    return source.name if source.is_dir() else source.stem


def _progress(args: argparse.Namespace, count: int, fps: float) -> "Iterator[NDArray[np.uint8]]":
    from pokegan.errors import ConfigError
    from pokegan.render.animation import progress_frames
    from pokegan.training.run_folder import find

    grids = find(Path(args.source)).grids()
    if not grids:
        raise ConfigError(f"{args.source}: no sample grid yet; train it for longer")
    hold = min(count // 2, round(HOLD_SECONDS * fps))
    return progress_frames(grids, count, hold, args.max_side)


def _latent(args: argparse.Namespace, count: int) -> "Iterator[NDArray[np.uint8]]":
    from pokegan.render.pictures import make_grid
    from pokegan.training.generator import load
    from pokegan.training.hardware import choose_device
    from pokegan.training.walks import sweep, walk

    generator = load(args.source, str(choose_device(args.device)))
    if args.kind == "truncation":
        pictures = sweep(generator, args.n, count, args.seed, args.first)
    else:
        pictures = walk(
            generator, args.n, count, args.keys, args.seed, args.truncation, args.first, args.psi
        )
    return (make_grid(frame) for frame in pictures)
