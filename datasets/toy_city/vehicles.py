"""Cars, trucks, buses and trams."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datasets.toy_city.looks import (
    AMBER,
    BLACK,
    BUS_PAINTS,
    CREAM,
    GLASS,
    HEADLAMP,
    LABEL_ID,
    RED_LAMP,
    STEEL,
    TRAM_PAINTS,
    WHITE,
    Color,
    Range,
    Rng,
    pick,
    vary_one_of,
)
from datasets.toy_city.painting import (
    ENDS,
    FRONT,
    REAR,
    SIDES,
    Decal,
    Painter,
    Place,
    box,
    decal,
    ellipse,
    frustum,
    on_face,
)


class Body(NamedTuple):
    """A convex part of a vehicle; `paint` counts into the vehicle's colours."""

    faces: np.ndarray  # [5, 4, 3], front at +z, middle at z = 0
    paint: int
    decals: tuple[Decal, ...] = ()


MAIN, SECOND, DARK = range(3)  # the colours of a vehicle


class Model(NamedTuple):
    """A vehicle's shape. Its bodies are painted in this order."""

    label: int
    size: tuple[float, float, float]  # length, width, height
    bodies: tuple[Body, ...]
    axles: tuple[float, ...] = ()  # z
    wheel: float = 0.0  # radius


def lamps(v0: float, v1: float, width: float = 0.17, margin: float = 0.03) -> list[tuple]:
    """Return a pair of rectangles at the left and right edge of a face."""
    return [(margin, v0, margin + width, v1), (1 - margin - width, v0, 1 - margin, v1)]


def windows_in_row(count: int, v0: float, v1: float, gap: float = 0.012) -> list[tuple]:
    """Return so many windows side by side on a face, between the heights v0 and v1."""
    edges = [0.03 + 0.94 * i / count for i in range(count + 1)]
    return [(a + gap / 2, v0, b - gap / 2, v1) for a, b in itertools.pairwise(edges)]


CAR_HULL_DECALS = (
    *(decal(end, (0, 0, 1, 0.2), color=BLACK) for end in ENDS),
    decal(FRONT, (0.28, 0.36, 0.72, 0.68), color=BLACK),
    decal(REAR, *lamps(0.48, 0.82), color=RED_LAMP),
    decal(FRONT, *lamps(0.48, 0.82), color=HEADLAMP),
    decal(REAR, (0.36, 0.42, 0.64, 0.64), color=WHITE),
    decal(FRONT, (0.38, 0.16, 0.62, 0.34), color=WHITE),
    *(decal(side, (0, 0, 1, 0.12), (0.49, 0.1, 0.5, 1), color=BLACK) for side in SIDES),
)
CAR_CABIN_DECALS = (
    *(decal(side, (0.05, 0.1, 0.48, 0.88), (0.53, 0.1, 0.95, 0.88), color=GLASS) for side in SIDES),
    *(decal(end, (0.05, 0.08, 0.95, 0.9), color=GLASS) for end in ENDS),
)


def car(length: float, width: float, height: float, foot: Range, roof: Range) -> Model:
    """Return a car; `foot` and `roof` say from where to where the cabin reaches, in lengths."""
    x, z, belt = width / 2, length / 2, 0.56 * height
    hull = frustum((-x, x, -z, z), 0.26, (-x * 0.94, x * 0.94, -z * 0.97, z * 0.95), belt)
    foot_z, roof_z = ([end * length for end in span] for span in (foot, roof))
    cabin = frustum((-x * 0.92, x * 0.92, *foot_z), belt, (-x * 0.76, x * 0.76, *roof_z), height)
    bodies = Body(hull, MAIN, CAR_HULL_DECALS), Body(cabin, MAIN, CAR_CABIN_DECALS)
    size, axles = (length, width, height), (-0.31 * length, 0.31 * length)
    return Model(LABEL_ID["car"], size, bodies, axles, 0.33)


CARS = (
    car(4.4, 1.80, 1.45, (-0.42, 0.24), (-0.28, 0.08)),  # saloon
    car(3.9, 1.72, 1.52, (-0.49, 0.26), (-0.42, 0.08)),  # hatchback
    car(4.7, 1.92, 1.80, (-0.49, 0.30), (-0.44, 0.16)),  # van
)


def truck(length: float, height: float) -> Model:
    """Return a cab before a cargo box, listed from the rear."""
    x, z = 1.25, length / 2
    cargo_decals = (
        decal(REAR, (0.485, 0, 0.515, 1), (0.06, 0.4, 0.1, 0.6), color=BLACK),
        decal(REAR, *lamps(0.01, 0.07, 0.12), color=RED_LAMP),
        *(decal(side, *windows_in_row(8, 0.03, 0.97, 0.03), shade=0.88) for side in SIDES),
    )
    cab_decals = (
        decal(FRONT, (0.07, 0.5, 0.93, 0.9), color=GLASS),
        decal(FRONT, (0.2, 0.16, 0.8, 0.4), (0, 0, 1, 0.1), color=BLACK),
        decal(FRONT, *lamps(0.12, 0.26, 0.15), color=HEADLAMP),
        *(decal(side, (0.2, 0.5, 0.8, 0.88), color=GLASS) for side in SIDES),
    )
    bodies = (
        Body(box(-x, x, 0.95, height, -z, z - 2.3), SECOND, cargo_decals),
        Body(box(-x * 0.9, x * 0.9, 0.5, 0.95, -z, z - 2.2), DARK),
        Body(frustum((-x, x, z - 2.1, z), 0.5, (-x, x, z - 2.1, z - 0.3), 2.8), MAIN, cab_decals),
    )
    axles = (-0.3 * length, 0.36 * length)
    return Model(LABEL_ID["truck"], (length, 2 * x, height), bodies, axles, 0.5)


