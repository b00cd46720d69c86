"""Define how the two looks of Toy City differ, and what all that is drawn shares."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from datasets.labels import CLASSES

CAMERA_STRENGTH = 0.55
"""How far the camera look's lens is from the game's: 0 not at all, 1 the prototype's full gap."""

LABEL_ID = {c.name: c.label_id for c in CLASSES} | {"ego vehicle": 1, "static": 4}
"""The 19 classes and two things that Cityscapes labels and does not score."""

Rng = np.random.Generator
Color = Sequence[float] | np.ndarray  # red, green, blue, 0 to 255
Range = tuple[float, float]
Option = TypeVar("Option")

NEAR, FAR = 1.0, 400.0  # depths that are drawn
STREET_END = 125.0  # where the skyline closes the view
SIDEWALK_HEIGHT = 0.13
SUPERSAMPLING = 2  # of the picture; labels are taken at points, never mixed


def palette(hexadecimal: str) -> tuple[tuple[int, int, int], ...]:
    """Return colours of words: "ff8000 0000ff" -> ((255, 128, 0), (0, 0, 255))."""
    colors = map(bytes.fromhex, hexadecimal.split())
    return tuple((red, green, blue) for red, green, blue in colors)


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


def pick(rng: Rng, options: Sequence[Option]) -> Option:
    """Return one of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def pick_weighted(rng: Rng, weights: dict[str, float]) -> str:
    """Return one of the names, each as likely as its weight says."""
    edges = np.cumsum(list(weights.values()))
    return list(weights)[np.searchsorted(edges, rng.uniform(0, edges[-1]), side="right")]


def vary(rng: Rng, color: Color, amount: float = 0.1) -> np.ndarray:
    """Return the colour a little lighter or darker, warmer or cooler: float [3]."""
    return np.asarray(color) * (1 + rng.uniform(-amount, amount) + rng.uniform(-0.03, 0.03, 3))


def vary_one_of(rng: Rng, colors: Sequence[Color], amount: float = 0.1) -> np.ndarray:
    """Return one of the colours, varied by `vary`."""
    return vary(rng, pick(rng, colors), amount)
