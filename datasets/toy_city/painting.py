"""Outlines in the world, painted as surfaces: camera, textures, the painter and its shapes."""

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from datasets.toy_city.looks import FAR, LABEL_ID, NEAR, SUPERSAMPLING, Color, Look, Rng

TEXELS = 256  # side of a texture's tile
TEXELS_PER_METRE = 32


class Texture(IntEnum):
    """Numbers of the textures of `texture_tiles`."""

    PLAIN = 0
    ASPHALT = 1
    PAVING = 2
    GRASS = 3
    BRICK = 4
    PLASTER = 5
    LEAVES = 6
    TILES = 7


def tileable_noise(rng: Rng, smoothness: float) -> np.ndarray:
    """Return noise [256, 256] of mean 0, deviation 1 and spectrum 1 / frequency^smoothness."""
    axis = np.fft.fftfreq(TEXELS)
    frequency = np.hypot(axis[:, None], axis)
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((TEXELS, TEXELS))) * frequency**-smoothness
    field = np.fft.ifft2(spectrum).real
    return field / field.std()


def brick_joints(height: int, length: int) -> np.ndarray:
    """Return 1 in the joints between bricks of height x length texels, 0 elsewhere: [256, 256]."""
    row, column = np.mgrid[:TEXELS, :TEXELS]
    column = column + (row // height % 2) * (length // 2)
    return ((row % height == 0) | (column % length == 0)).astype(float)


@lru_cache(maxsize=1)
def texture_tiles() -> np.ndarray:
    """Return each texture's factors on its surface's colour, float32 [textures, 256, 256]."""
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
    """Return the noise of the clouds, float32 [256, 256]."""
    return tileable_noise(np.random.default_rng(1), 1.7).astype(np.float32)


class Camera(NamedTuple):
    """A pinhole that looks along +z; lengths in pixels of the finished picture."""

    focal: float
    center_x: float
    horizon: float
    eye: np.ndarray  # [3], metres

    def project(self, points: np.ndarray) -> np.ndarray:
        """Turn world points [N, 3] with z > 0 into pixels (x, y) [N, 2]."""
        relative = points - self.eye
        scale = self.focal / relative[:, 2]
        return np.column_stack(
            (self.center_x + relative[:, 0] * scale, self.horizon - relative[:, 1] * scale)
        )

    def rays(self, height: int, width: int) -> np.ndarray:
        """Return the direction of each pixel's centre, with z = 1: float32 [H, W, 3]."""
        rays = np.ones((height, width, 3), np.float32)
        rays[..., 0] = (np.arange(width) + 0.5 - self.center_x) / self.focal
        rays[..., 1] = (self.horizon - np.arange(height)[:, None] - 0.5) / self.focal
        return rays

    def half_pixel(self, z: float) -> float:
        """Return the length that half a pixel shows at depth z: poles are painted no thinner."""
        return 0.5 * z / self.focal


class Plane(NamedTuple):
    """Properties that all outlines of one plane share."""

    normal: np.ndarray  # unit [3]
    offset: float  # normal · (point - eye) of the plane's points
    texture: Texture


def outward(outline: np.ndarray) -> np.ndarray:
    """Return the unit normal [3] of an outline [N, 3] that runs counter-clockwise as seen from
    outside."""
    ax, ay, az = (outline[-1] - outline[0]).tolist()
    bx, by, bz = (outline[1] - outline[0]).tolist()
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    return np.array((x, y, z)) / math.sqrt(x * x + y * y + z * z)


def clip_near(outline: np.ndarray) -> np.ndarray:
    """Return the part of an outline [N, 3] that lies at z >= NEAR (Sutherland-Hodgman)."""
    kept = []
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (b - a) * (NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)


def on_face(face: np.ndarray, rectangles: np.ndarray) -> np.ndarray:
    """Turn rectangles (u0, v0, u1, v1) [N, 4], in parts of a face [4, 3], into outlines [N, 4, 3].

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
        """Return one colour for each rectangle [N, 3], on a solid of this colour."""
        color = np.asarray(solid_color if self.color is None else self.color, float)
        return np.full((len(self.rectangles), 3), self.shade) * color


def decal(
    face: int, *rectangles: Sequence[float], color: Color | None = None, shade: float = 1.0
) -> Decal:
    """Return a decal of rectangles (u0, v0, u1, v1) as `on_face` takes them."""
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
        """Return whether something at (x, z) with this radius can be in the picture."""
        pixel = self.camera.center_x + (x - self.camera.eye[0]) * self.camera.focal / z
        return abs(pixel - self.size[1] / 2) < self.size[1] / 2 + reach * self.camera.focal / z

    def faces_eye(self, outline: np.ndarray) -> bool:
        return float(outward(outline) @ (self.camera.eye - outline[0])) > 0

    def polygon(
        self, outline: np.ndarray, color: Color, label: int, texture: Texture = Texture.PLAIN
    ) -> None:
        """Paint an outline [N, 3] as far as it lies before the eye."""
        normal = outward(outline)
        if outline[:, 2].min() < NEAR:
            outline = clip_near(outline)
        if len(outline) >= 3:
            self.coplanar(outline, [len(outline)], [color], [label], normal, texture)

    def polygons(
        self,
        outlines: np.ndarray,
        colors: Color | Sequence[Color],
        label: int,
        texture: Texture = Texture.PLAIN,
    ) -> None:
        """Paint outlines [N, K, 3] of one plane in one colour [3] or one each [N, 3]."""
        count, corners, _ = outlines.shape
        if count:
            own = np.broadcast_to(np.asarray(colors), (count, 3))
            normal, points = outward(outlines[0]), outlines.reshape(-1, 3)
            self.coplanar(points, [corners] * count, own, [label] * count, normal, texture)

    def coplanar(
        self,
        points: np.ndarray,
        counts: Sequence[int],
        colors: np.ndarray | Sequence[Color],
        labels: Sequence[int],
        normal: np.ndarray,
        texture: Texture = Texture.PLAIN,
    ) -> None:
        """Paint outlines of one plane: the first counts[0] points, the next counts[1], and on.

        An outline that reaches nearer than NEAR is left out.
        """
        offset = float(normal @ (points[0] - self.camera.eye))
        light = self._light(normal if offset < 0 else -normal)
        pixels = (self.camera.project(points) * SUPERSAMPLING).ravel().tolist()
        before_eye = (points[:, 2] >= NEAR).tolist()
        start = 0
        lit = np.asarray(colors) * light
        for count, color, label in zip(counts, lit, labels, strict=True):
            end = start + count
            if all(before_eye[start:end]):
                self._draw_map.polygon(pixels[2 * start : 2 * end], fill=len(self.labels))
                self.colors.append(color)
                self.labels.append(label)
                self.plane_of.append(len(self.planes))
            start = end
        self.planes.append(Plane(normal, offset, texture))

    def solid(
        self,
        faces: np.ndarray,
        color: Color,
        label: int,
        decals: Sequence[Decal] = (),
        texture: Texture = Texture.PLAIN,
    ) -> None:
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


REAR, FRONT, LEFT, RIGHT, TOP = range(5)  # the faces of a frustum
SIDES, ENDS = (LEFT, RIGHT), (REAR, FRONT)


def frustum(bottom: Sequence[float], y0: float, top: Sequence[float], y1: float) -> np.ndarray:
    """Return the faces [5, 4, 3] of a body between rectangles (x0, x1, z0, z1) at the heights y0 <
    y1."""
    corners = [(x, y, z) for r, y in ((bottom, y0), (top, y1)) for x in r[:2] for z in r[2:]]
    faces = ((0, 2, 6, 4), (3, 1, 5, 7), (1, 0, 4, 5), (2, 3, 7, 6), (4, 6, 7, 5))
    return np.array(corners, float)[list(map(list, faces))]


def box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> np.ndarray:
    """Return the faces [5, 4, 3] of an upright box."""
    return frustum((x0, x1, z0, z1), y0, (x0, x1, z0, z1), y1)


def level(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """Return a rectangle on the ground [4, 3], counter-clockwise as seen from above."""
    return np.array(((x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)), float)


def circle(count: int) -> np.ndarray:
    """Return the outline [count, 2] of a circle of radius 1, counter-clockwise."""
    angle = np.arange(count) * (2 * math.pi / count)
    return np.column_stack((np.cos(angle), np.sin(angle)))


CIRCLE = circle(14)


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Return an outline [14, 2], counter-clockwise."""
    return CIRCLE * (rx, ry) + (x, y)


def bar(a: Sequence[float], b: Sequence[float], width: float) -> np.ndarray:
    """Return a straight bar from point a to point b: outline [4, 2]."""
    (ax, ay), (bx, by) = a, b
    scale = width / 2 / math.hypot(bx - ax, by - ay)
    x, y = (by - ay) * scale, (ax - bx) * scale
    return np.array(((ax + x, ay + y), (bx + x, by + y), (bx - x, by - y), (ax - x, ay - y)))


class Place(NamedTuple):
    """Place and heading of a thing; heading 0 looks ahead, pi towards the eye."""

    x: float
    z: float
    heading: float = 0.0
    y: float = 0.0

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Turn the thing's own points [..., 3], z to its front, into points of the world."""
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
