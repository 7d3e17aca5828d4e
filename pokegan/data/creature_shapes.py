"""Signed distance functions and the painter that turns layers of them into a picture.

Knows nothing of creatures. Coordinates are resolution-independent "units" (x to the right, y down,
a creature is about two units tall); colours are RGB in [0, 1]; a distance is negative inside.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pokegan.data.creature_light import Array, limited, shade

Point: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom
Distance: TypeAlias = Callable[[Array, Array], Array]

LINE_WIDTH = 0.0125  # of the outline, in parts of the picture's side


@dataclass(frozen=True)
class Shape:
    """A region of the plane: `distance(x [1, W], y [H, 1]) -> [H, W]`, and a box that holds it."""

    box: Box
    distance: Distance

    def mirrored(self, axis: float = 0.0) -> "Shape":
        """The reflection in the vertical line x = `axis`."""
        left, top, right, bottom = self.box
        box = (2 * axis - right, top, 2 * axis - left, bottom)
        return Shape(box, lambda x, y: self.distance(2 * axis - x, y))

    def minus(self, other: "Shape") -> "Shape":
        """What of this shape lies outside `other`."""
        return Shape(self.box, lambda x, y: np.maximum(self.distance(x, y), -other.distance(x, y)))

    def within(self, other: "Shape") -> "Shape":
        """What of this shape lies inside `other`."""
        return Shape(self.box, lambda x, y: np.maximum(self.distance(x, y), other.distance(x, y)))


@dataclass(frozen=True)
class Mark:
    """A flat patch of colour, painted only where its layer is: belly, stripe, spot, iris."""

    shape: Shape
    colour: Colour
    opacity: float = 1.0


@dataclass(frozen=True)
class Layer:
    """One painted part: filled `shape`, its `marks`, a `line` around it (or none), its shading."""

    shape: Shape
    colour: Colour
    line: Colour | None = None
    marks: tuple[Mark, ...] = ()
    shading: float = 1.0

    def mirrored(self, axis: float = 0.0) -> "Layer":
        """The reflection in the vertical line x = `axis`; the light stays where it is."""
        marks = tuple(replace(mark, shape=mark.shape.mirrored(axis)) for mark in self.marks)
        return replace(self, shape=self.shape.mirrored(axis), marks=marks)


@dataclass(frozen=True)
class Frame:
    """A place (x, y) with radii rx, ry in units: local coordinates u, v in [-1, 1] run over it."""

    x: float
    y: float
    rx: float
    ry: float

    def at(self, u: float, v: float) -> Point:
        """The point (u, v) in units."""
        return self.x + u * self.rx, self.y + v * self.ry

    def path(self, *points: Point) -> list[Point]:
        """Several points (u, v) in units."""
        return [self.at(u, v) for u, v in points]

    def oval(self, u: float = 0.0, v: float = 0.0, ru: float = 1.0, rv: float = 1.0) -> Shape:
        """The ellipse about (u, v) whose radii are ru, rv of the frame's."""
        return ellipse(*self.at(u, v), ru * self.rx, rv * self.ry)


def mirrored_pair(layers: Sequence[Layer], axis: float = 0.0) -> list[Layer]:
    """`layers` and their reflections in x = `axis`."""
    return [*(layer.mirrored(axis) for layer in layers), *layers]


# Primitives ---------------------------------------------------------------------------------------


def ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Shape:
    """An ellipse of radii rx, ry about (cx, cy), turned by `turn` radians; exact for a circle.

    Otherwise the first-order distance k0 (k0 - 1) / k1 of I. Quilez, good near the edge.
    """
    cos, sin = math.cos(turn), math.sin(turn)
    width, height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)

    def distance(x: Array, y: Array) -> Array:
        x, y = x - cx, y - cy
        if rx == ry:
            return np.sqrt(x * x + y * y) - rx
        u, v = (x * cos + y * sin, y * cos - x * sin) if turn else (x, y)
        u, v = u * (1 / rx), v * (1 / ry)
        k0: Array = np.sqrt(u * u + v * v + 1e-8)
        u, v = u * (1 / rx), v * (1 / ry)
        k1 = np.sqrt(u * u + v * v + 1e-8 / min(rx, ry) ** 2)
        return k0 * (k0 - 1) / k1

    return Shape((cx - width, cy - height, cx + width, cy + height), distance)


