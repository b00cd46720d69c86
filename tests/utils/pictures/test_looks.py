"""Colours that stay apart, also for colour-blind readers."""

import itertools

import numpy as np
import pytest

from utils.pictures.looks import COLORS, DARK_COLORS, looks

VISIONS = {
    "usual": np.eye(3),
    "protanopia": [
        *([0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216]),
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        *([0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413]),
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        *([1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602]),
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Linear RGB as each kind of eye sees it (Machado et al., 2009, severity 1)."""

LMS = [
    *([0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]),
    [0.0883024619, 0.2817188376, 0.6299787005],
]
LAB = [
    *([0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]),
    [0.0259040371, 0.7827717662, -0.8086757660],
]
"""From linear RGB to Oklab (Ottosson, 2020)."""

LEAST_DISTANCE = 0.06
LEAST_CONTRAST = 2.2


def linear(color):
    encoded = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def seen(color, vision):
    """Oklab of a colour as a kind of eye sees it."""
    light = np.clip(np.array(VISIONS[vision]) @ linear(color), 0, 1)
    return np.array(LAB) @ np.cbrt(np.array(LMS) @ light)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("colors", [COLORS, DARK_COLORS])
def test_every_eye_tells_the_colours_apart(colors, vision):
    for one, other in itertools.combinations(colors, 2):
        distance = np.linalg.norm(seen(one, vision) - seen(other, vision))
        assert distance >= LEAST_DISTANCE, (one, other)


@pytest.mark.parametrize(("colors", "paper"), [(COLORS, "#ffffff"), (DARK_COLORS, "#1a1d21")])
def test_the_colours_stand_out_from_their_paper(colors, paper):
    def luminance(color):
        return [0.2126, 0.7152, 0.0722] @ linear(color)

    for color in colors:
        dark, light = sorted((luminance(color), luminance(paper)))
        assert (light + 0.05) / (dark + 0.05) >= LEAST_CONTRAST, color


def test_a_family_has_one_colour_and_its_members_their_dashes():
    found = looks({"FDA 0.01": "FDA", "ADA": "ADA", "FDA 0.05": "FDA"})
    assert found["FDA 0.01"].ink == found["FDA 0.05"].ink != found["ADA"].ink
    assert found["FDA 0.01"].dashes != found["FDA 0.05"].dashes


def test_a_family_keeps_its_colour_whatever_else_is_there():
    known = ["Source-only", "ADA", "FDA"]
    everything = looks({name: name for name in (*known, "DACS")}, known)
    assert looks({"FDA": "FDA"}, known)["FDA"] == everything["FDA"]


def test_every_series_looks_different():
    names = [f"method {number}" for number in range(25)]
    assert len(set(looks({name: name for name in names}).values())) == len(names)
