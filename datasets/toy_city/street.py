"""A street and all that is on it, composed and painted from far to near."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from datasets.toy_city.furniture import (
    paint_bin,
    paint_lamp,
    paint_leaves,
    paint_sign,
    paint_traffic_light,
    paint_tree,
)
from datasets.toy_city.looks import (
    BLACK,
    FAR,
    GLASS,
    LABEL_ID,
    NEAR,
    RAIL,
    SIDEWALK_HEIGHT,
    STREET_END,
    WHITE,
    Look,
    Range,
    Rng,
    pick,
    pick_weighted,
    vary,
    vary_one_of,
)
from datasets.toy_city.painting import (
    ACROSS,
    CIRCLE,
    REAR,
    TOP,
    Decal,
    Painter,
    Place,
    Texture,
    box,
    decal,
    level,
)
from datasets.toy_city.people import paint_parked, paint_person, paint_ridden
from datasets.toy_city.plots import PAINT_PLOT, Plot, window_rectangles
from datasets.toy_city.vehicles import BUS, TRAM, paint_bus, paint_car, paint_train, paint_truck

ZEBRA, PARKING_WIDTH = 3.2, 2.2  # metres along and across the street


class Street(NamedTuple):
    """The cross-section of a street, and where it is crossed."""

    lane_width: float
    lanes: int  # each way
    parking: tuple[bool, bool]  # left, right
    kerb: tuple[float, float]  # |x|, left and right
    sidewalk: float  # width
    verge: float  # width
    rails: bool
    zebra: float | None  # z of its near edge
    junction: float  # length of the side street's mouth behind the zebra, 0 for none

    @property
    def spans(self) -> list[Range]:
        """The depths along which the sidewalks run."""
        if self.zebra is None or self.junction == 0:
            return [(NEAR, FAR)]
        mouth = self.zebra + ZEBRA + 1.5
        return [(NEAR, mouth), (mouth + self.junction, FAR)]

    def sides(self) -> Iterator[tuple[int, float, bool]]:
        """Yield (-1 left or 1 right, |x| of its kerb, whether cars park there)."""
        return zip((-1, 1), self.kerb, self.parking, strict=True)

    def crossed(self, z0: float, z1: float) -> bool:
        """Return whether the depths z0 to z1 touch the zebra or the side street."""
        if self.zebra is None:
            return False
        return z0 < self.zebra + ZEBRA + 2 + self.junction and z1 > self.zebra - 1.5


def plan_street(rng: Rng, look: Look) -> Street:
    """Return a street drawn from the look's ranges."""
    lane_width, lanes = rng.uniform(*look.lane_width), pick(rng, look.lanes_each_way)
    left, right = rng.random(2) < look.parking
    parking = bool(left), bool(right)
    kerb = [lane_width * lanes + PARKING_WIDTH * parked + 0.3 for parked in parking]
    return Street(
        lane_width=lane_width,
        lanes=lanes,
        parking=parking,
        kerb=(kerb[0], kerb[1]),
        sidewalk=rng.uniform(*look.sidewalk_width),
        verge=rng.uniform(*look.verge),
        rails=rng.random() < 0.5,
        zebra=rng.uniform(8, 26) if rng.random() < 0.6 else None,
        junction=pick(rng, (0.0, 8.0, 10.0)),
    )


