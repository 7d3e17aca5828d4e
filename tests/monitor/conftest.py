"""Time by hand."""

import pytest


class Clock:
    """Seconds that pass only when a test adds them to `now`."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
