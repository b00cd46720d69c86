"""benchmarks/indicators.py: rank correlations of indicators with mIoU."""

import math

import numpy as np
import pytest

from benchmarks.indicators import INDICATORS, MIOU, points_of, rank_correlation, ranks, table
from utils.disk.run_files import HISTORY_COLUMNS
from utils.disk.run_folder import RunFolder


def test_equal_values_share_the_mean_of_their_ranks():
    assert ranks(np.array([5.0, 1, 5, 9])).tolist() == [2.5, 1, 2.5, 4]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([1, 8, 27, 64], 1),  # whatever is monotonic
        ([3, 2, 1, 0], -1),
        ([2, 1, 4, 3], 0.6),  # 1 - 6 * 4 / (4 * 15)
        ([1, 1, 1, 1], math.nan),
        ([1, math.nan, math.nan, 2], math.nan),
        ([1, math.nan, 2, 3], 1),
    ],
)
def test_the_rank_correlation_is_spearmans(other, expected):
    found = rank_correlation(np.arange(4.0), np.array(other, float))
    assert found == pytest.approx(expected, nan_ok=True)


def test_a_run_has_a_row_and_all_runs_have_one_together(tmp_path):
    usual = dict.fromkeys(HISTORY_COLUMNS, 1)
    for number in range(3):
        rows = [
            {**usual, "epoch": e, MIOU: 0.1 * e + number, "target/entropy": 1 - 0.1 * e - number}
            for e in range(1, 5)
        ]
        RunFolder(tmp_path / f"run{number}").write_history(rows)
    runs = {path.name: points_of(path) for path in sorted(tmp_path.iterdir())}
    lines = [line.split("|")[1:-1] for line in table(runs).splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines]
    place = 2 + INDICATORS.index("entropy")
    assert cells[2][:2] == ["run0", "10.0 to 40.0"] and cells[2][place] == "-1.00, –"
    assert cells[-1][0] == "last epochs of the 3" and cells[-1][place] == "-1.00"
    assert cells[-1][place + 2] == "–"  # without an average nothing agrees
