"""Long columns of texts without an object for each: a million names in 30 MB."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt


class Texts(Sequence[str]):
    """Texts in one piece of memory; lone surrogates are kept."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        encoded = bytearray()
        ends = [0]
        for text in texts:
            encoded += text.encode("utf-8", "surrogatepass")
            ends.append(len(encoded))
        self._encoded = bytes(encoded)
        self._ends: npt.NDArray[np.int64] = np.array(ends, np.int64)

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """The texts of all parts, one after the other."""
        whole = cls()
        whole._encoded = b"".join(part._encoded for part in parts)
        starts = np.cumsum([0, *(len(part._encoded) for part in parts)])
        ends = [part._ends[1:] + start for part, start in zip(parts, starts, strict=False)]
        whole._ends = np.concatenate([np.zeros(1, np.int64), *ends])
        return whole

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        index %= len(self)
        return self._encoded[self._ends[index] : self._ends[index + 1]].decode(
            "utf-8", "surrogatepass"
        )

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))
