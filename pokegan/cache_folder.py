"""Where what can be made again is kept between runs."""

import os
from pathlib import Path

from pokegan.errors import ConfigError


def cache_folder() -> Path:
    """`$POKEGAN_CACHE` where it is set, else the user's cache folder of the platform.

    The folder need not exist. Everything in it can be made again: it may be deleted at any time.

    Raises ConfigError where it begins with `~` and that user's folder is not known.
    """
    chosen = os.environ.get("POKEGAN_CACHE")
    if not chosen:
        import platformdirs  # who names the cache can do without

        return platformdirs.user_cache_path("pokegan")
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise ConfigError(f"POKEGAN_CACHE={chosen}: no folder is known for it") from None
