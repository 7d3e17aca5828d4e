"""pokegan trains GANs on small picture collections and makes new creatures.

Nothing heavy is imported here: the names below load their modules on first use, so that
`pokegan --help` and the worker processes of data preparation start without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "Generator": "pokegan.training.generator",
    "PackedImages": "pokegan.data.packed",
    "Run": "pokegan.training.run",
    "RunConfig": "pokegan.config",
    "load": "pokegan.training.generator",
    "prepare": "pokegan.data.shortcut",
    "recipes": "pokegan.recipes",
    "resume": "pokegan.training.session",
    "train": "pokegan.training.session",
}

__all__ = [
    "Generator",
    "PackedImages",
    "Run",
    "RunConfig",
    "__version__",
    "load",
    "prepare",
    "recipes",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pokegan' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if _LAZY[name] == f"pokegan.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from pokegan import recipes
    from pokegan.config import RunConfig
    from pokegan.data.packed import PackedImages
    from pokegan.data.shortcut import prepare
    from pokegan.training.generator import Generator, load
    from pokegan.training.run import Run
    from pokegan.training.session import resume, train
