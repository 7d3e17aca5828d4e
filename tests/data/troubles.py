"""What stands in the place of a path and brings its reader into trouble."""

import os
import time
from pathlib import Path


class Crash:
    """In the place of a path: kills the process that looks at it."""

    def stat(self) -> None:
        os.abort()


class Stall:
    """In the place of a path: never answers."""

    def stat(self) -> None:
        time.sleep(600)


class Busy:
    """In the place of a path: works without end."""

    def stat(self) -> None:
        while True:
            pass


class OnceBusy:
    """In the place of a path: works without end the first time, and is a file the second."""

    def __init__(self, path: Path, marker: Path) -> None:
        self.path = path
        self.marker = marker

    def stat(self) -> os.stat_result:
        while not self.marker.exists():
            self.marker.touch()
            while True:
                pass
        return self.path.stat()

    def read_bytes(self) -> bytes:
        return self.path.read_bytes()


class Deaf:
    """In the place of a path: a file that is read, but cannot be asked for ahead."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        time.sleep(600)
        return str(self.path)

    def stat(self) -> os.stat_result:
        return self.path.stat()

    def read_bytes(self) -> bytes:
        return self.path.read_bytes()


class Slow(OnceBusy):
    """In the place of a path: a file that comes after two seconds in which nothing is done."""

    def stat(self) -> os.stat_result:
        time.sleep(2)
        return self.path.stat()
