"""Paint the things on the sidewalks: lamps, traffic lights, signs, bins and trees."""

import math

import numpy as np

from datasets.toy_city.looks import (
    BARK,
    BIN_PAINTS,
    BLACK,
    BLUE,
    LABEL_ID,
    LIGHT_LAMPS,
    PALE_STEEL,
    RED,
    STEEL,
    WHITE,
    YELLOW,
    Color,
    Rng,
    pick,
    vary_one_of,
)
from datasets.toy_city.painting import (
    LEFT,
    REAR,
    RIGHT,
    Painter,
    Part,
    Place,
    Texture,
    bar,
    circle,
    decal,
    ellipse,
    frustum,
    paint_figure,
)


def paint_pole(painter: Painter, place: Place, height: float, radius: float) -> None:
    """Paint a pole with a highlight, at least a pixel wide."""
    radius = max(radius, painter.camera.half_pixel(place.z))
    x = -0.4 * radius
    outlines = bar((0, 0), (0, height), 2 * radius), bar((x, 0), (x, height), 0.6 * radius)
    parts = [
        Part(outline, color, LABEL_ID["pole"])
        for outline, color in zip(outlines, (STEEL, PALE_STEEL), strict=True)
    ]
    paint_figure(painter, place, parts)


def towards_road(place: Place, length: float) -> float:
    """Return a length with the sign of the direction from the place to the middle of the road."""
    return -math.copysign(length, place.x)


def paint_lamp(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint a street lamp whose arm reaches over the road."""
    height, arm = rng.uniform(6, 8.5), towards_road(place, rng.uniform(1.2, 2.2))
    width = 2 * max(0.06, painter.camera.half_pixel(place.z))
    paint_pole(painter, place, height, 0.1)
    head = bar((arm * 0.7, height + 0.2), (arm * 1.2, height + 0.28), 0.26)
    parts = [
        Part(bar((0, height), (arm, height + 0.3), width), STEEL, LABEL_ID["pole"]),
        Part(head, WHITE, LABEL_ID["pole"]),
    ]
    paint_figure(painter, place, parts)


def traffic_light_parts(x: float, y: float, lit: int) -> list[Part]:
    """Return three lamps in a dark case about (x, y), one of them lit."""
    case = bar((x, y - 0.66), (x, y + 0.66), 0.54)
    shapes: list[tuple[np.ndarray, Color]] = [(case, BLACK)]
    for lamp, color in enumerate(LIGHT_LAMPS):
        shade = 1.0 if lamp == lit else 0.28
        shapes.append((ellipse(x, y + 0.41 * (lamp - 1), 0.17, 0.17), np.multiply(color, shade)))
    return [Part(outline, color, LABEL_ID["traffic light"]) for outline, color in shapes]


def paint_traffic_light(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint a light on a pole, often with another one on an arm over the road."""
    arm, lit = towards_road(place, rng.uniform(2.2, 3.2)), int(rng.integers(3))
    paint_pole(painter, place, 5.2, 0.1)
    parts = traffic_light_parts(0, 2.9, lit)
    if rng.random() < 0.7:
        parts.append(Part(bar((0, 5.1), (arm, 5.2), 0.14), STEEL, LABEL_ID["pole"]))
        parts += traffic_light_parts(arm, 4.8, lit)
    paint_figure(painter, place, parts)


SIGN_TRIANGLE = np.array(((-0.5, -0.4), (0.5, -0.4), (0, 0.46)))
SIGN_SQUARE = np.array(((-0.4, -0.4), (0.4, -0.4), (0.4, 0.4), (-0.4, 0.4)))
SIGN_DIAMOND = np.array(((0, -0.5), (0.5, 0), (0, 0.5), (-0.5, 0)))
SIGNS = (
    ((ellipse(0, 0, 0.42, 0.42), RED), (ellipse(0, 0, 0.29, 0.29), WHITE)),
    ((ellipse(0, 0, 0.42, 0.42), RED), (bar((-0.26, 0), (0.26, 0), 0.15), WHITE)),
    ((SIGN_TRIANGLE, RED), (SIGN_TRIANGLE * 0.6, WHITE)),
    ((SIGN_DIAMOND, WHITE), (SIGN_DIAMOND * 0.7, YELLOW)),
    ((SIGN_SQUARE, BLUE), (bar((-0.1, -0.25), (-0.1, 0.25), 0.1), WHITE)),
    (
        (SIGN_SQUARE * (2.2, 1.5), BLUE),
        *((bar((-0.7, y), (0.5, y), 0.14), WHITE) for y in (-0.25, 0.2)),
    ),
)


def paint_sign(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint one of `SIGNS` on a pole."""
    height, label = rng.uniform(2.4, 3.0), LABEL_ID["traffic sign"]
    paint_pole(painter, place, height, 0.05)
    parts = [Part(outline, color, label) for outline, color in pick(rng, SIGNS)]
    paint_figure(painter, place._replace(y=place.y + height), parts)


BIN = frustum((-0.3, 0.3, -0.3, 0.3), 0, (-0.36, 0.36, -0.36, 0.36), 1.05)


def paint_bin(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint a dustbin, one of the things that no class covers."""
    lid = [decal(face, (0, 0.85, 1, 1), color=BLACK) for face in (REAR, LEFT, RIGHT)]
    faces = place._replace(heading=0.0).to_world(BIN)
    painter.solid(faces, vary_one_of(rng, BIN_PAINTS), LABEL_ID["static"], lid)


LEAF_CIRCLE = circle(16)
LEAF_LAYERS = np.array(((0.62, 0.62, 0.62), (0.88, 0.5, 0.46), (1.15, 0.42, 0.3)))
"""Shade, spread and size of the clumps of a crown, from the dark ground to the lit top."""


def paint_leaves(painter: Painter, place: Place, rng: Rng, height: float, reach: float) -> None:
    """Paint a crown or bush: bumpy clumps about `height`, lighter ones higher and towards the
    sun."""
    clumps = 6 if place.z < 40 else 3
    shade, spread, size = np.repeat(LEAF_LAYERS, clumps, axis=0).T
    count, rise = len(shade), np.repeat(np.arange(3), clumps)
    angle, away = rng.uniform(0, 2 * math.pi, count), spread * np.sqrt(rng.random(count))
    along = away * np.cos(angle) + 0.15 * rise * np.sign(painter.sun[0])
    up = 0.8 * away * np.sin(angle) + 0.14 * rise
    bumps = rng.uniform(0.82, 1.12, (count, len(LEAF_CIRCLE), 1))
    radius = (size * rng.uniform(0.8, 1.15, count))[:, None, None]
    outlines = np.zeros((count, len(LEAF_CIRCLE), 3))
    outlines[..., :2] = LEAF_CIRCLE * bumps * radius + np.stack((along, up), -1)[:, None]
    outlines = outlines * reach + (place.x, place.y + height, place.z)
    color = vary_one_of(rng, painter.look.leaves, 0.15)
    colors = color * (shade * rng.uniform(0.92, 1.08, count))[:, None]
    painter.polygons(outlines, colors, LABEL_ID["vegetation"], Texture.LEAVES)


def paint_tree(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint a trunk under a crown."""
    trunk, reach, half = rng.uniform(2.2, 3.2), rng.uniform(1.5, 2.6), rng.uniform(0.13, 0.25)
    top = trunk + 0.5
    bole = np.array(((-half, 0), (half, 0), (0.6 * half, top), (-0.6 * half, top)))
    paint_figure(painter, place, [Part(bole, BARK, LABEL_ID["vegetation"])])
    paint_leaves(painter, place, rng, trunk + 0.75 * reach, reach)
