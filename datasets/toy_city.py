"""Toy City: labelled street scenes drawn from a seed, in a "game" and a "camera" look.

World coordinates are metres: x to the right of the road's middle, y up, z ahead of the eye. Every
outline is painted, far to near, into one map of surface numbers; the colour, label and plane of a
pixel are looked up by its number, so picture and label cannot disagree. The plane gives the pixel
its depth, and with it textures in perspective and the haze.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from datasets.labels import CLASSES, LABEL_ID_TO_TRAIN_ID, colorize
from utils.errors import UserError

CAMERA_STRENGTH = 0.55
"""How far the camera look's lens is from the game's: 0 not at all, 1 the prototype's full gap."""

LABEL_ID = {c.name: c.label_id for c in CLASSES} | {"ego vehicle": 1, "static": 4}
"""The 19 classes and two things that Cityscapes labels and does not score."""

Rng = np.random.Generator
Color = Sequence[float] | np.ndarray  # red, green, blue, 0 to 255
Range = tuple[float, float]

NEAR, FAR = 1.0, 400.0  # depths that are drawn
STREET_END = 125.0  # where the skyline closes the view
SIDEWALK_HEIGHT = 0.13
SUPERSAMPLING = 2  # of the picture; labels are taken at points, never mixed

# ------------------------------------------------------------------------------------------- looks


def palette(hexadecimal: str) -> tuple[tuple[int, int, int], ...]:
    """ "ff8000 0000ff" -> ((255, 128, 0), (0, 0, 255))."""
    return tuple(tuple(bytes.fromhex(color)) for color in hexadecimal.split())


class Look(NamedTuple):
    """Camera, materials and frequencies of one domain. Ranges are drawn from uniformly."""

    strength: float  # of the lens effects and the haze
    focal: Range  # in image widths
    eye_height: Range
    lane_width: Range
    lanes_each_way: tuple[int, ...]
    sidewalk_width: Range
    verge: Range  # width of the grass between the sidewalk and the plots
    parking: float  # probability of a parking lane at a kerb
    bonnet: float  # probability of seeing one's own car
    vehicle_gap: float  # mean distance between the driving vehicles of a lane
    furniture_gap: float  # mean distance between the things on a sidewalk
    vehicles: dict[str, float]  # weights, as in the next two
    plots: dict[str, float]
    furniture: dict[str, float]
    ambient: float  # light everywhere
    sunlight: float  # further light on what faces the sun
    cloudiness: float
    sky: tuple[Color, ...]  # zenith, horizon
    road: tuple[Color, ...]
    paving: tuple[Color, ...]
    grass: tuple[Color, ...]
    leaves: tuple[Color, ...]
    facades: tuple[Color, ...]
    roofs: tuple[Color, ...]
    walls: tuple[Color, ...]
    fences: tuple[Color, ...]
    paints: tuple[Color, ...]
    clothes: tuple[Color, ...]


GAME = Look(
    strength=0.0,
    focal=(0.72, 0.86),
    eye_height=(1.5, 1.9),
    lane_width=(3.2, 3.8),
    lanes_each_way=(1, 1, 2),
    sidewalk_width=(2.4, 3.6),
    verge=(0.6, 3.2),
    parking=0.3,
    bonnet=0.0,
    vehicle_gap=22.0,
    furniture_gap=5.0,
    vehicles={
        "car": 3.5,
        "truck": 1.4,
        "bus": 1.2,
        "train": 2.2,
        "motorcycle": 1.4,
        "bicycle": 1.2,
    },
    plots={"building": 4.5, "wall": 1.6, "fence": 1.8, "park": 1.6},
    furniture={
        "tree": 2.2,
        "lamp": 1.6,
        "sign": 2,
        "person": 2.4,
        "motorcycle": 1.2,
        "bicycle": 1.6,
        "bin": 0.5,
    },
    ambient=0.66,
    sunlight=0.55,
    cloudiness=0.45,
    sky=palette("2e78ea bcdcfa"),
    road=palette("5e5e66 6e6660 525e6c 786a60"),
    paving=palette("aca498 baaa9e a0a0a4"),
    grass=palette("66a832 7eae3a 9a9a4a"),
    leaves=palette("3a8e26 529e28 287c32 76a024"),
    facades=palette("d8744a f0c684 c44c3c e4dcc4 8cb0cc f4a850 8eaa72 d88c8c"),
    roofs=palette("924a3a 60585c b0684c"),
    walls=palette("bc765c c4baa8 a49280"),
    fences=palette("e2ded2 92694a 4c7a5a"),
    paints=palette("d62424 1e52c8 f4be24 f0f0ec 229454 222228 ee7828 96bee2"),
    clothes=palette("ce3030 2854be f0d65a f0f0f0 38965a"),
)

CAMERA = Look(
    strength=CAMERA_STRENGTH,
    focal=(0.95, 1.12),
    eye_height=(1.25, 1.5),
    lane_width=(2.8, 3.2),
    lanes_each_way=(1,),
    sidewalk_width=(1.8, 2.8),
    verge=(0.4, 2.4),
    parking=0.7,
    bonnet=0.8,
    vehicle_gap=14.0,
    furniture_gap=4.5,
    vehicles={
        "car": 5,
        "truck": 1.2,
        "bus": 0.9,
        "train": 1.6,
        "motorcycle": 1,
        "bicycle": 1.6,
    },
    plots={"building": 6, "wall": 1.4, "fence": 1.5, "park": 1.3},
    furniture={
        "tree": 2.2,
        "lamp": 1.0,
        "sign": 2.4,
        "person": 2.8,
        "motorcycle": 1.2,
        "bicycle": 2,
        "bin": 0.5,
    },
    ambient=0.8,
    sunlight=0.22,
    cloudiness=0.75,
    sky=palette("96a6b4 ced4d6"),
    road=palette("5e5e5e 6c6a64 545658"),
    paving=palette("8c867c a0968a 7c7c7c"),
    grass=palette("667c42 7a7a4c"),
    leaves=palette("42602e 526a34 646a2e 345232"),
    facades=palette("c0aa86 a0907a d0c2a4 94705a ae9a94 828078"),
    roofs=palette("5c423a 4a4a50"),
    walls=palette("867e74 706862 8e7462"),
    fences=palette("70787e 5c5048 9a9a94"),
    paints=palette("34363c b8bac0 787e86 e4e4e2 2c4070 7c2626 1c1c20"),
    clothes=palette("343844 665a50 3e5074 8a3c36 a09a90"),
)

LOOKS = {"game": GAME, "camera": CAMERA}

