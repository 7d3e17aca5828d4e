"""Decoders' warnings are kept back while files are read, all others never, in any thread."""

import base64
import io
import os
import signal
import threading
import warnings
from collections.abc import Callable

import pytest
from PIL import Image, TiffImagePlugin

from pokegan.data.decode import decode
from pokegan.data.options import PrepareOptions
from pokegan.data.plain import plainly_encoded
from pokegan.data.quiet import quiet
from pokegan.data.torch_source import square

WAIT_S = 60.0


@pytest.fixture(autouse=True)
def _every_warning_raises() -> None:
    warnings.simplefilter("error")  # pytest puts back what there was


@pytest.fixture
def damaged_exif() -> bytes:
    """A sound JPEG whose EXIF data promises an entry more than it holds."""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + b"\x02\0" + b"\x12\x01\x03\0\x01\0\0\0\x01\0\0\0"
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 200, 30)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def pillow_warns(exif: bytes) -> None:
    TiffImagePlugin.ImageFileDirectory_v2().load(io.BytesIO(exif))


def test_pillow_warns_of_damaged_exif_data(damaged_exif: bytes) -> None:
    with pytest.raises(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(damaged_exif)).getexif()
    with pytest.raises(UserWarning, match="EXIF"):
        pillow_warns(b"\x02\0")


def square_by_torchvision(content: bytes) -> object:
    return square(content, "a picture", PrepareOptions(8)).shape


def inside_an_svg(content: bytes) -> object:
    pytest.importorskip("resvg_py")
    picture = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8">'
    return decode(f'{head}<image href="{picture}" width="8" height="8"/></svg>'.encode())


@pytest.mark.parametrize("read", [decode, plainly_encoded, square_by_torchvision, inside_an_svg])
def test_who_reads_a_file_does_not_hear_it(
    read: Callable[[bytes], object], damaged_exif: bytes
) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert read(damaged_exif)
    assert not heard


def test_all_others_are_heard() -> None:
    with quiet(), pytest.raises(RuntimeWarning, match="a cable"):
        warnings.warn("a cable is loose", RuntimeWarning, stacklevel=1)


def test_it_may_be_nested() -> None:
    with quiet():
        with quiet():
            pass
        pillow_warns(b"\x02\0")
    with pytest.raises(UserWarning, match="EXIF"):
        pillow_warns(b"\x02\0")


@pytest.mark.parametrize("first_out", [0, 1])
def test_threads_that_overlap_leave_the_filters_as_they_were(first_out: int) -> None:
    before = list(warnings.filters)
    inside = [threading.Event(), threading.Event()]
    may_leave = [threading.Event(), threading.Event()]

    def stay(place: int) -> None:
        with quiet():
            inside[place].set()
            assert may_leave[place].wait(WAIT_S)

    threads = [threading.Thread(target=stay, args=(place,), daemon=True) for place in (0, 1)]
    for place in (0, 1):  # one after the other
        threads[place].start()
        assert inside[place].wait(WAIT_S)
    for place in (first_out, 1 - first_out):
        may_leave[place].set()
        threads[place].join(WAIT_S)
        assert not threads[place].is_alive()
    assert list(warnings.filters) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_meanwhile_does_not_wait_for_threads_that_it_lacks() -> None:
    from pokegan.data import quiet as module

    with module._lock:  # as another thread may hold it
        child = os.fork()
        if child == 0:
            signal.alarm(int(WAIT_S))
            with quiet():
                os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