def paint_ground(painter: Painter, street: Street, rng: Rng) -> None:
    """Paint grass, roads and sidewalks."""
    look, (left, right) = painter.look, street.kerb
    grass, road = vary_one_of(rng, look.grass), vary_one_of(rng, look.road)
    painter.polygon(level(-FAR, FAR, NEAR, FAR), grass, LABEL_ID["terrain"], Texture.GRASS)
    for (_, z0), (z1, _) in zip(street.spans, street.spans[1:], strict=False):
        painter.polygon(level(-60, 60, z0, z1), road, LABEL_ID["road"], Texture.ASPHALT)
    painter.polygon(level(-left, right, NEAR, FAR), road, LABEL_ID["road"], Texture.ASPHALT)
    paving = vary_one_of(rng, look.paving)
    for z0, z1 in reversed(street.spans):
        for side, kerb, _ in street.sides():
            x0, x1 = sorted((side * kerb, side * (kerb + street.sidewalk)))
            slab = box(x0, x1, 0, SIDEWALK_HEIGHT, z0, z1)
            kerbstone = decal(TOP, (0, 0, 0.06, 1) if side > 0 else (0.94, 0, 1, 1), shade=1.15)
            painter.solid(slab, paving, LABEL_ID["sidewalk"], (kerbstone,), Texture.PAVING)


def stripe(x: float, width: float, z0: float, z1: float) -> np.ndarray:
    """Return a marking on the road about x: outline [4, 3]."""
    return level(x - width / 2, x + width / 2, z0, z1)


def paint_markings(painter: Painter, street: Street, rng: Rng) -> None:
    """Paint lane lines, the zebra with its stop line, and rails."""
    marks = [stripe(0, 0.16, z, z + 3) for z in np.arange(NEAR, 110, 7)]
    for lane in range(1, street.lanes):
        for x in (-lane * street.lane_width, lane * street.lane_width):
            marks += [stripe(x, 0.13, z, z + 2) for z in np.arange(NEAR, 80, 6)]
    for side, kerb, parked in street.sides():
        marks.append(stripe(side * (kerb - 0.25 - PARKING_WIDTH * parked), 0.12, NEAR, 120))
    if street.zebra is not None:
        z = street.zebra
        bars = np.arange(0.6 - street.kerb[0], street.kerb[1] - 0.4, 1.0)
        marks += [stripe(x, 0.5, z, z + ZEBRA) for x in bars]
        marks.append(level(0.1, street.lane_width * street.lanes, z - 1.6, z - 1.2))
    white = vary(rng, WHITE, 0.08)
    painter.polygons(np.array(marks), white, LABEL_ID["road"], Texture.ASPHALT)
    if street.rails:
        middle = street.lane_width / 2
        tracks = [s * middle + gauge for s in (-1, 1) for gauge in (-0.72, 0.72)]
        rails = np.array([stripe(x, 0.07, NEAR, 120) for x in tracks])
        painter.polygons(rails, RAIL, LABEL_ID["road"])


def paint_skyline(painter: Painter, rng: Rng) -> None:
    """Paint houses and trees across the end of the street and as far as one sees beside it."""
    z = STREET_END + 8
    for x in np.arange(-100, 100, rng.uniform(9, 14)):
        if not painter.sees(x, z, 16):
            continue
        if rng.random() < 0.55:
            height, width = rng.uniform(6, 22), rng.uniform(10, 16)
            body, color = (
                box(x, x + width, 0, height, z, z + 10),
                vary_one_of(rng, painter.look.facades),
            )
            windows = Decal(REAR, window_rectangles(width, height), GLASS)
            painter.solid(body, color, LABEL_ID["building"], (windows,), Texture.PLASTER)
        else:
            reach = rng.uniform(4, 7)
            paint_leaves(painter, Place(x, z - 1), rng, 0.7 * reach, reach)


def plan_plots(street: Street, rng: Rng, look: Look) -> Iterator[tuple[str, Plot]]:
    """Yield the kind and land of every plot along the sidewalks."""
    for side, kerb, _ in street.sides():
        edge = kerb + street.sidewalk + street.verge
        for start, end in street.spans:
            z0, end = start + (start > NEAR) * street.sidewalk, min(end, STREET_END)
            while z0 < end - 3:
                z1 = min(z0 + rng.uniform(9, 20), end)
                yield pick_weighted(rng, look.plots), Plot(side, edge, z0, z1)
                z0 = z1 + pick(rng, (0.0, 0.0, 2.0))


Paint = Callable[[Painter, Place, Rng], None]


