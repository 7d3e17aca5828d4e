"""A setting: one field of a config that the command line can set, and how its value is checked."""

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pokegan.errors import ConfigError


def setting(
    default: Any,
    flag: str,
    help: str,
    *,
    unit: str = "",
    unset: str = "",
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Declare a field that the command line can set.

    `unset` says what None means. `choices`, `minimum` and `maximum` (both inclusive) are checked
    by `RunConfig.validated`.
    """
    metadata = {
        "flag": flag,
        "help": help,
        "unit": unit,
        "unset": unset,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """One field that the command line can set; `path` is such as `data.size`."""

    path: str
    kind: type
    optional: bool
    metadata: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """The command-line flag, with its dashes."""
        return str(self.metadata["flag"])

    def value_in(self, config: object) -> Any:
        """Return this setting's value in `config`."""
        part, name = self.path.split(".")
        return getattr(getattr(config, part), name)

    def check(self, value: Any) -> None:
        """Raise ConfigError when `value` is out of range or not among the choices."""
        if value is None and self.optional:
            return
        wanted = (int, float) if self.kind is float else self.kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.kind is not bool):
            raise ConfigError(f"{self.flag} {value!r}: a {self.kind.__name__} is wanted")
        choices = self.metadata["choices"]
        if choices and value not in choices:
            raise ConfigError(f"{self.flag} {value}: choose one of {', '.join(choices)}")
        if isinstance(value, int | float) and self.kind is not bool:
            self._check_range(value)

    def _check_range(self, value: float) -> None:
        minimum, maximum = self.metadata["minimum"], self.metadata["maximum"]
        unit = f" {self.metadata['unit']}" if self.metadata["unit"] else ""
        if value != value or abs(value) == float("inf"):
            raise ConfigError(f"{self.flag} {value}: a finite number is wanted")
        if minimum is not None and value < minimum:
            raise ConfigError(f"{self.flag} {value}: at least {minimum:g}{unit} is wanted")
        if maximum is not None and value > maximum:
            raise ConfigError(f"{self.flag} {value}: at most {maximum:g}{unit} is possible")


def interval(flag: str, text: str) -> tuple[float, float] | None:
    """Return (low, high) of `LOW:HIGH`, or None of an empty text.

    Raises:
        ConfigError: it is something else, or not -1 <= low <= high <= 2.
    """
    if not text:
        return None
    try:
        low, high = (float(end) for end in text.split(":"))
    except ValueError:
        raise ConfigError(f"{flag} {text}: LOW:HIGH is wanted, such as 0.7:1.2") from None
    if not -1 <= low <= high <= 2:
        raise ConfigError(f"{flag} {text}: -1 <= LOW <= HIGH <= 2 is wanted")
    return low, high


def kind_of(hint: Any) -> tuple[type, bool]:
    """Return (int | float | bool | str, whether None is allowed) of a field's type."""
    if isinstance(hint, types.UnionType):
        inner = [item for item in typing.get_args(hint) if item is not type(None)]
        return inner[0], True
    return hint, False
