"""Rendered scenes of the toy faces, before any camera or generator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGE_SIZE = 128

# Padding in generators leaves traces along the border, too easy a shortcut: every image is made
# with this many extra pixels on each side, which are cropped at the end.
FRAME = 4
FRAMED_SIZE = IMAGE_SIZE + 2 * FRAME
_OVERSAMPLING = 1.5
_SCENE_SIZE = int(FRAMED_SIZE * _OVERSAMPLING)

# float32 at run time; numpy's stubs type products with Python floats as float64.
Plane = NDArray[np.floating[Any]]
Planes = NDArray[np.floating[Any]]
Rng = np.random.Generator


@dataclass(frozen=True)
class _Grid:
    """Coordinates of every scene pixel, each ``(204, 204)``.

    ``x, y``: the image, -1 to 1, y down. ``head_x, head_y``: the upright head, an ellipse of
    radius 1 that narrows at the jaw. ``depth``: how far the head bulges towards the viewer, 0 to
    1. ``face_x, face_y``: the head's surface with its rotation undone, 0 between the eyes and the
    nose; facial features are drawn in these coordinates and so turn with the head.
    """

    x: Plane
    y: Plane
    head_x: Plane
    head_y: Plane
    depth: Plane
    face_x: Plane
    face_y: Plane

    def window(self, where: tuple[slice, slice]) -> _Grid:
        """The same coordinates for a part of the scene."""
        return _Grid(**{name: plane[where] for name, plane in vars(self).items()})


@dataclass(frozen=True)
class _Look:
    """Colours of one person, RGB in [0, 1], and attributes shared by several parts."""

    skin: Plane
    hair: Plane
    feminine: float
    light: tuple[float, float]


def colour_of(*rgb: float) -> Plane:
    """A colour as ``(3,)`` float32."""
    return np.array(rgb, dtype=np.float32)


def _ramp(distance: Plane, width: float) -> Plane:
    """A soft edge: 0 to 1 while ``distance`` goes from ``-width / 2`` to ``width / 2``."""
    soft: Plane = np.clip(distance * (1 / width) + 0.5, 0, 1)
    return soft


def _bump(x: Plane, y: Plane, x0: float, y0: float, width: float, height: float) -> Plane:
    return np.exp(-(((x - x0) * (1 / width)) ** 2) - ((y - y0) * (1 / height)) ** 2)


def _paint(canvas: Planes, mask: Plane, colour: Planes | Plane) -> None:
    """Paint ``colour`` (one RGB, or an image) over ``canvas`` in place where ``mask`` is 1."""
    layer = colour[:, None, None] if colour.ndim == 1 else colour
    canvas += mask * (layer - canvas)


def _texture(rng: Rng, like: Plane, rows: int, columns: int) -> Plane:
    """Smooth zero-mean noise of the shape of ``like``, with ``rows`` by ``columns`` cells."""
    cells = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    height, width = like.shape
    return np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC))


def _box(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Slices of the bounding box of the true pixels."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _grid(rng: Rng, feminine: float) -> _Grid:
    steps = np.arange(_SCENE_SIZE, dtype=np.float32) + (0.5 - _SCENE_SIZE / 2)
    axis = steps * (2 / (_OVERSAMPLING * IMAGE_SIZE))
    x, y = np.meshgrid(axis, axis)
    roll = rng.normal(0, 0.07)
    yaw = rng.normal(0, 0.22)
    pitch = rng.normal(0, 0.06)
    half_width = rng.uniform(0.47, 0.54)
    half_height = half_width * rng.uniform(1.28, 1.42)
    dx = x - rng.normal(0, 0.035)
    dy = y - rng.normal(0.05, 0.03)
    jaw = rng.uniform(0.10, 0.24) + 0.06 * feminine
    head_y = (dy * math.cos(roll) - dx * math.sin(roll)) * (1 / half_height)
    taper = 1 - jaw * np.clip(head_y, 0, 1.1) ** 2
    head_x = (dx * math.cos(roll) + dy * math.sin(roll)) / (half_width * taper)
    depth = np.sqrt(np.clip(1 - head_x**2 - head_y**2, 0, None))
    return _Grid(
        x=x,
        y=y,
        head_x=head_x,
        head_y=head_y,
        depth=depth,
        face_x=head_x * math.cos(yaw) - depth * math.sin(yaw),
        face_y=head_y * math.cos(pitch) - depth * math.sin(pitch),
    )


def _look(rng: Rng) -> _Look:
    tones = np.array(
        [
            [0.96, 0.80, 0.70],
            [0.91, 0.71, 0.58],
            [0.80, 0.59, 0.45],
            [0.62, 0.43, 0.32],
            [0.42, 0.28, 0.20],
        ],
        dtype=np.float32,
    )
    hairs = np.array(
        [
            [0.08, 0.06, 0.05],
            [0.16, 0.10, 0.07],
            [0.30, 0.18, 0.10],
            [0.52, 0.36, 0.19],
            [0.78, 0.62, 0.38],
            [0.48, 0.20, 0.09],
            [0.62, 0.60, 0.58],
        ],
        dtype=np.float32,
    )
    tone = rng.beta(1.2, 1.6) * (len(tones) - 1.001)
    lower = int(tone)
    skin = tones[lower] + (tone - lower) * (tones[lower + 1] - tones[lower])
    # Dark skin goes with dark hair more often than not; the list is ordered dark to light.
    hair = hairs[int(rng.integers(len(hairs) if tone < 1.6 else 3))]
    side = rng.choice([-1.0, 1.0])
    return _Look(
        skin=(skin * rng.uniform(0.93, 1.05)).astype(np.float32),
        hair=(hair * rng.uniform(0.9, 1.1, 3)).astype(np.float32),
        feminine=float(rng.random() < 0.55),
        light=(float(side) * rng.uniform(0.15, 0.75), rng.uniform(-0.65, -0.15)),
    )


def _background(rng: Rng, grid: _Grid) -> Planes:
    base = rng.uniform(0.12, 0.88) + rng.normal(0, 0.04, 3)
    tint = rng.normal(0, 0.05, 3) + rng.normal(0, 0.16)
    angle = rng.uniform(0, 2 * np.pi)
    slope = 0.5 * (grid.x * math.cos(angle) + grid.y * math.sin(angle))
    cells = int(rng.integers(3, 9))
    slope = slope + rng.uniform(0.05, 0.5) * _texture(rng, grid.x, cells, cells)
    canvas = colour_of(*base)[:, None, None] + slope * colour_of(*tint)[:, None, None]
    return np.clip(canvas, 0.02, 0.98)


def _strands(rng: Rng, grid: _Grid) -> Plane:
    """Zero-mean hair brightness: streaks and locks that fan out from above the crown."""
    fan = grid.head_x / (1.9 + grid.head_y) + 0.04 * _texture(rng, grid.x, 5, 5)
    streaks = rng.standard_normal(512, dtype=np.float32)
    streaks += 2 * np.convolve(streaks, np.full(9, 1 / 3), mode="same").astype(np.float32)
    position = fan * rng.uniform(70, 150) + 256
    index = position.astype(np.int32)
    part = position - index
    left, right = streaks[index & 511], streaks[(index + 1) & 511]
    brightness: Plane = 0.35 * (left + part * (right - left))
    return brightness + 0.35 * _texture(rng, grid.x, 7, 7)


def _hair_colour(look: _Look, grid: _Grid, strands: Plane) -> Planes:
    sheen = np.exp(-(((grid.head_y + 0.78 + 0.25 * look.light[0] * grid.head_x) / 0.2) ** 2))
    shade = 0.72 + 0.25 * look.light[0] * grid.head_x + 0.30 * strands + 0.35 * sheen
    shade += 0.06 * sheen * strands
    colour = look.hair[:, None, None] * np.clip(shade, 0.15, 1.7)
    return colour + (0.05 * sheen).astype(np.float32)


def _hair_behind(
    rng: Rng, canvas: Planes, grid: _Grid, look: _Look, hair: Planes, strands: Plane
) -> None:
    """Long hair that falls behind the neck; some people have none."""
    if rng.random() > (0.85 if look.feminine else 0.08):
        return
    length = rng.uniform(0.8, 2.2)
    flare = rng.uniform(1.12, 1.34)
    edge = flare + 0.05 * strands + rng.uniform(-0.1, 0.12) * grid.head_y
    top = np.clip(-grid.head_y, 0, None) / rng.uniform(1.12, 1.25)
    inside = edge * np.sqrt(np.clip(1 - top**2, 0, 1)) - np.abs(grid.head_x)
    mask = (top < 1) * _ramp(inside, 0.05) * _ramp(length - grid.head_y + 0.12 * strands, 0.12)
    _paint(canvas, mask, hair * 0.72)


def _body(rng: Rng, canvas: Planes, grid: _Grid, look: _Look) -> None:
    neck = rng.uniform(0.50, 0.66) - 0.08 * look.feminine
    side = np.abs(grid.head_x - 0.1 * grid.face_x)
    width = neck + 1.6 * np.clip(grid.head_y - 1.05, 0, None) ** 2
    mask = _ramp(width - side, 0.03) * (grid.head_y > 0.2)
    shade = 0.50 + 0.32 * np.clip(grid.head_y - 0.95, 0, 1.2) + 0.22 * look.light[0] * grid.head_x
    _paint(canvas, mask, look.skin[:, None, None] * np.clip(shade, 0.2, 1))
    cloth = np.clip(rng.uniform(0.05, 0.85) + rng.normal(0, 0.13, 3), 0.03, 0.95)
    collar = rng.uniform(1.18, 1.36)
    depth_of_neckline = rng.uniform(0.1, 0.5) * np.clip(1 - (side / 0.7) ** 2, 0, None)
    slope = rng.uniform(0.10, 0.25) * side**2
    inside = grid.head_y - collar - depth_of_neckline - slope
    folds = 0.85 + 0.1 * _texture(rng, grid.x, 4, 7) + 0.2 * look.light[0] * grid.head_x
    _paint(canvas, _ramp(inside, 0.03), cloth.astype(np.float32)[:, None, None] * folds)


def _skin(rng: Rng, canvas: Planes, grid: _Grid, look: _Look) -> None:
    """Ears and the head's shaded skin, without the features."""
    fx, fy, depth = np.abs(grid.face_x), grid.face_y, grid.depth
    ear = 1 - ((np.abs(grid.head_x) - 0.99) / 0.13) ** 2 - ((grid.head_y - 0.03) / 0.22) ** 2
    inner = (
        0.62
        + 0.25 * np.clip(ear, 0, 1)
        - 0.2 * _bump(np.abs(grid.head_x), grid.head_y, 1.03, 0.02, 0.05, 0.12)
    )
    _paint(
        canvas,
        _ramp(ear, 0.3),
        look.skin[:, None, None] * inner * colour_of(1, 0.9, 0.87)[:, None, None],
    )

    nose_width = rng.uniform(0.10, 0.15) - 0.01 * look.feminine
    relief = (
        rng.uniform(0.08, 0.13) * _bump(fx, fy, 0, 0.15, 0.10, 0.26)
        + rng.uniform(0.10, 0.16) * _bump(fx, fy, 0, 0.34, nose_width, 0.10)
        + 0.06 * _bump(fx, fy, nose_width + 0.03, 0.38, 0.06, 0.06)
        - rng.uniform(0.06, 0.12) * _bump(fx, fy, 0.36, -0.09, 0.20, 0.12)
        + 0.05 * _bump(fx, fy, 0.36, -0.26, 0.24, 0.08)
        + rng.uniform(0.05, 0.10) * _bump(fx, fy, 0.48, 0.24, 0.20, 0.18)
        + 0.07 * _bump(fx, fy, 0, 0.88, 0.20, 0.10)
        - 0.05 * _bump(fx, fy, 0, 0.76, 0.20, 0.05)
        - 0.02 * _bump(fx, fy, 0, 0.50, 0.035, 0.05)
    )
    light_x, light_y = look.light
    step = _OVERSAMPLING * IMAGE_SIZE / 4
    slope_y, slope_x = np.gradient(relief)
    facing = light_x * grid.head_x * 0.75 + light_y * grid.head_y * 0.55 + 0.85 * depth
    facing -= step * (light_x * slope_x + light_y * slope_y) * 0.5
    shade = 0.50 + rng.uniform(0.42, 0.56) * np.clip(facing, -0.2, 1.2)
    shade -= 0.10 * _bump(fx, fy, 0.20, -0.05, 0.09, 0.10)  # shadow at the inner eye corners
    shade -= 0.13 * _bump(fx, fy, 0, 0.455, 0.13, 0.035)  # under the nose
    shade -= rng.uniform(0.02, 0.09) * _bump(fx - 0.35 * (fy - 0.38), fy, 0.22, 0.48, 0.022, 0.10)
    shade -= 0.06 * _bump(fx, fy, 0, 0.745, 0.16, 0.03)
    shade += 0.01 * _texture(rng, grid.x, 64, 64)
    blush = rng.uniform(0.03, 0.13) * _bump(fx, fy, 0.48, 0.27, 0.20, 0.15)
    blush += 0.06 * _bump(fx, fy, 0, 0.33, 0.12, 0.10)
    tint = np.stack([np.ones_like(blush), 1 - blush, 1 - 0.9 * blush])
    # Light scattered in skin is reddish: the shadow side loses blue and green first.
    warm = np.clip(0.80 - shade, 0, 1) * 0.35
    tint[1] -= warm * 0.5
    tint[2] -= warm * 0.7
    skin = look.skin[:, None, None] * shade * tint
    gloss = rng.uniform(0.02, 0.12) * (
        _bump(fx, fy, 0, 0.31, 0.05, 0.05)
        + 0.8 * _bump(grid.face_x, fy, 0.25 * light_x, -0.45, 0.28, 0.12)
        + 0.6 * _bump(grid.face_x, fy, 0.42 * math.copysign(1, light_x), 0.14, 0.12, 0.08)
    )
    if not look.feminine:
        beard = rng.uniform(0, 0.75) * rng.random()
        zone = _ramp(fy - 0.46 + 0.62 * (0.75 - fx) * (fx < 0.75) * (fx > 0.3), 0.22)
        stubble = 0.8 + 0.15 * _texture(rng, grid.x, 96, 96)
        _paint(skin, beard * zone * np.clip(stubble, 0, 1), look.hair * 0.9)
    radius = 1 - grid.head_x**2 - grid.head_y**2
    _paint(canvas, _ramp(radius, 0.04), skin + gloss)


