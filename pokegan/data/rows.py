"""A raw file of equal rows, read by position into memory that the caller owns.

Not a mapping: pages that a mapping has touched count as the process's own memory, and a mapped file
that is cut short ends the process with a signal instead of an error.
"""

import contextlib
import os
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pokegan.data.thread_pool import ThreadPool
from pokegan.errors import DataError

_STRETCH = 4 << 20  # bytes that are read at once of a whole file: a row waits for no more


class RowFile:
    """An open file of rows; any number of threads may read it at once.

    The file stays readable when another one takes its name, as long as this object lives.

    Args:
        handle: a file descriptor that this object may keep; it is duplicated.
        path: what messages call it.
        row_bytes: bytes of a row.
    """

    def __init__(self, handle: int, path: Path, row_bytes: int) -> None:
        self.path = path
        self.row_bytes = row_bytes
        self._handle = os.dup(handle)
        weakref.finalize(self, os.close, self._handle)

    def read(self, rows: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
        """Fill `out[i]` with row `rows[i]` of the file, in the order in which they lie there.

        `out` is C-contiguous, `row_bytes` for each of the rows. The system is told of all rows
        before the first is waited for, so a disk gets them as one batch.

        Raises:
            DataError: the file ends early, or the disk fails.
        """
        target = out.data.cast("B")
        size = self.row_bytes
        places = np.argsort(rows)
        try:
            self._announce(rows)
            for place, row in zip(places.tolist(), rows[places].tolist(), strict=True):
                self._fill(target[place * size : (place + 1) * size], row * size)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def warm(self, limit: int) -> ThreadPool:
        """Begin to read the file from end to end for nobody, so that the system has it in memory.

        Rows are wanted in any order, and a disk gives them many times slower than a whole file.
        Close the pool that is returned to end it.

        Args:
            limit: a file of more bytes is left alone, as the system would give up its beginning
                for its end.
        """
        pool = ThreadPool(1)
        count = os.fstat(self._handle).st_size
        if count <= limit:
            for offset in range(0, count, _STRETCH):
                pool.submit(self._warm, offset)
        return pool

    def _warm(self, offset: int) -> None:
        with contextlib.suppress(OSError):  # who needs the rows will be told
            os.pread(self._handle, _STRETCH, offset)

    def _announce(self, rows: npt.NDArray[np.int64]) -> None:
        if hasattr(os, "posix_fadvise"):
            for row in rows.tolist():
                offset = row * self.row_bytes
                os.posix_fadvise(self._handle, offset, self.row_bytes, os.POSIX_FADV_WILLNEED)

    def _fill(self, target: memoryview, offset: int) -> None:
        done = 0
        while done < len(target):
            count = os.preadv(self._handle, [target[done:]], offset + done)
            if count == 0:
                raise DataError(
                    f"{self.path} was cut short while it was in use: prepare the pictures again"
                )
            done += count
