"""Two images count as alike if they show the same, whatever their files are."""

import numpy as np
from PIL import Image

from datasets.check.alike import alike, content_of
from datasets.toy_city import draw_scene


def scene(number, size=(96, 192)):
    return draw_scene((7, number), size, "camera").image


def test_smaller_darker_and_noisy_copies_are_alike_and_other_scenes_are_not():
    scenes = [scene(number) for number in range(12)]
    small = np.array(Image.fromarray(scenes[3]).resize((100, 50)))
    dark = (0.7 * scenes[5]).astype(np.uint8)
    noise = np.random.default_rng(0).integers(-4, 5, scenes[8].shape)
    noisy = np.clip(scenes[8] + noise, 0, 255).astype(np.uint8)
    contents = [content_of(image) for image in (*scenes, small, dark, noisy)]
    assert alike(contents) == [(12, 3), (13, 5), (14, 8)]


def test_no_image_is_alike_to_none():
    assert alike([]) == []