def _eyes(rng: Rng, canvas: Planes, grid: _Grid, look: _Look) -> None:
    """Both eyes and brows at once, in coordinates mirrored at the face's vertical axis."""
    fx, fy = np.abs(grid.face_x), grid.face_y + rng.normal(0, 0.012) * grid.face_x
    spacing = rng.uniform(0.355, 0.405)
    level = rng.uniform(-0.11, -0.06)
    width = rng.uniform(0.165, 0.195)
    up = rng.uniform(0.060, 0.085) + 0.008 * look.feminine
    down = rng.uniform(0.030, 0.048)
    ex = (fx - spacing) * (1 / width)
    ey = fy - level + rng.uniform(-0.01, 0.035) * ex
    arc = np.clip(1 - ex**2, -0.6, None)
    upper, lower = ey + up * arc, down * arc - ey
    open_eye = _ramp(np.minimum(upper, lower), 0.016)
    socket = 0.30 * _bump(ex, ey, 0, -0.05, 1.1, 0.10) * (0.6 + 0.4 * look.feminine)
    _paint(canvas, socket * rng.uniform(0.2, 0.7), look.skin * colour_of(0.52, 0.42, 0.40))

    white = colour_of(0.90, 0.87, 0.85) * rng.uniform(0.82, 0.98)
    shade = np.clip(0.62 + 6 * upper, 0, 1) * (1 - 0.18 * np.abs(ex))
    eye = white[:, None, None] * shade
    irises = ((0.16, 0.09, 0.05), (0.30, 0.18, 0.09), (0.26, 0.36, 0.46), (0.30, 0.38, 0.24))
    weights = (0.45, 0.3, 0.15, 0.10) if look.skin[2] > 0.4 else (0.8, 0.2, 0.0, 0.0)
    iris = colour_of(*irises[int(rng.choice(4, p=weights))])
    gaze = np.sign(grid.face_x) * rng.normal(0, 0.018)
    across = fx - spacing - gaze
    along = (fy - level + 0.014) * 1.35
    radius = np.sqrt(across**2 + along**2)
    size = rng.uniform(0.074, 0.086)
    ring = np.clip(1.45 - 0.75 * (radius * (1 / size)) ** 2, 0.35, 1.3)
    _paint(eye, _ramp(size - radius, 0.018), iris[:, None, None] * ring)
    _paint(eye, _ramp(0.40 * size - radius, 0.02), colour_of(0.02, 0.02, 0.02))
    glint = _bump(
        grid.face_x - np.sign(grid.face_x) * spacing,
        along,
        0.03 * math.copysign(1, look.light[0]),
        -0.035,
        0.018,
        0.02,
    )
    _paint(eye, 0.9 * glint, colour_of(1, 1, 1))
    _paint(canvas, open_eye, eye)

    lash = rng.uniform(0.45, 0.75) + 0.2 * look.feminine
    line = np.exp(-((upper / rng.uniform(0.013, 0.022)) ** 2)) * _ramp(1.1 - np.abs(ex), 0.2)
    _paint(canvas, lash * line, colour_of(0.07, 0.05, 0.04))
    under = np.exp(-((lower / 0.012) ** 2)) * _ramp(1.05 - np.abs(ex), 0.3)
    _paint(canvas, 0.35 * under, look.skin * colour_of(0.45, 0.33, 0.30))
    crease = np.exp(-(((ey + up * 1.55 * np.clip(1 - 0.55 * ex**2, 0, None)) / 0.013) ** 2))
    crease *= _ramp(1.05 - np.abs(ex), 0.4)
    _paint(canvas, rng.uniform(0.2, 0.5) * crease, look.skin * colour_of(0.50, 0.38, 0.35))
    bag = _bump(ex, ey, -0.1, down + 0.055, 0.8, 0.022)
    _paint(canvas, rng.uniform(0.05, 0.3) * bag, look.skin * colour_of(0.60, 0.48, 0.45))

    bx = (fx - spacing - 0.005) * (1 / rng.uniform(0.205, 0.245))
    arch = rng.uniform(0.02, 0.06)
    middle = level - rng.uniform(0.165, 0.21) + arch * (bx - 0.25) ** 2 - rng.normal(0, 0.012) * bx
    thick = (rng.uniform(0.030, 0.048) - 0.010 * look.feminine) * np.clip(1 - 0.45 * bx, 0.3, 1.3)
    brow = _ramp(thick - np.abs(fy - middle), 0.035) * _ramp(1 - np.abs(bx), 0.18)
    brow *= np.clip(0.85 + 0.25 * _texture(rng, grid.x, 40, 90), 0.3, 1)
    _paint(canvas, rng.uniform(0.55, 0.9) * brow, look.hair * 0.65 + 0.02)


