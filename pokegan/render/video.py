"""Moving pictures as MP4 (H.264, every browser plays it), WebP or GIF, chosen by the ending."""

import contextlib
import itertools
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pokegan.errors import ConfigError, PokeganError
from pokegan.files import atomic_path
from pokegan.render.animation import save_animation
from pokegan.render.pictures import save_picture

FORMATS = (".mp4", ".webp", ".gif")
MOST_FRAMES = 3600
MOST_FRAMES_OF_PICTURES = 480  # of GIF and WebP, which browsers hold in memory
MOST_SIDE = 4096
MP4_QUALITY = 18  # H.264's constant rate factor: 18 is taken for visually lossless
WEBP_QUALITY = 80


def check_video(path: Path, seconds: float, fps: float, max_side: int) -> int:
    """Return how many frames a video has.

    Args:
        path: its ending is one of `FORMATS`.
        seconds: length, above 0.
        fps: frames a second, 1 to 60.
        max_side: longest side in px, 16 to 4,096.

    Raises:
        ConfigError: a value is out of range, the format is unknown, or its encoder is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out {path}: a name that ends with {', '.join(FORMATS)} is wanted")
    if not 1 <= fps <= 60:
        raise ConfigError(f"--fps {fps:g}: 1 to 60 frames a second are possible")
    if not 16 <= max_side <= MOST_SIDE:
        raise ConfigError(f"--max-side {max_side}: 16 to {MOST_SIDE} px are possible")
    most = MOST_FRAMES if path.suffix.lower() == ".mp4" else MOST_FRAMES_OF_PICTURES
    frames = round(seconds * fps) if 0 < seconds <= MOST_FRAMES else 0
    if not 2 <= frames <= most:
        raise ConfigError(
            f"--seconds {seconds:g}: at {fps:g} frames a second, {2 / fps:.2g} to {most / fps:g} s "
            f"are possible in a {path.suffix.lower()[1:]}"
        )
    if path.suffix.lower() == ".mp4":
        _encoder()
    return frames


def save_video(
    frames: Iterable[NDArray[np.uint8]], path: Path, fps: float, max_side: int = 768
) -> None:
    """Write pictures [H, W, 3] uint8, all of one size, to `path`, atomically; it loops.

    One frame is in memory at a time. Pictures with a longer side than `max_side` px are scaled
    down; smaller ones stay as they are. MP4 gets a white line where a side is odd.

    Raises:
        ConfigError: as `check_video`.
        PokeganError: the encoder failed.
    """
    scaled = (_fit(frame, max_side) for frame in frames)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".mp4":
            _save_mp4(scaled, temporary, fps)
        elif path.suffix.lower() == ".webp":
            _save_webp(scaled, temporary, fps)
        else:
            _save_gif(scaled, temporary, fps)


def _fit(frame: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def _save_mp4(frames: Iterator[NDArray[np.uint8]], path: Path, fps: float) -> None:
    even = (_even(frame) for frame in frames)
    first = next(even)
    command = _command(path, first.shape[1], first.shape[0], fps)
    with tempfile.TemporaryFile() as told:
        try:
            encoder = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=told,
                start_new_session=True,  # Ctrl-C is our business
            )
        except OSError as error:
            raise PokeganError(f"the video encoder cannot be started: {error}") from error
        try:
            _feed(encoder, itertools.chain([first], even))
            code = encoder.wait()
        finally:
            encoder.kill()  # does nothing to one that has ended
            encoder.wait()
        told.seek(0)
        if code:
            raise PokeganError(f"the video encoder failed: {_complaint(told.read(), code)}")


def _feed(encoder: "subprocess.Popen[bytes]", frames: Iterator[NDArray[np.uint8]]) -> None:
    """Give the encoder all frames; one that has ended gets no more, and its exit code says why."""
    assert encoder.stdin is not None
    with contextlib.suppress(BrokenPipeError), encoder.stdin as pipe:
        for frame in frames:
            pipe.write(np.ascontiguousarray(frame).data)


def _command(path: Path, width: int, height: int, fps: float) -> list[str]:
    """Return the call of ffmpeg that makes an MP4 of raw frames."""
    rate = str(Fraction(fps).limit_denominator())
    given = ["-f", "rawvideo", "-s", f"{width}x{height}", "-pix_fmt", "rgb24", "-r", rate]
    codec = ["-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", str(MP4_QUALITY)]
    file = ["-movflags", "+faststart", "-f", "mp4", f"file:{path}"]  # a name may hold a colon
    return [_encoder(), "-y", "-v", "warning", *given, "-i", "-", "-an", *codec, *file]


def _complaint(told: bytes, code: int) -> str:
    """Return the last line that speaks of an error, else the last one, else the exit code."""
    lines = told.decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if "error" in line.lower()]
    line = (errors or lines or [""])[-1].rpartition("] ")[2].strip()
    if line and code > 0:
        return line
    return f"it ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"


def _save_webp(frames: Iterator[NDArray[np.uint8]], path: Path, fps: float) -> None:
    pictures = (Image.fromarray(frame) for frame in frames)
    next(pictures).save(
        path,
        format="WEBP",
        save_all=True,
        append_images=pictures,
        duration=round(1000 / fps),
        loop=0,
        quality=WEBP_QUALITY,
        method=4,
    )


def _save_gif(frames: Iterator[NDArray[np.uint8]], path: Path, fps: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, frame in enumerate(frames):
            files.append(Path(folder) / f"{number:05d}.png")
            save_picture(frame, files[-1])
        save_animation(
            files,
            path,
            seconds=len(files) / fps,
            max_frames=MOST_FRAMES_OF_PICTURES,
            max_side=MOST_SIDE,
            hold_ms=None,
        )


def _even(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add a white line where a side is odd: H.264 stores colours for every second pixel."""
    down, across = frame.shape[0] % 2, frame.shape[1] % 2
    return np.pad(frame, ((0, down), (0, across), (0, 0)), constant_values=255)


def _encoder() -> str:
    """Return the program ffmpeg."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except ImportError:
        raise ConfigError(
            "an .mp4 needs pip install 'pokegan[video]'; .webp and .gif need nothing more"
        ) from None
    except RuntimeError as error:
        raise ConfigError(f"an .mp4 needs ffmpeg: {error}") from None