BLACK, WHITE, GLASS, STEEL, PALE_STEEL, ENGINE, BARK = palette(
    "1a1a1c ecece6 3a4a5c 808488 b0b2b2 46464a 5c4634"
)
RED, BLUE, YELLOW, RED_LAMP, HEADLAMP, AMBER = palette("cc2024 1e54b4 f4c42c ce1e1a fcf4ce faaa28")
LIGHT_LAMPS = palette("3ce06e fabe28 f02822")  # of a traffic light, from below
SKINS = palette("ecbe9c c6926c 78523c")
BUS_PAINTS = palette("e2b828 cc2c28 e8e8e2 287860")
TRAM_PAINTS = palette("c42830 2460a8 3c8446 d69628")
CREAM, CURTAIN, SHOP_GLASS, RAIL = palette("e2dcc8 dccea8 2e363e 58544f")
BIN_PAINTS = palette("345c3a 46484e 966428")


def pick(rng: Rng, options: Sequence):
    return options[rng.integers(len(options))]


def pick_weighted(rng: Rng, weights: dict[str, float]) -> str:
    edges = np.cumsum(list(weights.values()))
    return list(weights)[np.searchsorted(edges, rng.uniform(0, edges[-1]), side="right")]


def vary(rng: Rng, color: Color, amount: float = 0.1) -> np.ndarray:
    """The colour a little lighter or darker, warmer or cooler: float [3]."""
    return np.asarray(color) * (1 + rng.uniform(-amount, amount) + rng.uniform(-0.03, 0.03, 3))


def vary_one_of(rng: Rng, colors: Sequence[Color], amount: float = 0.1) -> np.ndarray:
    return vary(rng, pick(rng, colors), amount)


# ---------------------------------------------------------------------------------------- textures

TEXELS = 256  # side of a texture's tile
TEXELS_PER_METRE = 32


class Texture(IntEnum):
    PLAIN = 0
    ASPHALT = 1
    PAVING = 2
    GRASS = 3
    BRICK = 4
    PLASTER = 5
    LEAVES = 6
    TILES = 7


def tileable_noise(rng: Rng, smoothness: float) -> np.ndarray:
    """Noise of zero mean, unit deviation and spectrum 1 / frequency^smoothness: [256, 256]."""
    axis = np.fft.fftfreq(TEXELS)
    frequency = np.hypot(axis[:, None], axis)
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((TEXELS, TEXELS))) * frequency**-smoothness
    field = np.fft.ifft2(spectrum).real
    return field / field.std()


