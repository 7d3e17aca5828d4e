"""Bytes of pictures, grids and PNG files, against values worked out by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from pokegan.errors import PokeganError
from pokegan.render.pictures import (
    RULE,
    make_grid,
    make_pairs,
    save_grid,
    save_picture,
    to_uint8,
)


def counted(count, height, width):
    """Return pictures of which each is filled with its own number: 10, 20, ..."""
    numbers = 10 * np.arange(1, count + 1, dtype=np.uint8)
    return np.broadcast_to(numbers[:, None, None, None], (count, height, width, 3)).copy()


class TestToUint8:
    def test_known_values(self):
        values = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, 1.7, -9.0, torch.inf, -torch.inf])
        images = values.view(1, 1, 1, -1).expand(1, 3, 1, -1)
        # (x + 1) * 127.5: 63.75, 127.5 (to even) and 191.25 are rounded
        expected = [0, 64, 128, 191, 255, 255, 0, 255, 0]
        assert to_uint8(images)[0, 0, :, 0].tolist() == expected

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
    def test_every_byte_comes_back(self, dtype):
        every = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16)
        images = (every.double() / 127.5 - 1).to(dtype)
        assert np.array_equal(to_uint8(images)[0, :, :, 1].ravel(), np.arange(256))

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_places_and_channels(self, layout):
        images = torch.full((2, 3, 4, 5), -1.0)
        images[1, 2, 3, 0] = 1.0
        result = to_uint8(images.to(memory_format=layout).requires_grad_())
        assert result.shape == (2, 4, 5, 3)
        assert result.dtype == np.uint8
        assert np.argwhere(result).tolist() == [[1, 3, 0, 2]]

    def test_nan_is_told(self):
        images = torch.zeros(2, 3, 4, 4)
        images[1, 0, 2, 2] = torch.nan
        with pytest.raises(PokeganError, match="NaN"):
            to_uint8(images)

    @pytest.mark.parametrize(
        "images", [torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, 3), torch.zeros(1, 3, 4, 4).byte()]
    )
    def test_other_tensors_are_refused(self, images):
        with pytest.raises(ValueError, match="expected floats"):
            to_uint8(images)


class TestMakeGrid:
    def test_every_pixel(self):
        grid = make_grid(counted(3, 1, 2), columns=2, padding=1, background=(7, 8, 9))
        # rows: padding, pictures 1 and 2, padding, picture 3 and a gap, padding
        zero = [0] * 7
        first = [0, 10, 10, 0, 20, 20, 0]
        second = [0, 30, 30, 0, 0, 0, 0]
        expected = np.array([zero, first, zero, second, zero])
        for channel, ground in enumerate((7, 8, 9)):
            wanted = np.where(expected == 0, ground, expected)
            assert np.array_equal(grid[:, :, channel], wanted)
        assert grid.dtype == np.uint8

    @pytest.mark.parametrize(
        ("count", "columns", "rows_and_columns"),
        [
            (1, None, (1, 1)),
            (2, None, (1, 2)),
            (5, None, (2, 3)),
            (9, None, (3, 3)),
            (64, None, (8, 8)),
            (3, 8, (1, 3)),
            (3, 1, (3, 1)),
        ],
    )
    def test_layout(self, count, columns, rows_and_columns):
        grid = make_grid(np.zeros((count, 4, 4, 3), np.uint8), columns, padding=2)
        assert grid.shape == (rows_and_columns[0] * 6 + 2, rows_and_columns[1] * 6 + 2, 3)

    def test_no_padding_is_plain_tiling(self):
        images = np.random.default_rng(0).integers(0, 256, (4, 3, 3, 3), np.uint8)
        top, bottom = np.hstack(images[:2]), np.hstack(images[2:])
        assert np.array_equal(make_grid(images, padding=0), np.vstack([top, bottom]))

    @pytest.mark.parametrize(
        ("images", "arguments"),
        [
            (np.zeros((0, 4, 4, 3), np.uint8), {}),
            (np.zeros((4, 4, 3), np.uint8), {}),
            (np.zeros((1, 3, 4, 4), np.uint8), {}),
            (np.zeros((1, 4, 4, 3), np.float32), {}),
            (np.zeros((1, 4, 4, 3), np.uint8), {"columns": 0}),
            (np.zeros((1, 4, 4, 3), np.uint8), {"padding": -1}),
        ],
    )
    def test_refused(self, images, arguments):
        with pytest.raises(ValueError, match=r"expected|no grid"):
            make_grid(images, **arguments)


class TestMakePairs:
    def test_every_pixel(self):
        above = counted(3, 1, 2)
        pairs = make_pairs(above, above + 100, columns=2, padding=1, background=(7, 8, 9))
        # two rows of pairs, each original, padding, reconstruction; a rule between the rows
        zero, rule = [0] * 7, [-1] * 7
        first = [[0, 10, 10, 0, 20, 20, 0], zero, [0, 110, 110, 0, 120, 120, 0]]
        second = [[0, 30, 30, 0, 0, 0, 0], zero, [0, 130, 130, 0, 0, 0, 0]]
        expected = np.array([zero, *first, zero, rule, zero, *second, zero])
        for channel, ground in enumerate((7, 8, 9)):
            wanted = np.where(expected == 0, ground, expected)
            wanted = np.where(expected == -1, RULE[channel], wanted)
            assert np.array_equal(pairs[:, :, channel], wanted)
        assert pairs.dtype == np.uint8

    @pytest.mark.parametrize(
        ("count", "columns", "rows_and_columns"),
        [(1, None, (1, 1)), (8, None, (2, 4)), (32, None, (4, 8)), (3, 8, (1, 3)), (3, 1, (3, 1))],
    )
    def test_layout(self, count, columns, rows_and_columns):
        images = np.zeros((count, 4, 6, 3), np.uint8)
        rows, across = rows_and_columns
        wanted = (rows * (2 * 6 + 2 + 1) - 1, across * 8 + 2, 3)
        assert make_pairs(images, images, columns, padding=2).shape == wanted

    @pytest.mark.parametrize(
        ("originals", "reconstructions", "columns"),
        [
            (np.zeros((0, 4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8), None),
            (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3), np.uint8), None),
            (np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 3)), None),
            (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), 0),
        ],
    )
    def test_refused(self, originals, reconstructions, columns):
        with pytest.raises(ValueError, match=r"pairs|expected"):
            make_pairs(originals, reconstructions, columns)


class TestSaving:
    def test_png_holds_the_same_bytes(self, tmp_path):
        image = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
        path = tmp_path / "new" / "picture.png"
        save_picture(image[:, ::-1], path)  # not contiguous
        with Image.open(path) as read:
            assert (read.format, read.mode) == ("PNG", "RGB")
            assert np.array_equal(np.asarray(read)[:, ::-1], image)

    def test_grid_on_disk(self, tmp_path):
        path = tmp_path / "grid.png"
        save_grid(counted(2, 2, 2), path, columns=1, padding=3, background=(1, 2, 3))
        with Image.open(path) as read:
            assert read.size == (8, 13)
            assert [read.getpixel(at) for at in ((0, 0), (3, 3), (4, 9))] == [
                (1, 2, 3),
                (10, 10, 10),
                (20, 20, 20),
            ]

    def test_a_refused_picture_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "picture.png"
        path.write_text("old")
        with pytest.raises(ValueError, match="expected uint8"):
            save_picture(np.zeros((4, 4), np.uint8), path)
        assert path.read_text() == "old"

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch):
        def half(self, file, **options):
            file.write_bytes(b"half")
            raise OSError("disk full")

        path = tmp_path / "picture.png"
        path.write_text("old")
        monkeypatch.setattr(Image.Image, "save", half)
        with pytest.raises(OSError, match="disk full"):
            save_picture(np.zeros((4, 4, 3), np.uint8), path)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]
