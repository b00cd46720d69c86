"""From surfaces to a picture: textures, light, haze and the lens."""

import math
from functools import reduce
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from datasets.toy_city.looks import FAR, LABEL_ID, NEAR, SUPERSAMPLING, WHITE, Look, Rng
from datasets.toy_city.painting import TEXELS, TEXELS_PER_METRE, Painter, cloud_tile, texture_tiles

GROUND = [LABEL_ID[name] for name in ("road", "sidewalk", "terrain")]  # what shadows fall on
SHADOW = 0.85  # part of the sunlight that a shadow takes
REFERENCE_PIXELS = 128 * 256  # blur is measured in pixels of a picture this large


class Frame(NamedTuple):
    """A scene before haze and lens."""

    color: np.ndarray  # float32 [H, W, 3], 0 to 255
    label_ids: np.ndarray  # uint8 [H, W]
    depth: np.ndarray  # float32 [H, W], metres


def mean_of_blocks(fine: np.ndarray) -> np.ndarray:
    """Return the means of blocks of `SUPERSAMPLING` samples a side, float32."""
    steps = range(SUPERSAMPLING)
    parts = [fine[i::SUPERSAMPLING, j::SUPERSAMPLING] for i in steps for j in steps]
    return reduce(np.add, (part.astype(np.float32) for part in parts)) / len(parts)


def texture_gain(
    painter: Painter, plane_map: np.ndarray, depth: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Return the textures' factor for each pixel; it fades where texels get smaller than pixels."""
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
    """Return a gradient with clouds on a level ceiling: float32 [H, W, 3]."""
    zenith, horizon = np.array(look.sky, np.float32)
    rise = np.clip(rays[..., 1], 0, None)
    ceiling = 60 / np.maximum(rise, 0.04)
    row, column = ceiling.astype(np.int32), (rays[..., 0] * ceiling).astype(np.int32)
    shift = rng.integers(0, TEXELS, 2)
    noise = cloud_tile()[(row + shift[0]) % TEXELS, (column + shift[1]) % TEXELS]
    cover = np.clip(0.5 * noise + look.cloudiness - 0.3, 0, 0.85) * np.clip(6 * rise, 0, 1)
    sky = horizon + (zenith - horizon) * (1 - np.exp(-4 * rise))[..., None]
    return sky + (np.array(WHITE, np.float32) - sky) * cover[..., None]


def surface_points(
    painter: Painter, plane_map: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth [H, W] and world point [H, W, 3] of each pixel, from the planes: float32."""
    normals = np.array([plane.normal for plane in painter.planes], np.float32)
    offsets = np.array([plane.offset for plane in painter.planes], np.float32)
    slope = (normals.take(plane_map, axis=0) * rays).sum(-1)
    slope[slope == 0] = 1e-6
    depth = np.clip(offsets.take(plane_map) / slope, NEAR, FAR)
    return depth, rays * depth[..., None] + painter.camera.eye.astype(np.float32)


def ground_light(painter: Painter, label_ids: np.ndarray) -> np.ndarray:
    """Return 1 in the sun, less in soft-edged shadows on the ground: float32 [H, W]."""
    soft = painter.shadows.filter(ImageFilter.GaussianBlur(painter.camera.focal / 300))
    shade = np.asarray(soft, np.float32) / 255 * np.isin(label_ids, GROUND)
    return 1 - SHADOW * painter.look.sunlight * shade


def render(painter: Painter, rng: Rng) -> Frame:
    """Return the picture that a painter has painted, before haze and lens."""
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
    """Add haze, and a camera as far as the look has one: uint8 [H, W, 3]."""
    haze = 1 - np.exp(-frame.depth * (1 / 900 + look.strength / 160))
    haze[frame.label_ids == LABEL_ID["sky"]] *= 0.5 * look.strength
    color = frame.color + (np.array(look.sky[1], np.float32) - frame.color) * haze[..., None]
    color = np.clip(color, 0, 255)
    if look.strength > 0:
        color = through_lens(color, look.strength, rng)
    return np.clip(color + 0.5, 0, 255).astype(np.uint8)


GREY = np.array((0.299, 0.587, 0.114), np.float32)


def through_lens(color: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """Show a picture through a dim, cool, soft and noisy camera: float [H, W, 3] in and out."""
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
    """Return low gain with a gradient of random direction and a vignette: float32 [H, W]."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    right, down = rng.uniform(-0.3, 0.3, 2)
    return 1 + strength * (right * x + down * y - 0.2 * (x**2 + y**2) - 0.22)