def _mouth(rng: Rng, canvas: Planes, grid: _Grid, look: _Look) -> None:
    """Nostrils and lips, open or closed."""
    fx, fy = np.abs(grid.face_x), grid.face_y
    nostril = _bump(fx, fy, rng.uniform(0.065, 0.085), 0.415, 0.034, 0.020)
    _paint(canvas, 0.75 * nostril, look.skin * colour_of(0.25, 0.14, 0.12))
    wing = np.exp(-(((np.hypot(fx - 0.115, (fy - 0.375) * 1.1) - 0.055) / 0.016) ** 2))
    wing *= _ramp(fx - 0.135, 0.04)
    _paint(canvas, rng.uniform(0.15, 0.4) * wing, look.skin * colour_of(0.45, 0.33, 0.30))

    half = rng.uniform(0.24, 0.33)
    level = rng.uniform(0.595, 0.635)
    smile = rng.beta(1.5, 1.5)
    mx = fx * (1 / (half * (1 + 0.18 * smile)))
    my = fy - level + (0.055 * smile - 0.01) * mx**2
    arc = np.clip(1 - mx**2, 0, None)
    fold = np.sqrt(arc)
    gap = max(0.0, rng.normal(0.0, 0.5) * smile) * 0.10 * arc
    top = (0.045 + 0.02 * rng.random()) * arc**0.8 * (1 - 0.3 * np.exp(-((mx / 0.16) ** 2)))
    bottom = (0.070 + 0.03 * rng.random()) * fold
    lips = _ramp(np.minimum(my + top, bottom + gap - my), 0.022) * (mx < 1)
    red = colour_of(0.86, 0.52, 0.50) if not look.feminine else colour_of(0.88, 0.42, 0.44)
    lip = look.skin * red ** rng.uniform(0.6, 1.25)
    roundness = np.clip(
        0.90 + 2.2 * (my - gap) * (my < gap + 0.04) - 1.5 * np.clip(my - gap - 0.04, 0, 1), 0.5, 1.2
    )
    painted = lip[:, None, None] * roundness
    painted += (rng.uniform(0, 0.16) * _bump(mx, my - gap, 0, 0.035, 0.4, 0.014)).astype(np.float32)
    _paint(canvas, 0.9 * lips, painted)
    inside = _ramp(np.minimum(my, gap - my), 0.016) * (mx < 1)
    teeth = colour_of(0.88, 0.86, 0.81)[:, None, None] * np.clip(
        1.0 - 0.55 * mx**2 - 2 * my, 0.25, 1
    )
    _paint(canvas, inside, teeth)
    line = np.exp(-((my / 0.013) ** 2)) * _ramp(1.06 - mx, 0.12)
    _paint(canvas, rng.uniform(0.5, 0.8) * line, look.skin * colour_of(0.30, 0.13, 0.13))
    corner = _bump(mx, my, 1.02, 0.0, 0.07, 0.03)
    _paint(canvas, 0.35 * corner, look.skin * colour_of(0.40, 0.25, 0.23))


