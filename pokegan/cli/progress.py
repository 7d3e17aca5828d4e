"""A progress bar on stderr, for work that counts pictures."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) that moves a bar called `what`; none off a terminal."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="picture", disable=None, leave=False) as line:

        def progress(done: int, total: int) -> None:
            line.total = total
            line.update(done - line.n)

        yield progress