def brick_joints(height: int, length: int) -> np.ndarray:
    """1 in the joints between bricks of height x length texels, 0 elsewhere: [256, 256]."""
    row, column = np.mgrid[:TEXELS, :TEXELS]
    column = column + (row // height % 2) * (length // 2)
    return ((row % height == 0) | (column % length == 0)).astype(float)


@lru_cache(maxsize=1)
def texture_tiles() -> np.ndarray:
    """What each texture multiplies the colour of its surface with: float32 [textures, 256, 256]."""
    rng = np.random.default_rng(0)
    fine, rough, soft = (tileable_noise(rng, smoothness) for smoothness in (0.3, 0.8, 1.4))
    tiles = np.ones((len(Texture), TEXELS, TEXELS), np.float32)
    tiles[Texture.ASPHALT] += 0.07 * fine + 0.05 * soft
    tiles[Texture.PAVING] += 0.04 * fine + 0.04 * soft - 0.22 * brick_joints(16, 32)
    tiles[Texture.GRASS] += 0.10 * rough + 0.12 * soft
    tiles[Texture.BRICK] += 0.05 * rough + 0.04 * soft - 0.20 * brick_joints(8, 16)
    tiles[Texture.PLASTER] += 0.02 * fine + 0.05 * soft
    tiles[Texture.LEAVES] += 0.16 * rough + 0.12 * fine
    tiles[Texture.TILES] += 0.05 * soft - 0.25 * brick_joints(8, 8)
    return tiles


@lru_cache(maxsize=1)
def cloud_tile() -> np.ndarray:
    return tileable_noise(np.random.default_rng(1), 1.7).astype(np.float32)


# ------------------------------------------------------------------------------ camera and painter


class Camera(NamedTuple):
    """A pinhole that looks along +z; lengths in pixels of the finished picture."""

    focal: float
    center_x: float
    horizon: float
    eye: np.ndarray  # [3], metres

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points [N, 3] with z > 0 -> pixels (x, y) [N, 2]."""
        relative = points - self.eye
        scale = self.focal / relative[:, 2]
        return np.column_stack(
            (self.center_x + relative[:, 0] * scale, self.horizon - relative[:, 1] * scale)
        )

    def rays(self, height: int, width: int) -> np.ndarray:
        """Direction of each pixel's centre, with z = 1: float32 [H, W, 3]."""
        rays = np.ones((height, width, 3), np.float32)
        rays[..., 0] = (np.arange(width) + 0.5 - self.center_x) / self.focal
        rays[..., 1] = (self.horizon - np.arange(height)[:, None] - 0.5) / self.focal
        return rays

    def half_pixel(self, z: float) -> float:
        """The length that half a pixel shows at depth z: poles are painted no thinner."""
        return 0.5 * z / self.focal


class Plane(NamedTuple):
    """What all outlines of one plane share."""

    normal: np.ndarray  # unit [3]
    offset: float  # normal · (point - eye) of the plane's points
    texture: Texture


def outward(outline: np.ndarray) -> np.ndarray:
    """Unit normal [3] of an outline [N, 3] that runs counter-clockwise as seen from outside."""
    ax, ay, az = (outline[-1] - outline[0]).tolist()
    bx, by, bz = (outline[1] - outline[0]).tolist()
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    return np.array((x, y, z)) / math.sqrt(x * x + y * y + z * z)


def clip_near(outline: np.ndarray) -> np.ndarray:
    """The part of an outline [N, 3] that lies at z >= NEAR (Sutherland-Hodgman)."""
    kept = []
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (b - a) * (NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)


def on_face(face: np.ndarray, rectangles: np.ndarray) -> np.ndarray:
    """Rectangles (u0, v0, u1, v1) [N, 4], in parts of a face [4, 3] -> outlines [N, 4, 3].

    u runs along the bottom edge of the face, v up its sides.
    """
    u, v = rectangles[:, [0, 2, 2, 0], None], rectangles[:, [1, 1, 3, 3], None]
    bottom = face[0] + (face[1] - face[0]) * u
    top = face[3] + (face[2] - face[3]) * u
    return bottom + (top - bottom) * v


class Decal(NamedTuple):
    """Rectangles on one face of a solid, in a colour of their own or a shade of the solid's."""

    face: int
    rectangles: np.ndarray  # [N, 4] as `on_face` takes them
    color: Color | None = None  # [3] or [N, 3]
    shade: float = 1.0

    def colors(self, solid_color: Color) -> np.ndarray:
        """One colour for each rectangle [N, 3], on a solid of this colour."""
        color = np.asarray(solid_color if self.color is None else self.color, float)
        return np.full((len(self.rectangles), 3), self.shade) * color


def decal(face: int, *rectangles, color: Color | None = None, shade: float = 1.0) -> Decal:
    return Decal(face, np.array(rectangles, float), color, shade)


class Painter:
    """Paints outlines over one another into `map`; `colors`, `labels` and `planes` explain it.

    Number n of the map has colors[n], labels[n] and planes[plane_of[n]]; 0 is the sky.
    """

    def __init__(self, camera: Camera, size: tuple[int, int], look: Look, sun: np.ndarray):
        height, width = size
        self.camera, self.size, self.look, self.sun = camera, size, look, sun
        self.map = Image.new("I", (width * SUPERSAMPLING, height * SUPERSAMPLING), 0)
        self.shadows = Image.new("L", (width, height), 0)
        self.colors: list = [[0.0, 0.0, 0.0]]
        self.labels = [LABEL_ID["sky"]]
        self.planes = [Plane(np.array((0.0, 0.0, 1.0)), FAR, Texture.PLAIN)]
        self.plane_of = [0]
        self._draw_map = ImageDraw.Draw(self.map)
        self._draw_shadows = ImageDraw.Draw(self.shadows)

    def sees(self, x: float, z: float, reach: float) -> bool:
        """Whether something at (x, z) with this radius can be in the picture."""
        pixel = self.camera.center_x + (x - self.camera.eye[0]) * self.camera.focal / z
        return abs(pixel - self.size[1] / 2) < self.size[1] / 2 + reach * self.camera.focal / z

    def faces_eye(self, outline: np.ndarray) -> bool:
        return float(outward(outline) @ (self.camera.eye - outline[0])) > 0

    def polygon(self, outline, color: Color, label: int, texture=Texture.PLAIN) -> None:
        """Paint an outline [N, 3] as far as it lies before the eye."""
        normal = outward(outline)
        if outline[:, 2].min() < NEAR:
            outline = clip_near(outline)
        if len(outline) >= 3:
            self.coplanar(outline, [len(outline)], [color], [label], normal, texture)

    def polygons(self, outlines, colors, label: int, texture=Texture.PLAIN) -> None:
        """Paint outlines [N, K, 3] of one plane in one colour [3] or one each [N, 3]."""
        count, corners, _ = outlines.shape
        if count:
            colors = np.broadcast_to(colors, (count, 3))
            normal, points = outward(outlines[0]), outlines.reshape(-1, 3)
            self.coplanar(points, [corners] * count, colors, [label] * count, normal, texture)

    def coplanar(self, points, counts, colors, labels, normal, texture=Texture.PLAIN) -> None:
        """Paint outlines of one plane: the first counts[0] points, the next counts[1], and on.

        An outline that reaches nearer than NEAR is left out.
        """
        offset = float(normal @ (points[0] - self.camera.eye))
        light = self._light(normal if offset < 0 else -normal)
        pixels = (self.camera.project(points) * SUPERSAMPLING).ravel().tolist()
        before_eye = (points[:, 2] >= NEAR).tolist()
        start = 0
        for count, color, label in zip(counts, np.multiply(colors, light), labels, strict=True):
            end = start + count
            if all(before_eye[start:end]):
                self._draw_map.polygon(pixels[2 * start : 2 * end], fill=len(self.labels))
                self.colors.append(color)
                self.labels.append(label)
                self.plane_of.append(len(self.planes))
            start = end
        self.planes.append(Plane(normal, offset, texture))

    def solid(self, faces, color: Color, label: int, decals=(), texture=Texture.PLAIN) -> None:
        """Paint those faces [F, 4, 3] of a convex body that look at the eye, with their decals."""
        for number, face in enumerate(faces):
            if not self.faces_eye(face):
                continue
            self.polygon(face, color, label, texture)
            own = [d for d in decals if d.face == number]
            if own:
                rectangles = np.concatenate([d.rectangles for d in own])
                colors = np.concatenate([d.colors(color) for d in own])
                self.polygons(on_face(face, rectangles), colors, label)

    def shadow(self, outline: np.ndarray) -> None:
        """Darken the ground within an outline [N, 3]."""
        outline = clip_near(outline)
        if len(outline) >= 3:
            self._draw_shadows.polygon(self.camera.project(outline).ravel().tolist(), fill=255)

    def _light(self, normal: np.ndarray) -> float:
        return self.look.ambient + self.look.sunlight * max(0.0, float(normal @ self.sun))


# ------------------------------------------------------------------------------------------ shapes

REAR, FRONT, LEFT, RIGHT, TOP = range(5)  # the faces of a frustum
SIDES, ENDS = (LEFT, RIGHT), (REAR, FRONT)


def frustum(bottom: Sequence[float], y0: float, top: Sequence[float], y1: float) -> np.ndarray:
    """Faces [5, 4, 3] of a body between rectangles (x0, x1, z0, z1) at the heights y0 < y1."""
    corners = [(x, y, z) for r, y in ((bottom, y0), (top, y1)) for x in r[:2] for z in r[2:]]
    faces = ((0, 2, 6, 4), (3, 1, 5, 7), (1, 0, 4, 5), (2, 3, 7, 6), (4, 6, 7, 5))
    return np.array(corners, float)[list(map(list, faces))]


def box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> np.ndarray:
    return frustum((x0, x1, z0, z1), y0, (x0, x1, z0, z1), y1)


def level(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """A rectangle on the ground [4, 3], counter-clockwise as seen from above."""
    return np.array(((x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)), float)


def circle(count: int) -> np.ndarray:
    angle = np.arange(count) * (2 * math.pi / count)
    return np.column_stack((np.cos(angle), np.sin(angle)))


CIRCLE = circle(14)


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Outline [14, 2], counter-clockwise."""
    return CIRCLE * (rx, ry) + (x, y)


def bar(a: Sequence[float], b: Sequence[float], width: float) -> np.ndarray:
    """A straight bar from point a to point b: outline [4, 2]."""
    (ax, ay), (bx, by) = a, b
    scale = width / 2 / math.hypot(bx - ax, by - ay)
    x, y = (by - ay) * scale, (ax - bx) * scale
    return np.array(((ax + x, ay + y), (bx + x, by + y), (bx - x, by - y), (ax - x, ay - y)))


class Place(NamedTuple):
    """Where a thing stands; heading 0 looks ahead, pi towards the eye."""

    x: float
    z: float
    heading: float = 0.0
    y: float = 0.0

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """The thing's own points [..., 3], z to its front -> world."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        turn = np.array(((cos, 0, -sin), (0, 1, 0), (sin, 0, cos)))
        return points @ turn + (self.x, self.y, self.z)


class Part(NamedTuple):
    """A piece of a flat figure: outline [N, 2] in metres, (along the figure, up)."""

    outline: np.ndarray
    color: Color
    label: int


def paint_figure(painter: Painter, place: Place, parts: Sequence[Part]) -> None:
    """Stand a flat figure up, along its heading."""
    flat = np.concatenate([part.outline for part in parts])
    points = np.zeros((len(flat), 3))
    points[:, 2], points[:, 1] = flat.T
    colors, labels = [part.color for part in parts], [part.label for part in parts]
    counts = [len(part.outline) for part in parts]
    along, up = Place(0, 0, place.heading).to_world(np.array(((0.0, 0, 1), (0, 1, 0))))
    painter.coplanar(place.to_world(points), counts, colors, labels, np.cross(along, up))


ACROSS = math.pi / 2  # the heading of a figure that faces the eye


# ---------------------------------------------------------------------------------------- vehicles


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
    """A pair of rectangles at the left and right edge of a face."""
    return [(margin, v0, margin + width, v1), (1 - margin - width, v0, 1 - margin, v1)]


def windows_in_row(count: int, v0: float, v1: float, gap: float = 0.012) -> list[tuple]:
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
    """A car; `foot` and `roof` say from where to where the cabin reaches, in lengths."""
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
    """A cab before a cargo box, listed from the rear."""
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
    """Two cars with sloping noses, cream above a coloured skirt."""
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
    if model.axles:
        paint_tyres(painter, place, model)
    for body in model.bodies:
        faces = place.to_world(body.faces)
        painter.solid(faces, colors[body.paint], model.label, body.decals)
    for side in (-1, 1):
        if model.axles:
            paint_wheels(painter, place, model, side)


def paint_tyres(painter: Painter, place: Place, model: Model) -> None:
    """What one sees of the wheels from behind or before the vehicle."""
    x, up = model.size[1] / 2, model.wheel * 1.4
    for z in model.axles:
        face = np.array(((-x, 0, z), (x, 0, z), (x, up, z), (-x, up, z)))
        tyres = on_face(face, np.array(lamps(0, 1, 0.13, 0.0)))
        painter.polygons(place.to_world(tyres), BLACK, model.label)


def paint_wheels(painter: Painter, place: Place, model: Model, side: int) -> None:
    """The wheels of one side, -1 left or 1 right, where one sees that side."""
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
    color = vary_one_of(rng, painter.look.paints)
    paint_vehicle(painter, place, pick(rng, CARS), [color])


def paint_truck(painter: Painter, place: Place, rng: Rng) -> None:
    model, colors = pick(rng, TRUCKS), [vary_one_of(rng, painter.look.paints) for _ in range(2)]
    if math.cos(place.heading) > 0:  # its rear is nearer
        model = model._replace(bodies=model.bodies[::-1])
    paint_vehicle(painter, place, model, [*colors, BLACK])


def paint_bus(painter: Painter, place: Place, rng: Rng) -> None:
    paint_vehicle(painter, place, BUS, [vary_one_of(rng, BUS_PAINTS)])


def paint_train(painter: Painter, place: Place, rng: Rng) -> None:
    paint_vehicle(painter, place, TRAM, [vary_one_of(rng, TRAM_PAINTS), CREAM, BLACK])


# -------------------------------------------------------------------------- people and two-wheelers

TORSO = np.array(
    ((-0.17, 0.82), (0.17, 0.82), (0.23, 1.42), (0.1, 1.5), (-0.1, 1.5), (-0.23, 1.42))
)
BICYCLE_WHEEL, MOTORCYCLE_WHEEL = 0.35, 0.33  # radius
TANK = np.array(((-0.12, 0.62), (0.42, 0.66), (0.46, 0.9), (0.2, 1.0), (-0.1, 0.84)))
TAIL = np.array(((-0.86, 0.8), (-0.1, 0.6), (-0.08, 0.84), (-0.84, 0.94)))
MOTOR = np.array(((-0.3, 0.24), (0.34, 0.24), (0.42, 0.66), (-0.26, 0.64)))


def person_parts(rng: Rng, look: Look) -> list[Part]:
    """A person of 1.6 to 1.95 m, walking."""
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
    """A rider seen sideways, from the saddle to the handlebar."""
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
    """Two wheels; what one sees between the spokes counts as wheel, as annotators draw it."""
    rings = ((radius, BLACK), (radius * hub, inner))
    return [(ellipse(x, radius, r, r), c) for x in (-distance, distance) for r, c in rings]


def bicycle_parts(rng: Rng, look: Look) -> list[Part]:
    """A bicycle seen sideways, 1.75 m long."""
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
    """A motorcycle seen sideways, 2.1 m long."""
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
    parts: Callable[[Rng, Look], list[Part]]
    hip: tuple[float, float]  # of its rider, seen sideways
    hand: tuple[float, float]
    girth: float  # seen from behind


TWO_WHEELERS = {
    "bicycle": TwoWheeler(bicycle_parts, (-0.22, 0.98), (0.32, 1.08), 0.12),
    "motorcycle": TwoWheeler(motorcycle_parts, (-0.3, 0.95), (0.3, 1.1), 0.22),
}


def end_on_parts(rng: Rng, look: Look, kind: str, lamp: Color) -> list[Part]:
    """A two-wheeler and its rider seen from behind, or with a headlamp from before."""
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
    """A two-wheeler in traffic: end-on in a lane, sideways across the street."""
    look, facing, machine = painter.look, math.cos(place.heading), TWO_WHEELERS[kind]
    if abs(facing) > 0.5:
        parts = end_on_parts(rng, look, kind, RED_LAMP if facing > 0 else HEADLAMP)
        place = place._replace(heading=ACROSS)
    else:
        parts = machine.parts(rng, look) + rider_parts(rng, look, machine.hip, machine.hand)
    paint_figure(painter, place, parts)


def paint_parked(painter: Painter, place: Place, rng: Rng, kind: str) -> None:
    """A two-wheeler left on the sidewalk, seen more or less sideways."""
    heading = pick(rng, (-ACROSS, ACROSS)) + rng.uniform(-0.9, 0.9)
    parts = TWO_WHEELERS[kind].parts(rng, painter.look)
    paint_figure(painter, place._replace(heading=heading), parts)


def paint_person(painter: Painter, place: Place, rng: Rng) -> None:
    paint_figure(painter, place, person_parts(rng, painter.look))


# ------------------------------------------------------------------------- things on the sidewalks


def paint_pole(painter: Painter, place: Place, height: float, radius: float) -> None:
    radius = max(radius, painter.camera.half_pixel(place.z))
    x = -0.4 * radius
    outlines = bar((0, 0), (0, height), 2 * radius), bar((x, 0), (x, height), 0.6 * radius)
    parts = [
        Part(outline, color, LABEL_ID["pole"])
        for outline, color in zip(outlines, (STEEL, PALE_STEEL), strict=True)
    ]
    paint_figure(painter, place, parts)


def towards_road(place: Place, length: float) -> float:
    return -math.copysign(length, place.x)


def paint_lamp(painter: Painter, place: Place, rng: Rng) -> None:
    """A street lamp whose arm reaches over the road."""
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
    """Three lamps in a dark case about (x, y), one of them lit."""
    shapes = [(bar((x, y - 0.66), (x, y + 0.66), 0.54), BLACK)]
    for lamp, color in enumerate(LIGHT_LAMPS):
        shade = 1.0 if lamp == lit else 0.28
        shapes.append((ellipse(x, y + 0.41 * (lamp - 1), 0.17, 0.17), np.multiply(color, shade)))
    return [Part(outline, color, LABEL_ID["traffic light"]) for outline, color in shapes]


def paint_traffic_light(painter: Painter, place: Place, rng: Rng) -> None:
    """A light on a pole, often with another one on an arm over the road."""
    arm, lit = towards_road(place, rng.uniform(2.2, 3.2)), rng.integers(3)
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
    height, label = rng.uniform(2.4, 3.0), LABEL_ID["traffic sign"]
    paint_pole(painter, place, height, 0.05)
    parts = [Part(outline, color, label) for outline, color in pick(rng, SIGNS)]
    paint_figure(painter, place._replace(y=place.y + height), parts)


BIN = frustum((-0.3, 0.3, -0.3, 0.3), 0, (-0.36, 0.36, -0.36, 0.36), 1.05)


def paint_bin(painter: Painter, place: Place, rng: Rng) -> None:
    """A dustbin, one of the things that no class covers."""
    lid = [decal(face, (0, 0.85, 1, 1), color=BLACK) for face in (REAR, LEFT, RIGHT)]
    faces = place._replace(heading=0.0).to_world(BIN)
    painter.solid(faces, vary_one_of(rng, BIN_PAINTS), LABEL_ID["static"], lid)


LEAF_CIRCLE = circle(16)
LEAF_LAYERS = np.array(((0.62, 0.62, 0.62), (0.88, 0.5, 0.46), (1.15, 0.42, 0.3)))
"""Shade, spread and size of the clumps of a crown, from the dark ground to the lit top."""


def paint_leaves(painter: Painter, place: Place, rng: Rng, height: float, reach: float) -> None:
    """A crown or bush: bumpy clumps about `height`, lighter ones higher and towards the sun."""
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
    trunk, reach, half = rng.uniform(2.2, 3.2), rng.uniform(1.5, 2.6), rng.uniform(0.13, 0.25)
    top = trunk + 0.5
    bole = np.array(((-half, 0), (half, 0), (0.6 * half, top), (-0.6 * half, top)))
    paint_figure(painter, place, [Part(bole, BARK, LABEL_ID["vegetation"])])
    paint_leaves(painter, place, rng, trunk + 0.75 * reach, reach)


# ------------------------------------------------------------------------- plots beside the street


class Plot(NamedTuple):
    """A piece of land beside the street, from z0 to z1 and from |x| = edge outwards."""

    side: int  # -1 left, 1 right
    edge: float
    z0: float
    z1: float

    def box(self, height: float, depth: float) -> np.ndarray:
        """A body along the street's edge and `depth` metres away from it: faces [5, 4, 3]."""
        x0, x1 = sorted((self.side * self.edge, self.side * (self.edge + depth)))
        return box(x0, x1, 0, height, self.z0, self.z1)

    @property
    def length(self) -> float:
        return self.z1 - self.z0


STOREY, WINDOW_WIDTH, WINDOW_HEIGHT, FRAME = 3.1, 1.25, 1.6, 0.13


def window_rectangles(width: float, height: float) -> np.ndarray:
    """Windows of all storeys but the lowest, in parts of a facade of width x height metres."""
    columns, rows = max(1, round(width / 2.9)), max(1, int(height / STOREY) - 1)
    u, v = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 1.25) * STOREY)
    u, v, half = u.ravel(), v.ravel() / height, WINDOW_WIDTH / 2 / width
    return np.column_stack((u - half, v, u + half, v + WINDOW_HEIGHT / height))


