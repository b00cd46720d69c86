"""Paint the plots beside the street: buildings, walls, fences and parks."""

from typing import NamedTuple

import numpy as np

from datasets.toy_city.furniture import paint_leaves, paint_tree
from datasets.toy_city.looks import (
    CURTAIN,
    GLASS,
    LABEL_ID,
    NEAR,
    SHOP_GLASS,
    Rng,
    pick,
    vary_one_of,
)
from datasets.toy_city.painting import (
    ACROSS,
    LEFT,
    REAR,
    RIGHT,
    SIDES,
    TOP,
    Decal,
    Painter,
    Place,
    Texture,
    box,
    decal,
    frustum,
    level,
)


class Plot(NamedTuple):
    """A piece of land beside the street, from z0 to z1 and from |x| = edge outwards."""

    side: int  # -1 left, 1 right
    edge: float
    z0: float
    z1: float

    def box(self, height: float, depth: float) -> np.ndarray:
        """Return the faces [5, 4, 3] of a body along the street's edge, `depth` metres deep."""
        x0, x1 = sorted((self.side * self.edge, self.side * (self.edge + depth)))
        return box(x0, x1, 0, height, self.z0, self.z1)

    @property
    def length(self) -> float:
        return self.z1 - self.z0


STOREY, WINDOW_WIDTH, WINDOW_HEIGHT, FRAME = 3.1, 1.25, 1.6, 0.13


def window_rectangles(width: float, height: float) -> np.ndarray:
    """Return windows of all storeys but the lowest, in parts of a facade of width x height
    metres."""
    columns, rows = max(1, round(width / 2.9)), max(1, int(height / STOREY) - 1)
    u, v = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 1.25) * STOREY)
    u, v, half = u.ravel(), v.ravel() / height, WINDOW_WIDTH / 2 / width
    return np.column_stack((u - half, v, u + half, v + WINDOW_HEIGHT / height))


def shop_rectangles(width: float, height: float) -> np.ndarray:
    """Return shop windows and doors of the lowest storey, in parts of the facade."""
    count = max(1, round(width / 4.5))
    left, full = np.arange(count) / count, np.ones(count)
    v0, v1 = 0.3 / height * full, 2.5 / height * full
    return np.column_stack((left + 0.15 / count, v0, left + 0.85 / count, v1))


def facade_decals(rng: Rng, face: int, width: float, height: float) -> list[Decal]:
    """Return the base, eaves, shops and windows of a facade of width x height metres."""
    windows = window_rectangles(width, height)
    frame = np.array((-FRAME / width, -FRAME / height, FRAME / width, FRAME / height))
    glass = np.multiply(GLASS, rng.uniform(0.6, 1.5, (len(windows), 1)))
    glass[rng.random(len(windows)) < 0.15] = CURTAIN
    return [
        decal(face, (0, 0, 1, 0.9 / height), (0, 2.9 / height, 1, 3.2 / height), shade=0.75),
        decal(face, (0, 1 - 0.5 / height, 1, 1), shade=1.15),
        Decal(face, shop_rectangles(width, height), SHOP_GLASS),
        Decal(face, windows + frame, shade=1.25),
        Decal(face, windows, glass),
    ]


def paint_building(painter: Painter, plot: Plot, rng: Rng) -> None:
    """Paint a house of two to six storeys, with a roof or flat."""
    height, depth = STOREY * rng.integers(2, 7) + 0.8, rng.uniform(9, 14)
    color, label = vary_one_of(rng, painter.look.facades, 0.15), LABEL_ID["building"]
    street_face = LEFT if plot.side > 0 else RIGHT
    decals = facade_decals(rng, street_face, plot.length, height)
    decals += facade_decals(rng, REAR, depth, height)
    body = plot.box(height, depth)
    painter.solid(body, color, label, decals, pick(rng, (Texture.BRICK, Texture.PLASTER)))
    if rng.random() < 0.6:
        x0, x1 = body[TOP, :2, 0]
        inset = x0 + 2.5, x1 - 2.5, plot.z0 + 0.5, plot.z1 - 0.5
        roof = frustum((x0, x1, plot.z0, plot.z1), height, inset, height + rng.uniform(1.5, 3))
        painter.solid(roof, vary_one_of(rng, painter.look.roofs), label, (), Texture.TILES)
    cast_shadow(painter, plot, height)


def cast_shadow(painter: Painter, plot: Plot, height: float) -> None:
    """Paint the shadow of a house or wall towards the street, if the sun stands behind it."""
    reach = height * plot.side * painter.sun[0] / painter.sun[1]
    if reach > 0:
        x0, x1 = sorted((plot.side * plot.edge, plot.side * (plot.edge - reach)))
        painter.shadow(level(x0, x1, plot.z0, plot.z1))


def paint_greenery(painter: Painter, plot: Plot, rng: Rng, setback: float) -> None:
    """Paint trees and bushes over the plot, far to near, at least `setback` metres from its
    edge."""
    z = plot.z1 - 1
    while z > max(plot.z0, NEAR + 2):
        place = Place(plot.side * (plot.edge + setback + rng.uniform(1, 5)), z, ACROSS)
        if rng.random() < 0.5:
            paint_tree(painter, place, rng)
        else:
            reach = rng.uniform(0.9, 1.9)
            paint_leaves(painter, place, rng, 0.7 * reach, reach)
        z -= rng.uniform(2.5, 4.0) * (1 + z / 40)


def paint_wall(painter: Painter, plot: Plot, rng: Rng) -> None:
    """Paint a garden wall with greenery behind it."""
    paint_greenery(painter, plot, rng, setback=0.5)
    height, color = rng.uniform(1.8, 3.0), vary_one_of(rng, painter.look.walls)
    coping = [decal(face, (0, 0.93, 1, 1), shade=1.2) for face in (REAR, LEFT, RIGHT)]
    painter.solid(plot.box(height, 0.35), color, LABEL_ID["wall"], coping, Texture.BRICK)
    cast_shadow(painter, plot, height)


def paint_fence(painter: Painter, plot: Plot, rng: Rng) -> None:
    """Paint pales on two rails; the gaps between them belong to the fence, as annotators draw
    it."""
    paint_greenery(painter, plot, rng, setback=1.5)
    starts, width = np.arange(0, 1, 0.34 / plot.length), 0.18 / plot.length
    pales = np.column_stack((starts, 0 * starts, starts + width, 0 * starts + 1))
    color, gap = vary_one_of(rng, painter.look.fences), 0.55 * np.array(painter.look.leaves[0])
    decals = [decal(REAR, (0, 0, 1, 1), color=color)]
    for side in SIDES:
        decals.append(Decal(side, pales, color))
        decals.append(decal(side, (0, 0.18, 1, 0.27), (0, 0.74, 1, 0.83), color=color * 0.88))
    painter.solid(plot.box(rng.uniform(1.4, 2.2), 0.08), gap, LABEL_ID["fence"], decals)


def paint_park(painter: Painter, plot: Plot, rng: Rng) -> None:
    """Paint trees and bushes alone."""
    paint_greenery(painter, plot, rng, setback=rng.uniform(1, 4))


PAINT_PLOT = {
    "building": paint_building,
    "wall": paint_wall,
    "fence": paint_fence,
    "park": paint_park,
}