class Item(NamedTuple):
    """A thing that stands or drives on the street."""

    paint: Paint
    place: Place
    half_size: tuple[float, float]  # across and along the street
    height: float = 1.7

    @property
    def near(self) -> float:
        return self.place.z - self.half_size[1]

    @property
    def far(self) -> float:
        return self.place.z + self.half_size[1]


VEHICLES: dict[str, tuple[Paint, float, float, float]] = {  # painter, length, width, height
    "car": (paint_car, 4.7, 1.85, 1.4),
    "truck": (paint_truck, 8.5, 2.5, 3.4),
    "bus": (paint_bus, *BUS.size),
    "train": (paint_train, *TRAM.size),
    "motorcycle": (partial(paint_ridden, kind="motorcycle"), 2.2, 0.8, 1.7),
    "bicycle": (partial(paint_ridden, kind="bicycle"), 1.8, 0.6, 1.7),
}
FURNITURE: dict[str, tuple[Paint, float, float]] = {  # painter, half its width on ground, height
    "tree": (paint_tree, 1.7, 4.0),
    "lamp": (paint_lamp, 0.15, 6.0),
    "sign": (paint_sign, 0.2, 2.5),
    "light": (paint_traffic_light, 0.2, 5.0),
    "person": (paint_person, 0.25, 1.7),
    "motorcycle": (partial(paint_parked, kind="motorcycle"), 0.5, 0.8),
    "bicycle": (partial(paint_parked, kind="bicycle"), 0.5, 0.8),
    "bin": (paint_bin, 0.35, 1.0),
}


def vehicle(kind: str, place: Place) -> Item:
    """Return a vehicle that takes more depth or more width, as it is headed."""
    paint, length, width, height = VEHICLES[kind]
    half_size = (
        (width / 2, length / 2) if abs(math.cos(place.heading)) > 0.5 else (length / 2, width / 2)
    )
    return Item(paint, place, half_size, height)


def furniture(kind: str, x: float, z: float, y: float = SIDEWALK_HEIGHT) -> Item:
    """Return a thing on the sidewalk, or on the road at y = 0, that faces the eye."""
    paint, half, height = FURNITURE[kind]
    return Item(paint, Place(x, z, ACROSS, y), (half, half), height)


def plan_lane(street: Street, rng: Rng, look: Look, lane: int, side: int) -> Iterator[Item]:
    """Yield the driving vehicles of one lane, counted from the middle; side 1 drives away."""
    x, heading = side * (lane + 0.5) * street.lane_width, 0.0 if side > 0 else math.pi
    on_rails = street.rails and lane == 0
    weights = {k: weight for k, weight in look.vehicles.items() if k != "train" or on_rails}
    z = (8 if side > 0 else 5) + rng.exponential(0.5 * look.vehicle_gap)
    while z < 0.6 * STREET_END:
        kind = pick_weighted(rng, weights)
        length = VEHICLES[kind][1]
        if not street.crossed(z, z + length):
            place = Place(x + rng.normal(0, 0.15), z + length / 2, heading + rng.normal(0, 0.02))
            yield vehicle(kind, place)
        z += length + 3 + rng.exponential(look.vehicle_gap)


def plan_parked_cars(street: Street, rng: Rng) -> Iterator[Item]:
    """Yield the cars in the parking lanes."""
    length = VEHICLES["car"][1]
    for side, kerb, parked in street.sides():
        z = rng.uniform(3, 9)
        while parked and z < 0.6 * STREET_END:
            if rng.random() < 0.75 and not street.crossed(z, z + length):
                x, heading = side * (kerb - PARKING_WIDTH / 2), 0.0 if side > 0 else math.pi
                yield vehicle("car", Place(x, z + length / 2, heading))
            z += length + rng.uniform(0.6, 1.5)