def shop_rectangles(width: float, height: float) -> np.ndarray:
    """Shop windows and doors of the lowest storey, in parts of the facade."""
    count = max(1, round(width / 4.5))
    left, full = np.arange(count) / count, np.ones(count)
    v0, v1 = 0.3 / height * full, 2.5 / height * full
    return np.column_stack((left + 0.15 / count, v0, left + 0.85 / count, v1))


def facade_decals(rng: Rng, face: int, width: float, height: float) -> list[Decal]:
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
    """The shadow of a house or wall towards the street, if the sun stands behind it."""
    reach = height * plot.side * painter.sun[0] / painter.sun[1]
    if reach > 0:
        x0, x1 = sorted((plot.side * plot.edge, plot.side * (plot.edge - reach)))
        painter.shadow(level(x0, x1, plot.z0, plot.z1))


def paint_greenery(painter: Painter, plot: Plot, rng: Rng, setback: float) -> None:
    """Trees and bushes over the plot, far to near, at least `setback` metres from its edge."""
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
    """A garden wall with greenery behind it."""
    paint_greenery(painter, plot, rng, setback=0.5)
    height, color = rng.uniform(1.8, 3.0), vary_one_of(rng, painter.look.walls)
    coping = [decal(face, (0, 0.93, 1, 1), shade=1.2) for face in (REAR, LEFT, RIGHT)]
    painter.solid(plot.box(height, 0.35), color, LABEL_ID["wall"], coping, Texture.BRICK)
    cast_shadow(painter, plot, height)


