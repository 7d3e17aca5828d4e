"""GIFs of progress, read back with Pillow frame by frame."""

import weakref

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pokegan.errors import PokeganError
from pokegan.render.animation import save_animation
from pokegan.render.pictures import make_grid, save_picture


def write_frames(folder, count, size=(40, 30)):
    """Write pictures on white, of which each has a square of its own shade; return paths."""
    paths = []
    for index in range(count):
        pixels = np.full((size[1], size[0], 3), 255, np.uint8)
        pixels[5:20, 5:20] = shade(index, count)
        paths.append(folder / f"epoch-{index:04d}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def shade(index, count):
    return (20 + 200 * index // max(1, count - 1), 40, 200)


def read_gif(path):
    """Return the frames, [n, H, W, 3], and how long each stands in milliseconds."""
    with Image.open(path) as gif:
        frames = ImageSequence.all_frames(gif)
        durations = [frame.info["duration"] for frame in frames]
        return np.stack([np.asarray(frame.convert("RGB")) for frame in frames]), durations


def squares(frames):
    return [tuple(int(v) for v in frame[10, 10]) for frame in frames]


def near(a, b, most=12):
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= most


def test_frames_order_and_durations(tmp_path):
    count = 7
    save_animation(write_frames(tmp_path, count), tmp_path / "a.gif", seconds=1.0)
    frames, durations = read_gif(tmp_path / "a.gif")
    assert frames.shape == (count, 30, 40, 3)
    assert all(near(seen, shade(i, count)) for i, seen in enumerate(squares(frames)))
    assert sum(durations[:-1]) == 1000
    assert max(durations[:-1]) - min(durations[:-1]) <= 10
    assert durations[-1] == 1500


def test_it_loops_for_ever(tmp_path):
    save_animation(write_frames(tmp_path, 2), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0


def test_white_stays_white(tmp_path):
    paths = write_frames(tmp_path, 4)
    noise = np.random.default_rng(0).integers(0, 256, (10, 10, 3), np.uint8)
    for path in paths:
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[:10, -10:] = noise  # fills the palette with colours that may not win
        pixels[20:, :5] = 253
        Image.fromarray(pixels).save(path)
    save_animation(paths, tmp_path / "a.gif")
    frames, _ = read_gif(tmp_path / "a.gif")
    assert (frames[:, 25:, 10:] == 255).all()


def test_thinned_evenly_with_both_ends(tmp_path):
    count = 60
    save_animation(write_frames(tmp_path, count), tmp_path / "a.gif", max_frames=5)
    frames, _ = read_gif(tmp_path / "a.gif")
    # 59 steps in 4: 0, 14.75, 29.5, 44.25, 59
    seen = squares(frames)
    assert len(seen) == 5
    assert all(near(s, shade(i, count)) for s, i in zip(seen, (0, 15, 30, 44, 59), strict=True))


def test_the_ends_are_the_readable_ends(tmp_path):
    count = 60
    paths = write_frames(tmp_path, count)
    for damaged in (paths[0], paths[58], paths[59]):
        damaged.write_bytes(b"")
    save_animation(paths, tmp_path / "a.gif", max_frames=4)
    seen = squares(read_gif(tmp_path / "a.gif")[0])
    assert len(seen) == 4
    assert all(near(s, shade(i, count), 4) for s, i in ((seen[0], 1), (seen[-1], 57)))


def test_faint_noise_is_not_drawn(tmp_path):
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(10)]
    shades = np.linspace(50, 200, 32)[:, None, None]
    for path in paths:
        noise = generator.integers(-2, 3, (32, 32, 3))
        Image.fromarray((shades + noise).astype(np.uint8)).save(path)
    save_animation(paths, tmp_path / "a.gif", seconds=1.0)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 1


def test_a_short_animation_keeps_to_its_seconds(tmp_path):
    save_animation(write_frames(tmp_path, 60), tmp_path / "a.gif", seconds=0.2)
    _, durations = read_gif(tmp_path / "a.gif")
    assert sum(durations[:-1]) == 200
    assert min(durations) >= 20  # browsers slow down anything faster


def test_few_frames_do_not_stand_for_seconds(tmp_path):
    save_animation(write_frames(tmp_path, 3), tmp_path / "a.gif", seconds=60.0)
    _, durations = read_gif(tmp_path / "a.gif")
    assert durations == [500, 500, 1500]


def test_single_frame(tmp_path):
    save_animation(write_frames(tmp_path, 1), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 1
        assert near(gif.convert("RGB").getpixel((10, 10)), shade(0, 1))


def test_damaged_and_missing_frames_are_left_out(tmp_path):
    count = 9
    paths = write_frames(tmp_path, count)
    paths[0].unlink()
    paths[1].write_text("not a picture")
    paths[4].write_bytes(paths[4].read_bytes()[:60])  # cut in its pixels
    paths[8].write_bytes(b"")
    save_animation(paths, tmp_path / "a.gif")
    frames, durations = read_gif(tmp_path / "a.gif")
    kept = (2, 3, 5, 6, 7)
    assert all(near(s, shade(i, count)) for s, i in zip(squares(frames), kept, strict=True))
    assert durations[-1] == 1500  # on the last one that was kept


@pytest.mark.parametrize("count", [0, 2])
def test_nothing_readable_is_one_clear_line(tmp_path, count):
    paths = [tmp_path / f"missing-{i}.png" for i in range(count)]
    with pytest.raises(PokeganError, match="no picture to animate") as error:
        save_animation(paths, tmp_path / "a.gif")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.gif").exists()


def test_smaller_early_frames_grow_with_hard_pixels(tmp_path):
    small = np.zeros((2, 2, 3), np.uint8)
    small[0, 1] = small[1, 0] = 255
    Image.fromarray(small).save(tmp_path / "0.png")
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "1.png")
    save_animation([tmp_path / "0.png", tmp_path / "1.png"], tmp_path / "a.gif")
    frames, _ = read_gif(tmp_path / "a.gif")
    assert frames.shape == (2, 8, 8, 3)
    wanted = small.repeat(4, axis=0).repeat(4, axis=1)
    assert np.abs(frames[0].astype(int) - wanted).max() <= 4


def test_grids_of_growing_stages_make_one_size(tmp_path):
    paths = []
    for side in (16, 32, 64):
        shades = np.array([30, 110, 190, 230], np.uint8)[:, None, None, None]
        images = np.broadcast_to(shades, (4, side, side, 3)).copy()
        paths.append(tmp_path / f"{side}.png")
        save_picture(make_grid(images), paths[-1])
    save_animation(paths, tmp_path / "a.gif")
    frames, _ = read_gif(tmp_path / "a.gif")
    assert frames.shape[1:] == (134, 134, 3)
    centres = frames[:, [[34, 34], [100, 100]], [[34, 100], [34, 100]], 0].astype(int)
    assert np.abs(centres - [[30, 110], [190, 230]]).max() <= 12
    assert len(frames) == 3


def test_large_frames_are_scaled_to_the_longest_side(tmp_path):
    save_animation(write_frames(tmp_path, 2, size=(100, 50)), tmp_path / "a.gif", max_side=60)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (60, 30)


def test_slow_change_is_not_lost(tmp_path):
    """Changes too small to be drawn add up until they are drawn."""
    paths = []
    for index in range(30):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(np.full((8, 8, 3), 100 + 2 * index, np.uint8)).save(paths[-1])
    save_animation(paths, tmp_path / "a.gif")
    frames, durations = read_gif(tmp_path / "a.gif")
    assert abs(int(frames[-1, 0, 0, 0]) - 158) <= 12
    assert len(frames) > 5
    assert sum(durations) == 8000 + 1500


def test_full_size_frames_are_not_kept(tmp_path, monkeypatch):
    alive, most = set(), 0
    opened = Image.open

    def watched(path):
        nonlocal most
        image = opened(path)
        convert = image.convert

        def tracked(mode):
            picture = convert(mode)
            if picture.size == (64, 64):
                alive.add(id(picture))
                weakref.finalize(picture, alive.discard, id(picture))
            return picture

        image.convert = tracked
        most = max(most, len(alive))
        return image

    paths = write_frames(tmp_path, 20, size=(64, 64))
    monkeypatch.setattr(Image, "open", watched)
    save_animation(paths, tmp_path / "a.gif", max_side=16)
    assert 1 <= most <= 3


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    paths = write_frames(tmp_path, 3)
    path = tmp_path / "a.gif"
    path.write_text("old")

    def full(self, file, **options):
        file.write_bytes(b"GIF89a")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="disk full"):
        save_animation(paths, path)
    assert path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == sorted([path, *paths])


@pytest.mark.parametrize("argument", [{"seconds": 0}, {"max_frames": 1}, {"max_side": 0}])
def test_arguments_out_of_range(tmp_path, argument):
    with pytest.raises(ValueError, match="no animation"):
        save_animation(write_frames(tmp_path, 2), tmp_path / "a.gif", **argument)
