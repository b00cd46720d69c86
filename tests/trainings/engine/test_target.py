"""A target without labels is compared with the classes of the source."""

import numpy as np
import pytest

from tests.support.data import gta5_files
from tests.support.helpers import make_gta5, save
from trainings.engine.target import label_shares
from utils.errors import UserError


def test_labels_that_cannot_be_read_are_left_out_where_bad_samples_are(tmp_path):
    files = gta5_files(make_gta5(tmp_path), "train", 0.0)
    whole = label_shares(files[1:], 19)
    assert sum(whole) == pytest.approx(1)
    files[0].label.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        label_shares(files, 19)
    assert label_shares(files, 19, skips_bad=True) == whole


def test_labels_without_a_scored_pixel_have_no_shares(tmp_path):
    (one, *_) = gta5_files(make_gta5(tmp_path), "train", 0.0)
    save(np.zeros((72, 104), np.uint8), one.label)  # label id 0 is "unlabeled"
    assert label_shares([one], 19) == [0.0] * 19