def paint_fence(painter: Painter, plot: Plot, rng: Rng) -> None:
    """Pales on two rails; the gaps between them belong to the fence, as annotators draw it."""
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
    paint_greenery(painter, plot, rng, setback=rng.uniform(1, 4))


PAINT_PLOT = {
    "building": paint_building,
    "wall": paint_wall,
    "fence": paint_fence,
    "park": paint_park,
}

# ------------------------------------------------------------------------------------- composition

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
        """(-1 left or 1 right, |x| of its kerb, whether cars park there)."""
        return zip((-1, 1), self.kerb, self.parking, strict=True)

    def crossed(self, z0: float, z1: float) -> bool:
        """Whether the depths z0 to z1 touch the zebra or the side street."""
        if self.zebra is None:
            return False
        return z0 < self.zebra + ZEBRA + 2 + self.junction and z1 > self.zebra - 1.5


def plan_street(rng: Rng, look: Look) -> Street:
    lane_width, lanes = rng.uniform(*look.lane_width), pick(rng, look.lanes_each_way)
    parking = tuple(bool(parked) for parked in rng.random(2) < look.parking)
    return Street(
        lane_width=lane_width,
        lanes=lanes,
        parking=parking,
        kerb=tuple(lane_width * lanes + PARKING_WIDTH * parked + 0.3 for parked in parking),
        sidewalk=rng.uniform(*look.sidewalk_width),
        verge=rng.uniform(*look.verge),
        rails=rng.random() < 0.5,
        zebra=rng.uniform(8, 26) if rng.random() < 0.6 else None,
        junction=pick(rng, (0.0, 8.0, 10.0)),
    )


