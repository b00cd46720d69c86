import numpy as np
from cityscapesscripts.helpers import labels as official

from datasets.labels import CLASSES, IGNORE, LABEL_ID_TO_TRAIN_ID, colorize


def test_table_is_the_official_one():
    for label in official.labels:
        if label.id >= 0:
            assert LABEL_ID_TO_TRAIN_ID[label.id] == label.trainId
        if 0 <= label.trainId < IGNORE:
            assert CLASSES[label.trainId] == (label.name, label.id, label.color)


def test_every_other_id_is_ignored():
    assert (LABEL_ID_TO_TRAIN_ID != IGNORE).sum() == len(CLASSES)


def test_ignore_is_black():
    assert not colorize(np.full((2, 2), IGNORE, np.uint8)).any()