def _hair_front(
    rng: Rng, canvas: Planes, grid: _Grid, look: _Look, hair: Planes, strands: Plane
) -> None:
    if not look.feminine and rng.random() < 0.08:
        return
    volume = rng.uniform(1.06, 1.20) + 0.03 * look.feminine
    sides = rng.uniform(0.0, 0.9) if look.feminine else rng.uniform(-0.25, 0.05)
    start = rng.uniform(-0.66, -0.50) if rng.random() < 0.8 else rng.uniform(-0.40, -0.30)
    part = rng.normal(0, 0.3)
    across = np.abs(grid.face_x - 0.35 * part * (1 - np.abs(grid.face_x)))
    power = rng.uniform(2.2, 4.5)
    line = start + (sides - start) * np.clip(across / 0.97, 0, 1.3) ** power
    line += rng.uniform(0.0, 0.16) * part * grid.face_x + 0.045 * strands
    above = line - grid.face_y
    outer = volume + 0.03 * strands - np.hypot(grid.head_x, grid.head_y)
    outer = np.where(grid.head_y > 0, volume - 0.02 - np.abs(grid.head_x) + 0.03 * strands, outer)
    shadow = _ramp(above + 0.05, 0.16) * _ramp(1 - np.hypot(grid.head_x, grid.head_y), 0.05)
    _paint(canvas, 0.35 * shadow, look.skin * colour_of(0.4, 0.3, 0.26))
    end = _ramp(sides + 0.05 - grid.head_y, 0.10)
    _paint(canvas, _ramp(above, 0.055) * _ramp(outer, 0.045) * end, hair)


