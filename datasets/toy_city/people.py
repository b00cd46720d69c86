"""People, and bicycles and motorcycles with and without a rider."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from datasets.toy_city.looks import (
    BARK,
    BLACK,
    ENGINE,
    HEADLAMP,
    LABEL_ID,
    RED_LAMP,
    SKINS,
    STEEL,
    Color,
    Look,
    Rng,
    pick,
    vary,
    vary_one_of,
)
from datasets.toy_city.painting import ACROSS, Painter, Part, Place, bar, ellipse, paint_figure

TORSO = np.array(
    ((-0.17, 0.82), (0.17, 0.82), (0.23, 1.42), (0.1, 1.5), (-0.1, 1.5), (-0.23, 1.42))
)
BICYCLE_WHEEL, MOTORCYCLE_WHEEL = 0.35, 0.33  # radius
TANK = np.array(((-0.12, 0.62), (0.42, 0.66), (0.46, 0.9), (0.2, 1.0), (-0.1, 0.84)))
TAIL = np.array(((-0.86, 0.8), (-0.1, 0.6), (-0.08, 0.84), (-0.84, 0.94)))
MOTOR = np.array(((-0.3, 0.24), (0.34, 0.24), (0.42, 0.66), (-0.26, 0.64)))


def person_parts(rng: Rng, look: Look) -> list[Part]:
    """Return a person of 1.6 to 1.95 m, walking."""
    coat, trousers = vary_one_of(rng, look.clothes), vary_one_of(rng, look.clothes) * 0.6
    stride = rng.uniform(0.04, 0.26)
    arm = 0.24 + stride * rng.uniform(0.2, 0.5)
    shapes = (
        (bar((-0.06, 0.86), (-stride, 0.0), 0.17), trousers * 0.85),
        (bar((0.06, 0.86), (stride, 0.0), 0.17), trousers),
        (bar((-0.2, 1.42), (-arm, 0.86), 0.12), coat * 0.85),
        (TORSO, coat),
        (bar((0.2, 1.42), (arm, 0.86), 0.12), coat * 0.92),
        (ellipse(0, 1.62, 0.12, 0.15), pick(rng, SKINS)),
        (ellipse(0, 1.70, 0.125, 0.09), vary(rng, BARK, 0.5)),
    )
    size = rng.uniform(0.9, 1.1)
    return [Part(outline * size, color, LABEL_ID["person"]) for outline, color in shapes]


def rider_parts(rng: Rng, look: Look, hip: Sequence[float], hand: Sequence[float]) -> list[Part]:
    """Return a rider seen sideways, from the saddle to the handlebar."""
    coat = vary_one_of(rng, look.clothes)
    shoulder, knee = (hip[0] + 0.22, hip[1] + 0.55), (hip[0] + 0.4, hip[1] - 0.1)
    x, y = shoulder[0] + 0.06, shoulder[1] + 0.22
    shapes = (
        (bar(hip, knee, 0.2), coat * 0.55),
        (bar(knee, (knee[0] - 0.12, 0.28), 0.16), coat * 0.5),
        (bar(hip, shoulder, 0.34), coat),
        (bar(shoulder, hand, 0.13), coat * 0.85),
        (ellipse(x, y, 0.13, 0.15), pick(rng, SKINS)),
        (ellipse(x, y + 0.05, 0.16, 0.13), vary_one_of(rng, look.paints)),
    )
    return [Part(outline, color, LABEL_ID["rider"]) for outline, color in shapes]


def wheel_shapes(distance: float, radius: float, hub: float, inner: Color) -> list[tuple]:
    """Return two wheels; what one sees between the spokes counts as wheel, as annotators draw
    it."""
    rings = ((radius, BLACK), (radius * hub, inner))
    return [(ellipse(x, radius, r, r), c) for x in (-distance, distance) for r, c in rings]


def bicycle_parts(rng: Rng, look: Look) -> list[Part]:
    """Return a bicycle seen sideways, 1.75 m long."""
    frame = vary_one_of(rng, look.paints)
    rear, front, crank = (-0.53, BICYCLE_WHEEL), (0.53, BICYCLE_WHEEL), (-0.05, 0.33)
    seat, head, handle = (-0.18, 0.85), (0.36, 0.8), (0.4, 1.0)
    tubes = (
        (crank, seat),
        (crank, head),
        (seat, head),
        (rear, seat),
        (rear, crank),
        (front, handle),
    )
    shapes = (
        *wheel_shapes(0.53, BICYCLE_WHEEL, 0.76, STEEL),
        *((bar(a, b, 0.07), frame) for a, b in tubes),
        (bar((-0.34, 0.93), (-0.06, 0.93), 0.09), BLACK),
        (bar(handle, (0.3, 1.08), 0.07), BLACK),
    )
    return [Part(outline, color, LABEL_ID["bicycle"]) for outline, color in shapes]


def motorcycle_parts(rng: Rng, look: Look) -> list[Part]:
    """Return a motorcycle seen sideways, 2.1 m long."""
    paint = vary_one_of(rng, look.paints)
    shapes = (
        *wheel_shapes(0.7, MOTORCYCLE_WHEEL, 0.5, STEEL),
        (bar((0.7, MOTORCYCLE_WHEEL), (0.38, 1.05), 0.12), STEEL),
        (MOTOR, ENGINE),
        (bar((-0.9, 0.34), (0.1, 0.3), 0.11), STEEL),
        (TAIL, paint * 0.9),
        (TANK, paint),
        (bar((-0.7, 0.9), (-0.1, 0.86), 0.1), BLACK),
        (bar((0.28, 1.1), (0.46, 1.0), 0.1), BLACK),
        (ellipse(0.56, 0.9, 0.1, 0.11), HEADLAMP),
    )
    return [Part(outline, color, LABEL_ID["motorcycle"]) for outline, color in shapes]


class TwoWheeler(NamedTuple):
    """How a kind of two-wheeler is drawn, and where its rider sits."""

    parts: Callable[[Rng, Look], list[Part]]
    hip: tuple[float, float]  # of its rider, seen sideways
    hand: tuple[float, float]
    girth: float  # seen from behind


TWO_WHEELERS = {
    "bicycle": TwoWheeler(bicycle_parts, (-0.22, 0.98), (0.32, 1.08), 0.12),
    "motorcycle": TwoWheeler(motorcycle_parts, (-0.3, 0.95), (0.3, 1.1), 0.22),
}


def end_on_parts(rng: Rng, look: Look, kind: str, lamp: Color) -> list[Part]:
    """Return a two-wheeler and its rider seen from behind, or with a headlamp from before."""
    girth, coat = TWO_WHEELERS[kind].girth, vary_one_of(rng, look.clothes)
    paint, helmet = (vary_one_of(rng, look.paints) for _ in range(2))
    machine = (
        (bar((0, 0), (0, 0.72), girth), BLACK),
        (bar((0, 0.5), (0, 0.98), girth * 1.8), paint),
        (bar((-0.38, 1.04), (0.38, 1.04), 0.08), BLACK),
        (ellipse(0, 0.8, 0.09, 0.08), lamp),
    )
    rider = (
        *((bar((x * 0.5, 0.95), (x, 0.3), 0.16), coat * 0.55) for x in (-0.26, 0.26)),
        (TORSO * (1.15, 1) + (0, 0.06), coat),
        *((bar((x * 0.7, 1.42), (x, 1.06), 0.13), coat * 0.85) for x in (-0.34, 0.34)),
        (ellipse(0, 1.7, 0.14, 0.17), helmet),
    )
    return [
        *(Part(outline, color, LABEL_ID[kind]) for outline, color in machine),
        *(Part(outline, color, LABEL_ID["rider"]) for outline, color in rider),
    ]


def paint_ridden(painter: Painter, place: Place, rng: Rng, kind: str) -> None:
    """Paint a two-wheeler in traffic: end-on in a lane, sideways across the street."""
    look, facing, machine = painter.look, math.cos(place.heading), TWO_WHEELERS[kind]
    if abs(facing) > 0.5:
        parts = end_on_parts(rng, look, kind, RED_LAMP if facing > 0 else HEADLAMP)
        place = place._replace(heading=ACROSS)
    else:
        parts = machine.parts(rng, look) + rider_parts(rng, look, machine.hip, machine.hand)
    paint_figure(painter, place, parts)


def paint_parked(painter: Painter, place: Place, rng: Rng, kind: str) -> None:
    """Paint a two-wheeler left on the sidewalk, seen more or less sideways."""
    heading = pick(rng, (-ACROSS, ACROSS)) + rng.uniform(-0.9, 0.9)
    parts = TWO_WHEELERS[kind].parts(rng, painter.look)
    paint_figure(painter, place._replace(heading=heading), parts)


def paint_person(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint a person who walks."""
    paint_figure(painter, place, person_parts(rng, painter.look))
