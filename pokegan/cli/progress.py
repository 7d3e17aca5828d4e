"""A progress bar on stderr, for work that counts pictures."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar(what: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) that moves a bar called `what`.

    There is none off a terminal, or where it is not to be `shown`.
    """
    from tqdm import tqdm

    with tqdm(desc=what, unit="picture", disable=None if shown else True, leave=False) as line:

        def progress(done: int, total: int) -> None:
            line.total = total
            line.update(done - line.n)

        yield progress
