"""The progress line: its words on a file, its rewriting on a terminal, with a clock by hand."""

import fcntl
import io
import os
import pty
import re
import struct
import termios

import pytest

from pokegan.monitor.progress import Progress


@pytest.fixture
def plain(clock):
    """Return a stream that is no terminal and a function that makes a progress on it."""
    stream = io.StringIO()

    def make(**changes):
        arguments = {
            "total_images": 10_000,
            "done_images": 0,
            "images_per_epoch": 1000,
            "total_epochs": 10.0,
            "stream": stream,
            "clock": clock,
        }
        return Progress(**(arguments | changes))

    return stream, make


def test_the_words_of_the_line(plain, clock):
    stream, make = plain
    progress = make()
    clock.now += 10
    progress.update(2500, {"loss/generator": 0.71234, "loss/discriminator": 1.5, "penalty": 3})
    # 2500 images in 10 s, so 7500 more take 30 s
    assert stream.getvalue() == (
        " 25%  epoch 2.5/10  0:30 left  250 images/s  generator 0.712  discriminator 1.500  "
        "penalty 3.000  2.5 kimg  250 images/s overall\n"
    )


def test_at_most_one_line_an_interval(plain, clock):
    stream, make = plain
    progress = make(interval=10.0)
    for second in range(1, 36):
        clock.now += 1
        progress.update(100 * second, {})
    shown = re.findall(r"([\d.]+) kimg", stream.getvalue())
    assert shown == ["0.1", "1.1", "2.1", "3.1"]


def test_the_last_state_is_always_printed_once(plain, clock):
    stream, make = plain
    with make() as progress:
        clock.now += 1
        progress.update(100, {"loss": 2.0})
        clock.now += 1
        progress.update(10_000, {"loss": 1.0})
        assert stream.getvalue().count("\n") == 1
    progress.close()
    assert stream.getvalue().splitlines()[1:] == [
        "100%  epoch 10.0/10  took 0:02  5,000 images/s  loss 1.000  10.0 kimg  "
        "5,000 images/s overall"
    ]


def test_a_printed_last_state_is_not_repeated(plain, clock):
    stream, make = plain
    with make() as progress:
        clock.now += 1
        progress.update(10_000)
    assert stream.getvalue().count("\n") == 1


def test_the_last_state_is_printed_when_the_run_breaks(plain, clock):
    stream, make = plain

    def broken():
        with make() as progress:
            for seen in (100, 200):
                clock.now += 1
                progress.update(seen)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert "0.2 kimg" in stream.getvalue().splitlines()[-1]


def test_recent_and_overall_rate_differ(plain, clock):
    stream, make = plain
    progress = make(total_images=1_000_000, interval=0.0)
    clock.now += 100  # compiling
    progress.update(100)
    for _ in range(60):
        clock.now += 1
        progress.update(progress._seen + 500)
    last = stream.getvalue().splitlines()[-1]
    assert "  500 images/s  " in last
    assert "  188 images/s overall" in last  # 30,100 in 160 s
    assert "32:20 left" in last  # 969,900 at 500 a second


def test_a_resumed_run_counts_only_its_own_images_as_fast(plain, clock):
    stream, make = plain
    progress = make(done_images=8000)
    clock.now += 10
    progress.update(9000)
    assert stream.getvalue() == (
        " 90%  epoch 9.0/10  0:10 left  100 images/s  9.0 kimg  100 images/s overall\n"
    )


def test_values_stay_until_there_are_new_ones(plain, clock):
    stream, make = plain
    progress = make(interval=0.0)
    for values in ({"loss/a": 1.0}, None, {"loss/b": 2.0}, {"loss/a": 3.0}):
        clock.now += 1
        progress.update(1, values)
    shown = [re.findall(r"[ab] \d\.\d+", line) for line in stream.getvalue().splitlines()]
    assert shown == [["a 1.000"], ["a 1.000"], ["a 1.000", "b 2.000"], ["a 3.000", "b 2.000"]]


@pytest.mark.parametrize(
    ("seconds", "text"), [(100, "1:39 left"), (3700, "1:01:03 left"), (36000, "9:54:00 left")]
)
def test_time_left(plain, clock, seconds, text):
    stream, make = plain
    progress = make()
    clock.now += seconds / 100
    progress.update(100)
    assert text in stream.getvalue()