def plan_crossing(street: Street, rng: Rng, z: float) -> Iterator[Item]:
    """Yield lights, people on the zebra at z, and someone who comes out of the side street."""
    for side, kerb, _ in street.sides():
        yield furniture("light", side * (kerb + 0.4), z - 0.3)
    for _ in range(rng.integers(0, 4)):
        x = rng.uniform(-street.kerb[0], street.kerb[1])
        yield furniture("person", x, z + rng.uniform(0.4, 2.8), y=0)
    if street.junction and rng.random() < 0.8:
        kind = pick_weighted(rng, {"car": 1, "bicycle": 1.4, "motorcycle": 1.2, "truck": 0.4})
        heading = pick(rng, (-ACROSS, ACROSS))
        lane = z + ZEBRA + 1.5 + 0.5 * street.junction
        yield vehicle(kind, Place(rng.uniform(-5, 5), lane, heading))


def plan_sidewalks(street: Street, rng: Rng, look: Look) -> Iterator[Item]:
    """Yield trees, poles and two-wheelers along the kerb, and people further in."""
    for side, kerb, _ in street.sides():
        z = rng.uniform(5, 9)
        while z < 0.6 * STREET_END:
            kind = pick_weighted(rng, look.furniture)
            inset = rng.uniform(0.8, street.sidewalk - 0.2) if kind == "person" else 0.5
            if not street.crossed(z - 0.5, z + 0.5):
                yield furniture(kind, side * (kerb + inset), z)
            z += 0.6 + rng.exponential(look.furniture_gap)


def plan_items(street: Street, rng: Rng, look: Look) -> list[Item]:
    """Return all that stands or drives on the street."""
    items = [*plan_parked_cars(street, rng), *plan_sidewalks(street, rng, look)]
    for lane in range(street.lanes):
        for side in (-1, 1):
            items += plan_lane(street, rng, look, lane, side)
    if street.zebra is not None:
        items += plan_crossing(street, rng, street.zebra)
    return items


def ground_shadow(item: Item, sun: np.ndarray) -> np.ndarray:
    """Return an ellipse about the thing's foot, drawn out away from the sun: outline [14, 3]."""
    drift = -0.5 * item.height * sun[[0, 2]] / sun[1]
    shape = CIRCLE * item.half_size * 1.15 + drift * (drift * CIRCLE > 0)
    return np.column_stack(
        (shape[:, 0] + item.place.x, 0 * shape[:, 0], shape[:, 1] + item.place.z)
    )


def paint_bonnet(painter: Painter, rng: Rng) -> None:
    """Paint one's own car along the lower edge: an arc in the picture, painted at the near
    plane."""
    camera, (height, width) = painter.camera, painter.size
    rise = height * rng.uniform(0.04, 0.08)
    arc = CIRCLE * (0.62 * width, -rise) + (width / 2, height)
    relative = (arc - (camera.center_x, camera.horizon)) * NEAR / camera.focal
    outline = camera.eye + np.column_stack((relative[:, 0], -relative[:, 1], np.full(14, NEAR)))
    painter.polygon(outline, vary(rng, BLACK, 0.3) * 1.8, LABEL_ID["ego vehicle"])


def paint_scene(painter: Painter, street: Street, rng: Rng) -> None:
    """Paint everything, far to near; what stands nearer to the middle of the street comes later."""
    paint_ground(painter, street, rng)
    paint_markings(painter, street, rng)
    paint_skyline(painter, rng)
    plots = sorted(plan_plots(street, rng, painter.look), key=lambda planned: -planned[1].z0)
    for kind, plot in plots:
        if painter.sees(plot.side * plot.edge, plot.z1, 3):
            PAINT_PLOT[kind](painter, plot, rng)
    for item in sorted(plan_items(street, rng, painter.look), key=lambda item: -item.near):
        if painter.sees(item.place.x, item.far, item.half_size[0] + 3):
            painter.shadow(ground_shadow(item, painter.sun))
            item.paint(painter, item.place, rng)
    if rng.random() < painter.look.bonnet:
        paint_bonnet(painter, rng)
