"""The line that tells how a run goes: rewritten on a terminal, now and then printed elsewhere.

Written without tqdm, which shows nothing on a terminal that does not tell its height (a container's
often does not), cannot be handed a clock, and starts a thread.
"""

import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

RECENT_SECONDS = 30.0  # the span of the recent rate, which also tells the time left
REDRAW_SECONDS = 0.1
ERASE = "\r\x1b[K"  # to the start of the row, and clear it


class Progress:
    """One line: share done, epoch, time left, images a second, losses, kimg.

    On a terminal the line is rewritten at most ten times a second. On any other stream a line is
    printed at the first update, then at most every `interval` seconds, and always at the end.
    """

    def __init__(
        self,
        total_images: int,
        done_images: int,
        images_per_epoch: int,
        total_epochs: float,
        stream: TextIO | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            total_images: images that the whole run sees, earlier parts of a resumed run included.
            done_images: images seen before now.
            images_per_epoch: at least 1.
            total_epochs: length of the whole run in epochs.
            stream: stderr when None.
            interval: least seconds between two printed lines, where there is no terminal.
            clock: seconds that never run back.
        """
        self._total = total_images
        self._before = self._seen = done_images
        self._per_epoch = images_per_epoch
        self._epochs = f"{total_epochs:.1f}".removesuffix(".0")
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._start = clock()
        self._marks = deque([(self._start, done_images)])  # about one a second, oldest first
        self._values: dict[str, float] = {}
        self._drawn: tuple[float, int] | None = None  # when, and at how many images
        self._closed = False
        self._rewrites = _can_rewrite(self._stream)
        self._least = REDRAW_SECONDS if self._rewrites else interval

    def update(self, images_seen: int, values: Mapping[str, float] | None = None) -> None:
        """Tell how many images the run has seen in all, and the losses to show.

        A loss that is not in `values` stays as it was told before: a phase need not run in every
        interval. `loss/` is cut off the names. Cheap enough for every step.
        """
        now = self._clock()
        self._seen = images_seen
        if values is not None:
            self._values.update(values)
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, images_seen))
        while len(self._marks) > 1 and self._marks[1][0] <= now - RECENT_SECONDS:
            self._marks.popleft()
        if self._drawn is None or now - self._drawn[0] >= self._least:
            self._draw(now)

    def write(self, text: str) -> None:
        """Print `text` on lines of its own, above the progress line where there is one."""
        print(f"{ERASE}{text}" if self._rewrites else text, file=self._stream, flush=True)
        if self._rewrites and self._drawn is not None and not self._closed:
            self._draw(self._clock())

    def close(self) -> None:
        """Print the last state; may be called again."""
        if self._closed:
            return
        self._closed = True
        if self._rewrites or self._drawn is None or self._drawn[1] != self._seen:
            self._draw(self._clock())
        if self._rewrites:
            print(file=self._stream, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _draw(self, now: float) -> None:
        self._drawn = (now, self._seen)
        if not self._rewrites:
            print("  ".join(self._state(now) + self._extras(now)), file=self._stream, flush=True)
            return
        room = _width(self._stream) - 1  # a full row would start another one
        short = len("  ".join(self._state(now))) > room
        parts = self._state(now, short) + self._extras(now)
        while len(parts) > 1 and len("  ".join(parts)) > room:
            parts.pop()
        print(ERASE + "  ".join(parts)[:room], end="", file=self._stream, flush=True)

    def _state(self, now: float, short: bool = False) -> list[str]:
        """Return what must be seen, the names of the losses `short` where room is scarce."""
        share = min(1.0, self._seen / self._total) if self._total else 1.0
        since, images = self._marks[0]
        recent = _rate(self._seen - images, now - since)
        return [
            f"{int(100 * share):3d}%",
            f"epoch {self._seen / self._per_epoch:.1f}/{self._epochs}",
            self._time(now, recent),
            f"{_brief(recent)} images/s",
            *(f"{_name(key, short)} {value:.3f}" for key, value in self._values.items()),
        ]

    def _extras(self, now: float) -> list[str]:
        overall = _rate(self._seen - self._before, now - self._start)
        return [f"{self._seen / 1000:.1f} kimg", f"{_brief(overall)} images/s overall"]

    def _time(self, now: float, rate: float | None) -> str:
        left = self._total - self._seen
        if left <= 0:
            return f"took {_span(now - self._start)}"
        return f"{_span(left / rate)} left" if rate else "? left"


def _can_rewrite(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _width(stream: TextIO) -> int:
    """Return the columns of the terminal `stream`, 80 when it does not tell them."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _name(key: str, short: bool) -> str:
    """Return `loss/generator` as `generator`, or G; `loss/critic_x` as `critic_x`, or CX."""
    name = key.removeprefix("loss/")
    return "".join(word[:1] for word in re.split(r"\W|_", name)).upper() if short else name


def _rate(images: int, seconds: float) -> float | None:
    """Return images a second, or None when there is nothing to tell it from."""
    return images / seconds if images > 0 and seconds > 0 else None


def _brief(rate: float | None) -> str:
    if rate is None:
        return "?"
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _span(seconds: float) -> str:
    """Return `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