def test_nothing_known_yet(plain):
    stream, make = plain
    make().update(0, {"loss": float("nan")})
    assert "? left  ? images/s  loss nan" in stream.getvalue()


def test_part_of_an_epoch_and_slow_machines(plain, clock):
    stream, make = plain
    progress = make(total_images=12_345, total_epochs=12.345)
    clock.now += 10
    progress.update(4)
    assert "epoch 0.0/12.3  " in stream.getvalue()
    assert "  0.4 images/s" in stream.getvalue()


def test_messages_are_lines_of_their_own(plain, clock):
    stream, make = plain
    with make() as progress:
        progress.write("saved samples")
        clock.now += 1
        progress.update(100)
    assert stream.getvalue().splitlines()[0] == "saved samples"


def test_stderr_of_the_moment_is_the_default(capsys, clock):
    with Progress(10, 0, 10, 1.0, clock=clock) as progress:
        clock.now += 1
        progress.update(10)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "epoch 1.0/1" in shown.err


class Terminal:
    """A pseudo terminal: `screen` tells what a person sees of what is written to `stream`."""

    def __init__(self, columns, rows=24):
        self._outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.set_blocking(self._outer, False)
        self.stream = os.fdopen(inner, "w")
        self.raw = ""

    def screen(self):
        """Return the rows after all erasing; a row is as wide as it was written."""
        self.stream.flush()
        try:
            while more := os.read(self._outer, 65536):
                self.raw += more.decode()
        except BlockingIOError:
            pass
        rows = self.raw.replace("\r\n", "\n").split("\n")
        return [row.rpartition("\r\x1b[K")[2] for row in rows]

    def close(self):
        self.stream.close()
        os.close(self._outer)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    made = []

    def make(columns, rows=24):
        made.append(Terminal(columns, rows))
        return made[-1]

    yield make
    for each in made:
        each.close()


LOSSES = {"loss/generator": 0.712, "loss/discriminator_x": 0.531}


@pytest.mark.parametrize("rows", [24, 0])  # containers often do not tell their rows
def test_a_terminal_line_is_rewritten(plain, clock, terminal, rows):
    _, make = plain
    shown = terminal(200, rows)
    with make(stream=shown.stream) as progress:
        for seen in range(1000, 5001, 1000):
            clock.now += 1
            progress.update(seen, LOSSES)
        (row,) = shown.screen()
        assert row == (
            " 50%  epoch 5.0/10  0:05 left  1,000 images/s  generator 0.712  "
            "discriminator_x 0.531  5.0 kimg  1,000 images/s overall"
        )
    assert shown.screen() == [row, ""]


def test_redrawn_at_most_ten_times_a_second(plain, clock, terminal):
    _, make = plain
    shown = terminal(200)
    progress = make(stream=shown.stream)
    for seen in range(1000):
        clock.now += 0.001
        progress.update(seen)
    shown.screen()
    assert 9 <= shown.raw.count("\r") <= 11


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (100, "1,000 images/s  generator 0.712  discriminator_x 0.531  1.0 kimg"),
        (80, "1,000 images/s  G 0.712  DX 0.531  1.0 kimg"),
        (70, "1,000 images/s  G 0.712  DX 0.531"),
        (50, "1,000 images/s"),
    ],
)
def test_a_narrow_terminal_loses_whole_parts(plain, clock, terminal, columns, wanted):
    _, make = plain
    shown = terminal(columns)
    progress = make(stream=shown.stream)
    clock.now += 1
    progress.update(1000, LOSSES)
    (row,) = shown.screen()
    assert row == f" 10%  epoch 1.0/10  0:09 left  {wanted}"
    assert len(row) < columns


def test_a_message_on_a_terminal_keeps_the_line_below(plain, clock, terminal):
    _, make = plain
    shown = terminal(200)
    with make(stream=shown.stream) as progress:
        clock.now += 1
        progress.update(1000)
        (before,) = shown.screen()
        progress.write("saved\nsamples")
        assert shown.screen() == ["saved", "samples", before]
    progress.write("done")
    assert shown.screen() == ["saved", "samples", before, "done", ""]


def test_a_dumb_terminal_gets_plain_lines(plain, clock, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    _, make = plain
    shown = terminal(40)
    with make(stream=shown.stream) as progress:
        clock.now += 1
        progress.update(1000)
    shown.screen()
    assert "\x1b" not in shown.raw
    assert "images/s overall" in shown.raw
