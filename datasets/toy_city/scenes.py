"""A scene of a seed."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datasets.toy_city.looks import LOOKS, Look, Rng, pick
from datasets.toy_city.painting import Camera, Painter
from datasets.toy_city.rendering import photograph, render
from datasets.toy_city.street import Street, paint_scene, plan_street


class Scene(NamedTuple):
    """A picture with its label."""

    image: np.ndarray  # uint8 [H, W, 3], RGB
    label_ids: np.ndarray  # uint8 [H, W], Cityscapes label ids


def set_up_camera(rng: Rng, look: Look, street: Street, size: tuple[int, int]) -> Camera:
    """Return a camera in the right lane; a picture of 1:2 sets the scale for those of other
    shapes."""
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
    """Draw the scene of a seed at (H, W), at least 64 pixels a side; the look is "game" or
    "camera"."""
    assert min(size) >= 64, size
    rng, style = np.random.default_rng(seed), LOOKS[look]
    street = plan_street(rng, style)
    sun = np.array((pick(rng, (-1, 1)) * rng.uniform(0.15, 0.45), 1.0, rng.uniform(-0.7, -0.2)))
    camera = set_up_camera(rng, style, street, size)
    painter = Painter(camera, size, style, sun / np.linalg.norm(sun))
    paint_scene(painter, street, rng)
    frame = render(painter, rng)
    return Scene(photograph(frame, style, rng), frame.label_ids)
