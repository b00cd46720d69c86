"""The sheet at the end of `predict`."""

from collections import Counter

import numpy as np
import pytest

from datasets.labels import CLASSES, PALETTE
from tests.support.helpers import picture
from trainings.application.contact_sheet import Frames, Kept
from utils.pictures.panels import label_sheet
from utils.pictures.sheet import SMALL


@pytest.mark.parametrize("length", [1, 5, 12, 13, 100, 1000])
def test_frames_are_spread_over_the_whole_video(length):
    frames = Frames()
    for number in range(length):
        frames.add(np.full((8, 12, 3), number % 256, np.uint8), np.zeros((8, 12), np.uint8))
    places = [int(one.name.removeprefix("frame ")) - 1 for one in frames.kept]
    assert places[0] == 0 and len(places) == len(set(places)) <= 12
    assert len(places) >= min(length, 6)
    gaps = set(np.diff([*places, length]))
    assert max(gaps) <= 2 * min(np.diff(places), default=length)


def test_a_sheet_shows_overlays_and_a_legend_of_the_classes_that_are_there():
    ids = np.full((40, 60), 13, np.uint8)
    tall = Kept("tall", picture(1, (60, 40)), np.full((60, 40), 10, np.uint8))
    sheet = label_sheet([Kept("wide", picture(0, (40, 60)), ids), tall], title="title")
    legend = Counter(map(tuple, sheet[-40:].reshape(-1, 3).tolist()))
    squares = {c.name for c in CLASSES if legend[c.color] >= SMALL * SMALL}
    assert squares == {"car", "sky"}
    blend = (picture(0, (40, 60)).astype(int) + PALETTE[13]) // 2
    mean = blend.mean((0, 1))
    assert np.abs(sheet[70:200, 320:620].reshape(-1, 3).mean(0) - mean).max() < 30