def _glasses(rng: Rng, canvas: Planes, grid: _Grid) -> None:
    fx, fy = np.abs(grid.face_x), grid.face_y
    power = rng.uniform(2.0, 4.0)
    width, height = rng.uniform(0.23, 0.28), rng.uniform(0.15, 0.20)
    lens = (np.abs(fx - 0.38) / width) ** power + (np.abs(fy + 0.05) / height) ** power
    thick = rng.uniform(0.06, 0.16)
    frame = _ramp(thick - np.abs(lens ** (1 / power) - 1), 0.07)
    bridge = _ramp(0.018 - np.abs(fy + 0.08), 0.02) * (fx < 0.38 - width)
    temple = _ramp(0.02 - np.abs(fy + 0.09), 0.02) * (fx > 0.38 + width) * (grid.depth > 0.02)
    colour = np.clip(rng.uniform(0.03, 0.3) + rng.normal(0, 0.05, 3), 0.02, 0.6)
    _paint(canvas, 0.06 * (lens < 1), colour_of(0.9, 0.95, 1))
    _paint(canvas, np.maximum(np.maximum(frame, bridge), temple), colour.astype(np.float32))


def draw_scene(rng: Rng) -> Planes:
    """A face without any camera: ``(3, 204, 204)`` float32 in [0, 1]."""
    look = _look(rng)
    grid = _grid(rng, look.feminine)
    canvas = _background(rng, grid)
    strands = _strands(rng, grid)
    hair = _hair_colour(look, grid, strands)
    _hair_behind(rng, canvas, grid, look, hair, strands)
    _body(rng, canvas, grid, look)
    # Facial features are drawn on the head's bounding box alone: half the work.
    head = _box(np.hypot(grid.head_x / 1.15, grid.head_y) < 1.02)
    face, on_face = canvas[:, *head], grid.window(head)
    _skin(rng, face, on_face, look)
    eyes = _box((np.abs(grid.face_y + 0.12) < 0.26) & (grid.depth > 0))
    _eyes(rng, canvas[:, *eyes], grid.window(eyes), look)
    mouth = _box(
        (np.abs(grid.face_y - 0.55) < 0.25) & (np.abs(grid.face_x) < 0.5) & (grid.depth > 0)
    )
    _mouth(rng, canvas[:, *mouth], grid.window(mouth), look)
    if rng.random() < 0.15:
        _glasses(rng, canvas[:, *eyes], grid.window(eyes))
    _hair_front(rng, canvas, grid, look, hair, strands)
    return np.clip(canvas, 0, 1)
