"""The demo set: deterministic, the same at every size, varied, and clean around the edges."""

import colorsys
import functools
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pokegan.data.creature_shapes import (
    LINE_WIDTH,
    Canvas,
    Frame,
    Layer,
    Mark,
    Shape,
    blend,
    circle,
    ellipse,
    extent,
    leaf,
    limb,
    polygon,
    rosette,
    tube,
)
from pokegan.data.creatures import COUNT, MOST, PLANS, body_plan, draw_creature

Picture = npt.NDArray[np.uint8]


@functools.cache
def creatures(count: int, size: int) -> Picture:
    return np.stack([draw_creature(index, size) for index in range(count)])


@functools.cache
def members(plan: str) -> list[int]:
    return [index for index in range(COUNT) if body_plan(index) == plan]


def on_white(picture: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    alpha = picture[..., 3:] / 255.0
    return picture[..., :3] / 255.0 * alpha + 1 - alpha


def premultiplied(picture: Picture) -> npt.NDArray[np.float64]:
    values = picture / 255.0
    values[..., :3] *= values[..., 3:]
    return values


def halved(values: npt.NDArray[np.float64], factor: int) -> npt.NDArray[np.float64]:
    side = values.shape[0] // factor
    return values.reshape(side, factor, side, factor, -1).mean((1, 3))


# The set ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 33, 64, 256, 1024])
def test_shape_and_type_at_any_size(size: int) -> None:
    picture = draw_creature(3, size)
    assert picture.shape == (size, size, 4)
    assert picture.dtype == np.uint8


def test_same_arguments_give_the_same_bytes() -> None:
    for index in (0, 17, COUNT - 1):
        assert np.array_equal(draw_creature(index, 32, seed=5), draw_creature(index, 32, seed=5))


def test_the_order_of_drawing_does_not_matter() -> None:
    forward = [draw_creature(index, 16) for index in range(8)]
    backward = [draw_creature(index, 16) for index in reversed(range(8))]
    assert np.array_equal(forward, backward[::-1])


def test_another_seed_gives_another_set() -> None:
    alike = sum(
        np.array_equal(draw_creature(index, 16, 0), draw_creature(index, 16, 1))
        for index in range(16)
    )
    assert alike == 0


@pytest.mark.parametrize("index", range(0, 56, 4))
def test_the_same_creature_at_every_size(index: int) -> None:
    large = halved(premultiplied(draw_creature(index, 256)), 4)
    small = premultiplied(draw_creature(index, 64))
    assert np.abs(large - small).mean() < 0.01
    assert np.abs(large - small).max() < 0.35
    other = premultiplied(draw_creature(index + 1, 64))
    assert np.abs(large - other).mean() > 0.03


def test_an_odd_size_shows_the_same_creature() -> None:
    odd = halved(premultiplied(draw_creature(9, 96)), 3)
    even = halved(premultiplied(draw_creature(9, 64)), 2)
    assert np.abs(odd - even).mean() < 0.01


def test_no_two_of_the_first_256_are_alike() -> None:
    tiny = np.stack([halved(on_white(picture), 4) for picture in creatures(256, 32)])
    flat = tiny.reshape(256, -1).astype(np.float32)  # [256, 8 * 8 * 3]
    squares = (flat * flat).sum(1)
    apart = squares[:, None] + squares[None] - 2 * flat @ flat.T
    np.fill_diagonal(apart, np.inf)
    assert np.sqrt(max(apart.min(), 0) / flat.shape[1]) > 0.01  # root mean square, per channel


def test_every_body_plan_is_common() -> None:
    counts = Counter(body_plan(index) for index in range(COUNT))
    assert set(counts) == set(PLANS)
    assert len(PLANS) >= 6
    assert min(counts.values()) > COUNT / len(PLANS) / 2


# Alpha --------------------------------------------------------------------------------------------


def test_corners_and_borders_are_transparent() -> None:
    alpha = creatures(256, 32)[..., 3]
    for border in (alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1]):
        assert border.max() == 0


