"""Where what can be made again is kept between runs."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """`$POKEGAN_CACHE` where it is set, else the user's cache folder of the platform.

    The folder need not exist. Everything in it can be made again: it may be deleted at any time.
    """
    chosen = os.environ.get("POKEGAN_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("pokegan")