def paint_ground(painter: Painter, street: Street, rng: Rng) -> None:
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
    return level(x - width / 2, x + width / 2, z0, z1)


def paint_markings(painter: Painter, street: Street, rng: Rng) -> None:
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
    """Houses and trees across the end of the street and as far as one sees beside it."""
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
    """Kind and land of every plot along the sidewalks."""
    for side, kerb, _ in street.sides():
        edge = kerb + street.sidewalk + street.verge
        for start, end in street.spans:
            z0, end = start + (start > NEAR) * street.sidewalk, min(end, STREET_END)
            while z0 < end - 3:
                z1 = min(z0 + rng.uniform(9, 20), end)
                yield pick_weighted(rng, look.plots), Plot(side, edge, z0, z1)
                z0 = z1 + pick(rng, (0.0, 0.0, 2.0))


class Item(NamedTuple):
    """A thing that stands or drives on the street."""

    paint: Callable[[Painter, Place, Rng], None]
    place: Place
    half_size: tuple[float, float]  # across and along the street
    height: float = 1.7

    @property
    def near(self) -> float:
        return self.place.z - self.half_size[1]

    @property
    def far(self) -> float:
        return self.place.z + self.half_size[1]


VEHICLES = {  # painter, length, width, height
    "car": (paint_car, 4.7, 1.85, 1.4),
    "truck": (paint_truck, 8.5, 2.5, 3.4),
    "bus": (paint_bus, *BUS.size),
    "train": (paint_train, *TRAM.size),
    "motorcycle": (partial(paint_ridden, kind="motorcycle"), 2.2, 0.8, 1.7),
    "bicycle": (partial(paint_ridden, kind="bicycle"), 1.8, 0.6, 1.7),
}
FURNITURE = {  # painter, half its width on the ground, height
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
    paint, length, width, height = VEHICLES[kind]
    half_size = (
        (width / 2, length / 2) if abs(math.cos(place.heading)) > 0.5 else (length / 2, width / 2)
    )
    return Item(paint, place, half_size, height)


def furniture(kind: str, x: float, z: float, y: float = SIDEWALK_HEIGHT) -> Item:
    paint, half, height = FURNITURE[kind]
    return Item(paint, Place(x, z, ACROSS, y), (half, half), height)


def plan_lane(street: Street, rng: Rng, look: Look, lane: int, side: int) -> Iterator[Item]:
    """The driving vehicles of one lane, counted from the middle; side 1 drives away."""
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
    length = VEHICLES["car"][1]
    for side, kerb, parked in street.sides():
        z = rng.uniform(3, 9)
        while parked and z < 0.6 * STREET_END:
            if rng.random() < 0.75 and not street.crossed(z, z + length):
                x, heading = side * (kerb - PARKING_WIDTH / 2), 0.0 if side > 0 else math.pi
                yield vehicle("car", Place(x, z + length / 2, heading))
            z += length + rng.uniform(0.6, 1.5)


def plan_crossing(street: Street, rng: Rng, z: float) -> Iterator[Item]:
    """Lights, people on the zebra at z, and someone who comes out of the side street."""
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
    """Trees, poles and two-wheelers along the kerb, people further in."""
    for side, kerb, _ in street.sides():
        z = rng.uniform(5, 9)
        while z < 0.6 * STREET_END:
            kind = pick_weighted(rng, look.furniture)
            inset = rng.uniform(0.8, street.sidewalk - 0.2) if kind == "person" else 0.5
            if not street.crossed(z - 0.5, z + 0.5):
                yield furniture(kind, side * (kerb + inset), z)
            z += 0.6 + rng.exponential(look.furniture_gap)


def plan_items(street: Street, rng: Rng, look: Look) -> list[Item]:
    items = [*plan_parked_cars(street, rng), *plan_sidewalks(street, rng, look)]
    for lane in range(street.lanes):
        for side in (-1, 1):
            items += plan_lane(street, rng, look, lane, side)
    if street.zebra is not None:
        items += plan_crossing(street, rng, street.zebra)
    return items


def ground_shadow(item: Item, sun: np.ndarray) -> np.ndarray:
    """An ellipse about the thing's foot, drawn out away from the sun: outline [14, 3]."""
    drift = -0.5 * item.height * sun[[0, 2]] / sun[1]
    shape = CIRCLE * item.half_size * 1.15 + drift * (drift * CIRCLE > 0)
    return np.column_stack(
        (shape[:, 0] + item.place.x, 0 * shape[:, 0], shape[:, 1] + item.place.z)
    )


def paint_bonnet(painter: Painter, rng: Rng) -> None:
    """One's own car along the lower edge: an arc in the picture, painted at the near plane."""
    camera, (height, width) = painter.camera, painter.size
    rise = height * rng.uniform(0.04, 0.08)
    arc = CIRCLE * (0.62 * width, -rise) + (width / 2, height)
    relative = (arc - (camera.center_x, camera.horizon)) * NEAR / camera.focal
    outline = camera.eye + np.column_stack((relative[:, 0], -relative[:, 1], np.full(14, NEAR)))
    painter.polygon(outline, vary(rng, BLACK, 0.3) * 1.8, LABEL_ID["ego vehicle"])


def paint_scene(painter: Painter, street: Street, rng: Rng) -> None:
    """Everything, far to near; what stands nearer to the middle of the street comes later."""
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


# ---------------------------------------------------------------------- from surfaces to a picture

GROUND = [LABEL_ID[name] for name in ("road", "sidewalk", "terrain")]  # what shadows fall on
SHADOW = 0.85  # part of the sunlight that a shadow takes
REFERENCE_PIXELS = 128 * 256  # blur is measured in pixels of a picture this large


class Frame(NamedTuple):
    """A scene before haze and lens."""

    color: np.ndarray  # float32 [H, W, 3], 0 to 255
    label_ids: np.ndarray  # uint8 [H, W]
    depth: np.ndarray  # float32 [H, W], metres


def mean_of_blocks(fine: np.ndarray) -> np.ndarray:
    """[H s, W s, ...] -> float32 [H, W, ...], the mean of s x s samples; s = SUPERSAMPLING."""
    steps = range(SUPERSAMPLING)
    parts = [fine[i::SUPERSAMPLING, j::SUPERSAMPLING] for i in steps for j in steps]
    return sum(part.astype(np.float32) for part in parts) / len(parts)


def texture_gain(painter: Painter, plane_map, depth, points) -> np.ndarray:
    """What the textures multiply each pixel with, fading where texels get smaller than pixels."""
    planes = painter.planes
    axis = np.array([np.abs(plane.normal).argmax() for plane in planes]).take(plane_map)
    distance = np.array([abs(p.offset) for p in planes], np.float32).take(plane_map)
    texture = np.array([plane.texture for plane in planes]).take(plane_map)
    u = np.where(axis == 0, points[..., 2], points[..., 0])
    v = np.where(axis == 1, points[..., 2], points[..., 1])
    row, column = ((t * TEXELS_PER_METRE).astype(np.int32) % TEXELS for t in (v, u))
    # along a plane seen at a grazing angle a pixel covers depth^2 / (focal * distance) metres
    texels = depth**2 / (painter.camera.focal * np.maximum(distance, 1e-3)) * TEXELS_PER_METRE
    return 1 + (texture_tiles()[texture, row, column] - 1) / np.maximum(1, texels)


def sky_colors(rays: np.ndarray, look: Look, rng: Rng) -> np.ndarray:
    """A gradient with clouds on a level ceiling: float32 [H, W, 3]."""
    zenith, horizon = np.array(look.sky, np.float32)
    rise = np.clip(rays[..., 1], 0, None)
    ceiling = 60 / np.maximum(rise, 0.04)
    row, column = ceiling.astype(np.int32), (rays[..., 0] * ceiling).astype(np.int32)
    shift = rng.integers(0, TEXELS, 2)
    noise = cloud_tile()[(row + shift[0]) % TEXELS, (column + shift[1]) % TEXELS]
    cover = np.clip(0.5 * noise + look.cloudiness - 0.3, 0, 0.85) * np.clip(6 * rise, 0, 1)
    sky = horizon + (zenith - horizon) * (1 - np.exp(-4 * rise))[..., None]
    return sky + (np.array(WHITE, np.float32) - sky) * cover[..., None]


def surface_points(painter: Painter, plane_map, rays) -> tuple[np.ndarray, np.ndarray]:
    """Depth [H, W] and world point [H, W, 3] of each pixel, from the planes: float32."""
    normals = np.array([plane.normal for plane in painter.planes], np.float32)
    offsets = np.array([plane.offset for plane in painter.planes], np.float32)
    slope = (normals.take(plane_map, axis=0) * rays).sum(-1)
    slope[slope == 0] = 1e-6
    depth = np.clip(offsets.take(plane_map) / slope, NEAR, FAR)
    return depth, rays * depth[..., None] + painter.camera.eye.astype(np.float32)


def ground_light(painter: Painter, label_ids: np.ndarray) -> np.ndarray:
    """1 in the sun, less in soft-edged shadows on the ground: float32 [H, W]."""
    soft = painter.shadows.filter(ImageFilter.GaussianBlur(painter.camera.focal / 300))
    shade = np.asarray(soft, np.float32) / 255 * np.isin(label_ids, GROUND)
    return 1 - SHADOW * painter.look.sunlight * shade


def render(painter: Painter, rng: Rng) -> Frame:
    numbers = np.asarray(painter.map)
    color = mean_of_blocks(np.array(painter.colors, np.float32).take(numbers, axis=0))
    sky_part = mean_of_blocks(numbers == 0)
    numbers = numbers[::SUPERSAMPLING, ::SUPERSAMPLING]
    label_ids = np.array(painter.labels, np.uint8).take(numbers)
    plane_map = np.array(painter.plane_of).take(numbers)
    rays = painter.camera.rays(*painter.size)
    depth, points = surface_points(painter, plane_map, rays)
    light = texture_gain(painter, plane_map, depth, points) * ground_light(painter, label_ids)
    sky = sky_colors(rays, painter.look, rng)
    color = color * light[..., None] + sky * sky_part[..., None]
    return Frame(color, label_ids, depth)


def photograph(frame: Frame, look: Look, rng: Rng) -> np.ndarray:
    """Haze, and a camera as far as the look has one: uint8 [H, W, 3]."""
    haze = 1 - np.exp(-frame.depth * (1 / 900 + look.strength / 160))
    haze[frame.label_ids == LABEL_ID["sky"]] *= 0.5 * look.strength
    color = frame.color + (np.array(look.sky[1], np.float32) - frame.color) * haze[..., None]
    color = np.clip(color, 0, 255)
    if look.strength > 0:
        color = through_lens(color, look.strength, rng)
    return np.clip(color + 0.5, 0, 255).astype(np.uint8)


GREY = np.array((0.299, 0.587, 0.114), np.float32)


def through_lens(color: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """A dim, cool, soft and noisy camera: float [H, W, 3] in and out."""
    height, width, _ = color.shape
    color = color + ((color @ GREY)[..., None] - color) * (0.55 * strength)  # desaturated
    color = color + (color.mean() - color) * (0.35 * strength)  # of low contrast
    cast = 1 + strength * np.array((-0.25, 0.08, 0.03), np.float32)
    color = color * cast * illumination(height, width, strength, rng)[..., None]
    blur = ImageFilter.GaussianBlur(0.7 * strength * math.sqrt(height * width / REFERENCE_PIXELS))
    soft = Image.fromarray(np.clip(color, 0, 255).astype(np.uint8)).filter(blur)
    noise = rng.standard_normal((height, width, 3), np.float32)
    noise += rng.standard_normal((height, width, 1), np.float32)  # grey, besides the coloured
    return np.asarray(soft, np.float32) + 5 * strength * noise


def illumination(height: int, width: int, strength: float, rng: Rng) -> np.ndarray:
    """Low gain with a gradient of random direction and a vignette: float32 [H, W]."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    right, down = rng.uniform(-0.3, 0.3, 2)
    return 1 + strength * (right * x + down * y - 0.2 * (x**2 + y**2) - 0.22)


# ------------------------------------------------------------------------------------------ scenes


class Scene(NamedTuple):
    image: np.ndarray  # uint8 [H, W, 3], RGB
    label_ids: np.ndarray  # uint8 [H, W], Cityscapes label ids


def set_up_camera(rng: Rng, look: Look, street: Street, size: tuple[int, int]) -> Camera:
    """A camera in the right lane; a picture of 1:2 sets the scale for those of other shapes."""
    height, width = size
    return Camera(
        focal=rng.uniform(*look.focal) * math.sqrt(2 * height * width),
        center_x=rng.uniform(0.42, 0.58) * width,
        horizon=rng.uniform(0.4, 0.48) * height,
        eye=np.array(
            (rng.uniform(0.35, 0.6) * street.lane_width, rng.uniform(*look.eye_height), 0)
        ),
    )


def draw_scene(seed: int | Sequence[int], size: tuple[int, int], look: str) -> Scene:
    """The scene of a seed at (H, W), at least 64 pixels a side; the look is "game" or "camera"."""
    assert min(size) >= 64, size
    rng, style = np.random.default_rng(seed), LOOKS[look]
    street = plan_street(rng, style)
    sun = np.array((pick(rng, (-1, 1)) * rng.uniform(0.15, 0.45), 1.0, rng.uniform(-0.7, -0.2)))
    camera = set_up_camera(rng, style, street, size)
    painter = Painter(camera, size, style, sun / np.linalg.norm(sun))
    paint_scene(painter, street, rng)
    frame = render(painter, rng)
    return Scene(photograph(frame, style, rng), frame.label_ids)


# ------------------------------------------------------------------------------------------- files

FORMAT_VERSION = 1  # to be raised when the same seed gives other pictures
MARKER = "toy_city.json"
GTA5, CITYSCAPES = "GTA5", "Cityscapes"
SOURCE_STREAM, TRAIN_STREAM, VAL_STREAM = range(3)  # independent random numbers for each
CITIES = {"train": "toyburg", "val": "toyhaven"}
FRAME_NUMBER = 19  # the annotated frame of each Cityscapes sequence

Pictures = dict[Path, Image.Image]


def make_toy_city(
    root: Path,
    *,
    train: int,
    val: int,
    size: tuple[int, int],
    seed: int,
    progress: Callable[..., Iterable] = tqdm,
) -> None:
    """Write a game-look GTA5 and a camera-look Cityscapes under `root`, unless they are there.

    GTA5 gets a quarter more than `train` scenes, since a fifth of all will be its validation split.
    """
    asked = {
        "format": FORMAT_VERSION,
        "camera_strength": CAMERA_STRENGTH,
        "train": train,
        "val": val,
    }
    asked |= {"size": list(size), "seed": seed}
    if is_complete(root, asked):
        print(f"{root} holds this Toy City already")
        return
    save_marker(root, asked, complete=False)
    jobs = [
        *((SOURCE_STREAM, i, "game", gta5_pictures) for i in range(train + math.ceil(train / 4))),
        *((TRAIN_STREAM, i, "camera", partial(city_pictures, "train")) for i in range(train)),
        *((VAL_STREAM, i, "camera", partial(city_pictures, "val")) for i in range(val)),
    ]
    for stream, index, look, pictures in progress(jobs, "Toy City", unit="scene"):
        scene = draw_scene((seed, stream, index), size, look)
        for path, picture in pictures(scene, index).items():
            save_picture(root / path, picture)
    save_marker(root, asked, complete=True)


def is_complete(root: Path, asked: dict) -> bool:
    """Whether the asked-for Toy City is there; a folder that holds something else is refused."""
    marker = root / MARKER
    if marker.exists():
        found = read_marker(marker)
        if found | asked != found:
            raise UserError(
                f"{root} holds a Toy City with {_listed(found, asked)}, but asked for is one with "
                f"{_listed(asked, asked)}: choose another --toy_root or delete the folder"
            )
        return found["complete"]
    for folder in (root / GTA5, root / CITYSCAPES):
        if folder.exists():
            raise UserError(
                f"{folder} exists and {marker} does not, so it may be real data and is left alone: "
                "choose another --toy_root"
            )
    return False


def _listed(values: dict, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {values.get(name)}" for name in names)


def read_marker(marker: Path) -> dict:
    try:
        return json.loads(marker.read_text())
    except json.JSONDecodeError as error:
        raise UserError(
            f"{marker} is not readable ({error}): choose another --toy_root or delete the folder"
        ) from error


def save_marker(root: Path, asked: dict, *, complete: bool) -> None:
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f"{MARKER}.tmp"
    temporary.write_text(json.dumps(asked | {"complete": complete}, indent=2) + "\n")
    temporary.replace(root / MARKER)


def gta5_pictures(scene: Scene, index: int) -> Pictures:
    """Image and palette label; the label's indices are label ids, its colours Cityscapes'."""
    label = Image.fromarray(scene.label_ids)
    label.putpalette(colorize(LABEL_ID_TO_TRAIN_ID).tobytes())
    name, root = f"{index + 1:05d}.png", Path(GTA5)
    return {root / "images" / name: Image.fromarray(scene.image), root / "labels" / name: label}


def city_pictures(split: str, scene: Scene, index: int) -> Pictures:
    city, train_ids = CITIES[split], LABEL_ID_TO_TRAIN_ID[scene.label_ids]
    name, root = f"{city}_{index:06d}_{FRAME_NUMBER:06d}", Path(CITYSCAPES)
    labels = {"labelIds": scene.label_ids, "labelTrainIds": train_ids, "color": colorize(train_ids)}
    image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    return {image: Image.fromarray(scene.image)} | {
        root / "gtFine" / split / city / f"{name}_gtFine_{kind}.png": Image.fromarray(label)
        for kind, label in labels.items()
    }


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write the whole file or none: an interruption leaves no truncated picture behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    picture.save(temporary, format="PNG", compress_level=1)  # quick rather than small
    temporary.replace(path)