def test_composition_is_centred_and_fills_the_picture() -> None:
    for picture in creatures(256, 32):
        inside = picture[..., 3] > 127
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        spans = [int(line[-1] - line[0]) + 1 for line in (rows, columns)]
        assert 0.78 * 32 <= max(spans) <= 0.97 * 32
        assert abs(rows[0] + rows[-1] - 31) <= 2
        assert abs(columns[0] + columns[-1] - 31) <= 2
        assert 0.18 < inside.mean() < 0.75


def test_edges_are_antialiased_and_insides_opaque() -> None:
    alpha = draw_creature(0, 64)[..., 3]
    soft = ((alpha > 0) & (alpha < 255)).mean()
    assert 0.01 < soft < 0.15
    assert (alpha == 255).mean() > 0.15


def test_fully_transparent_pixels_are_white() -> None:
    for picture in (*creatures(256, 32)[:32], draw_creature(2, 256)):
        hidden = picture[picture[..., 3] == 0]
        assert len(hidden)
        assert (hidden[:, :3] == 255).all()


def test_edge_pixels_have_the_colour_of_the_line_not_of_the_background() -> None:
    for index in range(8):
        picture = draw_creature(index, 256).astype(int)
        light, alpha = picture[..., :3].mean(-1), picture[..., 3]
        edge = (alpha > 20) & (alpha < 200)
        assert light[edge].min() >= light[alpha == 255].min() - 6


def test_no_dark_fringe_on_white_even_after_a_careless_resize() -> None:
    """Averaging straight RGBA, which leaks hidden colours, never darkens the silhouette."""
    for index in range(8):
        picture = draw_creature(index, 256)
        careless = on_white(halved(picture.astype(float), 4))
        assert (careless - halved(on_white(picture), 4)).min() > -0.03


@pytest.mark.parametrize("plan", ["butterfly", "crab", "jelly"])
def test_the_silhouette_is_symmetric_where_promised(plan: str) -> None:
    for index in members(plan)[:6]:
        alpha = draw_creature(index, 64)[..., 3].astype(int)
        assert np.abs(alpha - alpha[:, ::-1]).max() <= 4


def test_a_plan_seen_from_the_side_is_not_symmetric() -> None:
    alpha = draw_creature(members("fish")[0], 64)[..., 3].astype(int)
    assert np.abs(alpha - alpha[:, ::-1]).mean() > 10


# Colour -------------------------------------------------------------------------------------------


def test_the_palette_goes_round_the_colour_wheel() -> None:
    hues: Counter[int] = Counter()
    for picture in creatures(256, 32):
        body = picture[picture[..., 3] == 255][:, :3] / 255.0
        vivid = body[np.ptp(body, axis=1) > 0.15]
        if len(vivid):
            hue, _, _ = colorsys.rgb_to_hsv(*np.median(vivid, axis=0))
            hues[int(hue * 12) % 12] += 1
    assert len(hues) >= 9
    assert max(hues.values()) < 0.4 * 256


def test_creatures_have_dark_lines_and_bright_lights() -> None:
    bodies = [picture[picture[..., 3] == 255][:, :3].mean(1) for picture in creatures(256, 32)]
    assert max(body.min() for body in bodies) < 100
    assert np.median([body.max() for body in bodies]) > 200


# Arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 64, 0), "index must be from 0 to 999999, not -1"),
        ((MOST, 64, 0), "index must be from 0 to 999999, not 1000000"),
        ((0, 7, 0), "size must be from 8 to 1024 px, not 7"),
        ((0, 1025, 0), "size must be from 8 to 1024 px, not 1025"),
        ((0, 64, -1), "seed must be from 0"),
        ((0, 64, 2**64), "seed must be from 0"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_creature(*arguments)


def test_the_largest_seed_works() -> None:
    assert draw_creature(0, 8, 2**64 - 1)[..., 3].any()


# Distance functions -------------------------------------------------------------------------------

SHAPES = {
    "circle": circle(0.1, -0.2, 0.5),
    "ellipse": ellipse(0.1, 0.1, 0.6, 0.3, 0.5),
    "limb": limb((-0.4, -0.3), (0.4, 0.4), 0.1, 0.3),
    "tube": tube([(-0.5, 0.3), (0.0, -0.4), (0.5, 0.2)], 0.2, 0.1),
    "polygon": polygon([(-0.5, 0.4), (0.0, -0.5), (0.5, 0.4), (0.0, 0.2)], 0.05),
    "leaf": leaf((-0.5, -0.3), (0.5, 0.3), 0.4),
    "rosette": rosette(0.0, 0.1, 0.6, 0.1, 7, 0.3),
    "blend": blend(0.2, circle(-0.3, 0, 0.3), circle(0.3, 0.1, 0.25)),
    "mirrored": limb((0.2, 0.0), (0.6, 0.5), 0.1, 0.2).mirrored(0.1),
    "minus": circle(0, 0, 0.5).minus(circle(0.3, 0, 0.3)),
    "within": circle(0, 0, 0.5).within(circle(0.3, 0, 0.5)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_box_holds_the_shape_and_the_distance_never_overshoots(name: str) -> None:
    shape, canvas = SHAPES[name], Canvas(256, (-1.0, -1.0, 1.0, 1.0))
    distance = shape.distance(canvas.x, canvas.y)
    assert distance.dtype == np.float32
    inside = distance < 0
    assert 0.02 < inside.mean() < 0.6
    left, top, right, bottom = shape.box
    columns, rows = canvas.x[0, inside.any(0)], canvas.y[inside.any(1), 0]
    assert left - 1e-3 <= columns.min() <= columns.max() <= right + 1e-3
    assert top - 1e-3 <= rows.min() <= rows.max() <= bottom + 1e-3
    near = np.abs(distance) < 0.05  # where outlines and edges are drawn
    slope = np.hypot(*np.gradient(distance, canvas.pixel))[near]
    assert 0.8 < np.median(slope) < 1.1
    assert np.quantile(slope, 0.95) < 1.5


def test_polygon_is_the_exact_distance() -> None:
    square = polygon([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    x, y = np.float32([[0.0, 0.8, 0.9]]), np.float32([[0.0], [0.9]])
    corner = np.hypot(0.4, 0.4)
    expected = [[-0.5, 0.3, 0.4], [0.4, np.hypot(0.3, 0.4), corner]]
    assert np.allclose(square.distance(x, y), expected, atol=1e-6)


def test_a_disc_is_painted_with_its_area_line_and_marks() -> None:
    canvas = Canvas(128, (-1.0, -1.0, 1.0, 1.0))
    mark = Mark(Shape((0, -1, 1, 1), lambda x, y: -x + 0 * y), (0.0, 0.0, 1.0))
    canvas.paint(Layer(circle(0, 0, 0.5), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (mark,), shading=0))
    red, green, blue, alpha = canvas.pixels
    radius = 0.5 + 2 * LINE_WIDTH
    assert alpha.mean() * 4 == pytest.approx(np.pi * radius**2, rel=2e-3)
    assert red.mean() * 4 == pytest.approx(np.pi * 0.25 / 2, rel=2e-2)
    assert blue.mean() * 4 == pytest.approx(np.pi * 0.25 / 2, rel=2e-2)
    assert green.max() == 0


def test_light_comes_from_the_upper_left() -> None:
    canvas = Canvas(64, (-1.0, -1.0, 1.0, 1.0))
    canvas.paint(Layer(circle(0, 0, 0.8), (0.5, 0.5, 0.5)))
    red = canvas.pixels[0]
    assert red[16, 20] > 0.55 > 0.5 > red[48, 44]


def test_extent_finds_what_is_filled() -> None:
    layers = [
        Layer(Frame(0.2, 0, 0.5, 0.3).oval(), (1, 1, 1)),
        Layer(circle(0, 0.4, 0.1), (1, 1, 1)),
    ]
    assert np.allclose(extent(layers), (-0.3, -0.3, 0.7, 0.5), atol=0.02)


def test_a_leaf_is_as_long_and_as_wide_as_it_says() -> None:
    blade = Layer(leaf((-0.5, 0.0), (0.5, 0.0), 0.4), (1, 1, 1))
    assert np.allclose(extent([blade], samples=200), (-0.5, -0.2, 0.5, 0.2), atol=0.01)