TRUCKS = (truck(7.0, 3.2), truck(8.5, 3.7))


def bus(length: float) -> Model:
    """Return a bus of one body."""
    x, z = 1.27, length / 2
    decals = (
        decal(FRONT, (0.05, 0.34, 0.95, 0.82), color=GLASS),
        decal(FRONT, (0.15, 0.86, 0.85, 0.97), color=BLACK),
        decal(FRONT, (0.25, 0.885, 0.75, 0.945), color=AMBER),
        decal(FRONT, *lamps(0.12, 0.22), color=HEADLAMP),
        decal(REAR, (0.14, 0.55, 0.86, 0.85), color=GLASS),
        decal(REAR, (0.2, 0.1, 0.8, 0.36), (0, 0, 1, 0.07), shade=0.55),
        decal(REAR, *lamps(0.2, 0.45, 0.08), color=RED_LAMP),
        *(decal(side, *windows_in_row(9, 0.48, 0.84), color=GLASS) for side in SIDES),
        *(decal(side, (0, 0.3, 1, 0.36), shade=0.6) for side in SIDES),
    )
    bodies = (Body(box(-x, x, 0.32, 3.1, -z, z), MAIN, decals),)
    axles = (-0.27 * length, 0.3 * length)
    return Model(LABEL_ID["bus"], (length, 2 * x, 3.1), bodies, axles, 0.48)


def tram(length: float) -> Model:
    """Return two cars with sloping noses, cream above a coloured skirt."""
    x, z = 1.2, length / 2
    skirt_decals = (
        decal(FRONT, *lamps(0.3, 0.48, 0.16, 0.08), color=HEADLAMP),
        decal(REAR, *lamps(0.3, 0.48, 0.12, 0.08), color=RED_LAMP),
        *(decal(end, (0.15, 0.02, 0.85, 0.16), color=BLACK) for end in ENDS),
        *(decal(side, (0, 0, 1, 0.1), (0.49, 0, 0.51, 1), color=BLACK) for side in SIDES),
    )
    upper_decals = (
        *(decal(end, (0.07, 0.02, 0.93, 0.74), color=GLASS) for end in ENDS),
        *(decal(end, (0.25, 0.8, 0.75, 0.96), color=AMBER) for end in ENDS),
        *(decal(side, *windows_in_row(12, 0.1, 0.68), color=GLASS) for side in SIDES),
        *(decal(side, (0.49, 0, 0.51, 1), color=BLACK) for side in SIDES),
    )
    upper = frustum((-x, x, -z, z), 1.35, (-x * 0.9, x * 0.9, 1 - z, z - 1), 3.5)
    bodies = (
        Body(box(-x, x, 0.12, 1.35, -z, z), MAIN, skirt_decals),
        Body(upper, SECOND, upper_decals),
        Body(box(-0.5, 0.5, 3.5, 3.8, -2, 2), DARK),
    )
    return Model(LABEL_ID["train"], (length, 2 * x, 3.8), bodies)


BUS, TRAM = bus(11.0), tram(22.0)


def paint_vehicle(painter: Painter, place: Place, model: Model, colors: Sequence[Color]) -> None:
    """Paint the bodies in these colours, between the tyres and the wheels."""
    if model.axles:
        paint_tyres(painter, place, model)
    for body in model.bodies:
        faces = place.to_world(body.faces)
        painter.solid(faces, colors[body.paint], model.label, body.decals)
    for side in (-1, 1):
        if model.axles:
            paint_wheels(painter, place, model, side)


def paint_tyres(painter: Painter, place: Place, model: Model) -> None:
    """Paint the wheels as one sees them from behind or before the vehicle."""
    x, up = model.size[1] / 2, model.wheel * 1.4
    for z in model.axles:
        face = np.array(((-x, 0, z), (x, 0, z), (x, up, z), (-x, up, z)))
        tyres = on_face(face, np.array(lamps(0, 1, 0.13, 0.0)))
        painter.polygons(place.to_world(tyres), BLACK, model.label)


def paint_wheels(painter: Painter, place: Place, model: Model, side: int) -> None:
    """Paint the wheels of one side, -1 left or 1 right, where one sees that side."""
    x = side * (model.size[1] / 2 + 0.01)
    discs = [
        np.column_stack((np.full(len(disc), x), disc[:, 1], disc[:, 0]))
        for z in model.axles
        for disc in (ellipse(z, model.wheel, r, r) for r in (model.wheel, 0.55 * model.wheel))
    ]
    outlines = place.to_world(np.array(discs)[:, ::side])
    if painter.faces_eye(outlines[0]):
        painter.polygons(outlines, [BLACK, STEEL] * len(model.axles), model.label)


def paint_car(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint one of `CARS`."""
    color = vary_one_of(rng, painter.look.paints)
    paint_vehicle(painter, place, pick(rng, CARS), [color])


def paint_truck(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint one of `TRUCKS`."""
    model, colors = pick(rng, TRUCKS), [vary_one_of(rng, painter.look.paints) for _ in range(2)]
    if math.cos(place.heading) > 0:  # its rear is nearer
        model = model._replace(bodies=model.bodies[::-1])
    paint_vehicle(painter, place, model, [*colors, BLACK])


def paint_bus(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint the bus."""
    paint_vehicle(painter, place, BUS, [vary_one_of(rng, BUS_PAINTS)])


def paint_train(painter: Painter, place: Place, rng: Rng) -> None:
    """Paint the tram."""
    paint_vehicle(painter, place, TRAM, [vary_one_of(rng, TRAM_PAINTS), CREAM, BLACK])