def circle(cx: float, cy: float, radius: float) -> Shape:
    """A disc."""
    return ellipse(cx, cy, radius, radius)


def limb(start: Point, end: Point, r0: float, r1: float) -> Shape:
    """A capsule from `start` to `end` whose radius goes from r0 to r1."""
    (ax, ay), (bx, by) = start, (end[0] - start[0], end[1] - start[1])
    scale = 1 / max(bx * bx + by * by, 1e-9)

    def distance(x: Array, y: Array) -> Array:
        x, y = x - ax, y - ay
        along = limited((x * bx + y * by) * scale, 0, 1)
        u, v = x - along * bx, y - along * by
        signed: Array = np.sqrt(u * u + v * v) - (r0 + (r1 - r0) * along)
        return signed

    xs, ys = sorted((ax, end[0])), sorted((ay, end[1]))
    r = max(r0, r1)
    return Shape((xs[0] - r, ys[0] - r, xs[1] + r, ys[1] + r), distance)


def spline(points: Sequence[Point], steps: int = 5) -> list[Point]:
    """A Catmull-Rom curve through `points`, `steps` pieces between each two."""
    pad = [points[0], *points, points[-1]]
    curve: list[Point] = [points[0]]
    for p0, p1, p2, p3 in zip(pad, pad[1:], pad[2:], pad[3:], strict=False):
        for step in range(1, steps + 1):
            t = step / steps
            w0, w1 = -0.5 * t + t * t - 0.5 * t**3, 1 - 2.5 * t * t + 1.5 * t**3
            w2, w3 = 0.5 * t + 2 * t * t - 1.5 * t**3, -0.5 * t * t + 0.5 * t**3
            x, y = (w0 * p0[i] + w1 * p1[i] + w2 * p2[i] + w3 * p3[i] for i in (0, 1))
            curve.append((x, y))
    return curve


def tube(points: Sequence[Point], r0: float, r1: float, steps: int = 5, taper: float = 1) -> Shape:
    """A smooth curve through `points`; its radius goes from r0 to r1 as (length)^`taper`."""
    curve = spline(points, steps)
    last = len(curve) - 1
    radii = [r0 + (r1 - r0) * (i / last) ** taper for i in range(last + 1)]
    pieces = [limb(curve[i], curve[i + 1], radii[i], radii[i + 1]) for i in range(last)]
    return union(*pieces)


def polygon(points: Sequence[Point], radius: float = 0.0) -> Shape:
    """The polygon through `points`, its corners rounded by `radius` units outwards; exact."""
    corners = list(points)

    def distance(x: Array, y: Array) -> Array:
        nearest = np.full(np.broadcast_shapes(x.shape, y.shape), 1e9, np.float32)
        inside = np.zeros(nearest.shape, bool)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            ex, ey = bx - ax, by - ay
            u, v = x - ax, y - ay
            along = limited((u * ex + v * ey) * (1 / max(ex * ex + ey * ey, 1e-9)), 0, 1)
            du, dv = u - along * ex, v - along * ey
            nearest = np.minimum(nearest, du * du + dv * dv)
            inside ^= ((ay > y) != (by > y)) & ((u * ey < v * ex) == (ey > 0))
        signed: Array = np.sqrt(nearest) * np.where(inside, np.float32(-1), np.float32(1))
        return signed - radius

    xs, ys = [p[0] for p in corners], [p[1] for p in corners]
    return Shape((min(xs) - radius, min(ys) - radius, max(xs) + radius, max(ys) + radius), distance)


