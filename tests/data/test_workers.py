"""Worker processes: order, crashes, stalls, and a parent that is no well-behaved module."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from picture_files import saved
from PIL import Image
from troubles import Busy, Crash, Deaf, OnceBusy, Slow, Stall

from pokegan.data import workers
from pokegan.data.entries import Entry, FileEntry
from pokegan.data.options import PrepareOptions
from pokegan.data.square import Refusal, Square
from pokegan.data.workers import WorkerPool, default_workers, prepare_all
from pokegan.errors import PokeganError


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    """Forty pictures; picture i is of colour (i, i, i)."""
    found: list[Entry] = []
    for i in range(40):
        path = tmp_path / f"{i}.png"
        path.write_bytes(saved(Image.new("RGB", (8, 8), (i, i, i)), "PNG"))
        found.append(FileEntry(path.name, path))
    return found


def first_bytes(results: list[Square | Refusal]) -> list[int | str]:
    return [r.reason if isinstance(r, Refusal) else r.pixels[0] for r in results]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_order(entries: list[Entry], count: int) -> None:
    results = list(prepare_all(entries, PrepareOptions(8), count))
    assert first_bytes(results) == list(range(40))


def test_packages_that_the_path_alone_does_not_find_are_found(
    entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers start without `site`, which makes the path of an environment; here they need it."""
    standard = [path for path in sys.path if Path(path, "dataclasses.py").is_file()]
    dynamic = [path for path in sys.path if Path(path).name == "lib-dynload"]
    monkeypatch.setattr(sys, "path", standard + dynamic)
    assert first_bytes(list(prepare_all(entries, PrepareOptions(8), 1))) == list(range(40))


def test_a_picture_that_kills_its_worker_costs_one_picture(entries: list[Entry]) -> None:
    entries[7] = FileEntry("7", Crash())
    entries[8] = FileEntry("8", Crash())
    got = first_bytes(list(prepare_all(entries, PrepareOptions(8), 2)))
    crashed = "crashed the decoder"
    assert got == [*range(7), crashed, crashed, *range(9, 40)]


@pytest.mark.parametrize("trouble", [Stall, Busy])
def test_a_picture_that_takes_too_long_is_given_up(entries: list[Entry], trouble: type) -> None:
    entries[3] = FileEntry("3", trouble())
    options = PrepareOptions(8, seconds_per_picture=0.4)
    start = time.monotonic()
    got = first_bytes(list(prepare_all(entries, options, 1)))
    assert got == [*range(3), "took too long: over 0.4 s", *range(4, 40)]
    assert time.monotonic() - start < 30


def test_a_picture_that_took_too_long_has_a_second_try(
    entries: list[Entry], tmp_path: Path
) -> None:
    path = entries[3].path
    entries[3] = FileEntry("3", OnceBusy(path, tmp_path / "marker"))
    options = PrepareOptions(8, seconds_per_picture=0.4)
    assert first_bytes(list(prepare_all(entries, options, 1))) == list(range(40))
    assert (tmp_path / "marker").exists()


def test_nobody_waits_for_a_file_that_is_asked_for_ahead(entries: list[Entry]) -> None:
    for place in (0, 20, 39):
        entries[place] = FileEntry(f"{place}", Deaf(entries[place].path))
    start = time.monotonic()
    assert first_bytes(list(prepare_all(entries, PrepareOptions(8), 2))) == list(range(40))
    assert time.monotonic() - start < 30


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="only the clock is there")
def test_time_in_which_the_worker_does_nothing_does_not_count(
    entries: list[Entry], tmp_path: Path
) -> None:
    """As when the machine is busy, or the program was suspended."""
    path = entries[3].path
    entries[3] = FileEntry("3", Slow(path, tmp_path / "marker"))
    options = PrepareOptions(8, seconds_per_picture=0.5)
    assert first_bytes(list(prepare_all(entries[:5], options, 1))) == list(range(5))
    assert not (tmp_path / "marker").exists()


def test_stopping_early_leaves_no_process(entries: list[Entry]) -> None:
    results = prepare_all(entries, PrepareOptions(8), 2)
    next(results)
    results.close()
    pool = WorkerPool(PrepareOptions(8), 1)
    with pool:
        next(pool.map(entries))
        process = pool._workers[0]._process
        assert process is not None
        assert process.poll() is None
    assert process.poll() is not None


def test_a_worker_that_cannot_start_says_so(
    entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    with pytest.raises(PokeganError, match=r"could not start .*Error.*prepare with workers=0"):
        list(prepare_all(entries, PrepareOptions(8), 1))


def test_memory_of_a_worker_is_bounded(
    entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of 60 million pixels does not fit into 100 MB; the next one is no worse for it."""
    pytest.importorskip("resource")
    small = "import pokegan.data.worker_process as w; w.MEMORY_LIMIT = 100 << 20; w.serve()"
    monkeypatch.setattr(workers, "_CODE", small)
    large = entries[0].path
    large.write_bytes(saved(Image.new("RGB", (8000, 7500)), "PNG", compress_level=1))
    got = first_bytes(list(prepare_all(entries[:3], PrepareOptions(8), 1)))
    assert got[0] in (
        "out of memory: while reading a PNG file",
        "out of memory",
        "crashed the decoder",
    )
    assert got[1:] == [1, 2]


def test_default_is_bounded_by_processors_and_work() -> None:
    assert default_workers(0) == 1
    assert default_workers(40) == 1
    assert 1 <= default_workers(10**6) <= (os.cpu_count() or 1)


def test_a_script_without_a_guard_works_and_workers_import_no_torch(
    entries: list[Entry], tmp_path: Path
) -> None:
    """Neither fork nor a second run of the main module: the script prints its line once."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import _thread, sys, time
            from pathlib import Path
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from awkward import Files
            from pokegan.data import PrepareOptions, prepare
            print("once")
            options = PrepareOptions(8, keep_duplicates=True)
            made = prepare(Files(Path({str(tmp_path)!r})), options, Path("out"), workers=2)
            for _ in range(100):
                if _thread._count():
                    time.sleep(0.05)
            print(len(made), "torch" in sys.modules, _thread._count())
        """)
    )
    root = Path(workers.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["once", "40 False 0"]
    assert done.stderr == ""


def test_a_worker_process_prepares_plain_pictures_without_numpy(tmp_path: Path) -> None:
    """Its import is most of what a worker would need to start."""
    (tmp_path / "a.png").write_bytes(saved(Image.new("RGBA", (9, 5), (1, 2, 3, 4)), "PNG"))
    (tmp_path / "b.jpg").write_bytes(saved(Image.new("RGB", (9, 5), (1, 2, 3)), "JPEG"))
    code = """
        import sys
        from pathlib import Path
        sys.modules["numpy"] = None  # an import of it fails
        from pokegan.data.entries import FileEntry
        from pokegan.data.worker_process import PrepareOptions, prepare_entries
        entries = [FileEntry(name, Path(name)) for name in ("a.png", "b.jpg")]
        for result in prepare_entries(entries, PrepareOptions(8)):
            print(type(result).__name__, getattr(result, "reason", ""))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(workers.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["Square", "Square"], done.stderr