def leaf(base: Point, tip: Point, width: float) -> Shape:
    """A lens from `base` to `tip`, `width` units across at its middle, pointed at both ends."""
    dx, dy = tip[0] - base[0], tip[1] - base[1]
    length = max(math.hypot(dx, dy), 1e-6)
    half, mid = min(width, 0.98 * length) / 2, ((base[0] + tip[0]) / 2, (base[1] + tip[1]) / 2)
    radius = (length * length / 4 + half * half) / (2 * half)
    nx, ny = -dy / length * (radius - half), dx / length * (radius - half)
    arcs = [circle(mid[0] + sign * nx, mid[1] + sign * ny, radius) for sign in (-1, 1)]
    reach = (abs(dx) / 2 + half * abs(dy) / length, abs(dy) / 2 + half * abs(dx) / length)
    box = (mid[0] - reach[0], mid[1] - reach[1], mid[0] + reach[0], mid[1] + reach[1])

    def distance(x: Array, y: Array) -> Array:
        return np.maximum(arcs[0].distance(x, y), arcs[1].distance(x, y))

    return Shape(box, distance)


def rosette(cx: float, cy: float, radius: float, depth: float, lobes: int, turn: float) -> Shape:
    """A disc with `lobes` round lobes, `depth` units from valley to crest: ruff, flower, cloud."""

    def distance(x: Array, y: Array) -> Array:
        x, y = x - cx, y - cy
        lobe = np.abs(np.cos((np.arctan2(y, x) + turn) * (lobes / 2)))
        return (np.sqrt(x * x + y * y) - (radius - depth) - depth * np.sqrt(lobe)) * 0.85

    return Shape((cx - radius, cy - radius, cx + radius, cy + radius), distance)


def band(start: Point, end: Point) -> Shape:
    """The half-plane to the right hand of someone who walks from `start` to `end` (y down)."""
    ex, ey = end[0] - start[0], end[1] - start[1]
    length = math.hypot(ex, ey)
    nx, ny = ey / length, -ex / length
    offset = start[0] * nx + start[1] * ny
    return Shape((-1e3, -1e3, 1e3, 1e3), lambda x, y: x * nx + y * ny - offset)


# Unions -------------------------------------------------------------------------------------------


def _hull(shapes: Sequence[Shape]) -> Box:
    lefts, tops, rights, bottoms = zip(*(shape.box for shape in shapes), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def union(*shapes: Shape) -> Shape:
    """Everything inside any of `shapes`."""

    def distance(x: Array, y: Array) -> Array:
        nearest = shapes[0].distance(x, y)
        for shape in shapes[1:]:
            nearest = np.minimum(nearest, shape.distance(x, y))
        return nearest

    return Shape(_hull(shapes), distance)


def blend(softness: float, *shapes: Shape) -> Shape:
    """A union whose seams are filleted over `softness` units (the polynomial smooth minimum)."""

    def distance(x: Array, y: Array) -> Array:
        nearest = shapes[0].distance(x, y)
        for shape in shapes[1:]:
            other = shape.distance(x, y)
            seam = np.maximum(softness - np.abs(nearest - other), 0)
            nearest = np.minimum(nearest, other) - seam * seam * (0.25 / softness)
        return nearest

    left, top, right, bottom = _hull(shapes)
    swell = softness / 4
    return Shape((left - swell, top - swell, right + swell, bottom + swell), distance)


# Painting -----------------------------------------------------------------------------------------


class Canvas:
    """A square picture of the units in `view`, painted back to front.

    `pixels` is [4, N, N] float32 in [0, 1]: RGB premultiplied by alpha, then alpha.
    """

    def __init__(self, samples: int, view: Box) -> None:
        self.side = view[2] - view[0]
        self.pixel = self.side / samples
        centres = (np.arange(samples, dtype=np.float32) + 0.5) * self.pixel
        self.x = (centres + view[0])[None, :]
        self.y = (centres + view[1])[:, None]
        self._corner = view[:2]
        self.pixels = np.zeros((4, samples, samples), np.float32)

    def paint(self, layer: Layer) -> None:
        """Put `layer` over what is there."""
        line = LINE_WIDTH * self.side if layer.line else 0.0
        rows, columns = self._window(layer.shape.box, line + 2 * self.pixel)
        x, y = self.x[:, columns], self.y[rows]
        if x.shape[1] < 2 or y.shape[0] < 2:
            return
        distance = layer.shape.distance(x, y)
        target = self.pixels[:, rows, columns]
        if layer.line:
            _over(target, _flat(layer.line), self._cover(distance - line))
        colour = np.broadcast_to(_flat(layer.colour), (3, *distance.shape)).copy()
        for mark in layer.marks:
            self._stain(colour, mark, rows, columns)
        if layer.shading:
            shade(colour, distance, self.pixel, layer.shading)
        _over(target, colour, self._cover(distance))

    def _stain(self, colour: Array, mark: Mark, rows: slice, columns: slice) -> None:
        """Paint `mark` into the window's `colour` [3, h, w]."""
        r, c = self._window(mark.shape.box, 2 * self.pixel)
        r = slice(max(r.start, rows.start), min(r.stop, rows.stop))
        c = slice(max(c.start, columns.start), min(c.stop, columns.stop))
        if r.stop <= r.start or c.stop <= c.start:
            return
        cover = self._cover(mark.shape.distance(self.x[:, c], self.y[r])) * mark.opacity
        part = colour[:, r.start - rows.start : r.stop - rows.start]
        part = part[:, :, c.start - columns.start : c.stop - columns.start]
        part += (_flat(mark.colour) - part) * cover

    def _cover(self, distance: Array) -> Array:
        """The part of a pixel that lies inside, from the distance at its centre."""
        return limited(0.5 - distance * (1 / self.pixel), 0, 1)

    def _window(self, box: Box, margin: float) -> tuple[slice, slice]:
        """Rows and columns of the pixels within `margin` units of `box`."""
        samples = self.pixels.shape[1]

        def span(low: float, high: float, origin: float) -> slice:
            first = math.floor((low - margin - origin) / self.pixel)
            last = math.ceil((high + margin - origin) / self.pixel)
            return slice(min(max(first, 0), samples), min(max(last, 0), samples))

        return span(box[1], box[3], self._corner[1]), span(box[0], box[2], self._corner[0])


def _flat(colour: Colour) -> Array:
    return np.array(colour, np.float32)[:, None, None]


def _over(target: Array, colour: Array, cover: Array) -> None:
    """Composite `colour` [3, h, w] with alpha `cover` [h, w] over premultiplied `target`."""
    target *= 1 - cover
    target[:3] += colour * cover
    target[3] += cover


def extent(layers: Sequence[Layer], samples: int = 72) -> Box:
    """The box that the silhouette of `layers` really fills, to about one part in `samples`."""
    left, top, right, bottom = _hull([layer.shape for layer in layers])
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
    canvas = Canvas(samples, (x - half, y - half, x + half, y + half))
    for layer in layers:
        rows, columns = canvas._window(layer.shape.box, canvas.pixel)
        cover = canvas._cover(layer.shape.distance(canvas.x[:, columns], canvas.y[rows]))
        target = canvas.pixels[3, rows, columns]
        np.maximum(target, cover, out=target)
    inside = canvas.pixels[3] > 0.5
    columns_in, rows_in = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
    half = canvas.pixel / 2
    return (
        float(canvas.x[0, columns_in[0]]) - half,
        float(canvas.y[rows_in[0], 0]) - half,
        float(canvas.x[0, columns_in[-1]]) + half,
        float(canvas.y[rows_in[-1], 0]) + half,
    )


def render(layers: Sequence[Layer], view: Box, size: int) -> npt.NDArray[np.uint8]:
    """Paint `layers` and return [size, size, 4] uint8 RGBA, straight alpha.

    Small pictures are painted larger and averaged with premultiplied alpha, so that thin lines keep
    their weight. Where alpha is zero the colour is white: no resampling can bring in a dark fringe.
    """
    factor = max(1 if size >= 256 else 2, math.ceil(128 / size))
    canvas = Canvas(size * factor, view)
    for layer in layers:
        canvas.paint(layer)
    rows = canvas.pixels.reshape(4, size, factor, size * factor).mean(2)
    pixels = rows.reshape(4, size, size, factor).mean(3)  # [4, size, size]
    alpha = np.rint(np.clip(pixels[3], 0, 1) * 255)
    colour = pixels[:3] / np.maximum(pixels[3], 1e-6)
    rgb = np.where(alpha > 0, np.rint(np.clip(colour, 0, 1) * 255), 255)
    return np.ascontiguousarray(np.concatenate([rgb, alpha[None]]).transpose(1, 2, 0), np.uint8)
