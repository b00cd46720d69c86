"""Places that are spread evenly over a number of things."""

import pytest

from utils.spread import spread


@pytest.mark.parametrize(("count", "at_most"), [(1, 4), (7, 3), (8, 8), (9, 8), (1000, 256)])
def test_numbers_are_spread_over_all_and_no_more_than_asked_for(count, at_most):
    found = spread(count, at_most)
    assert len(found) == min(count, at_most) and found == sorted(set(found))
    assert found[0] == 0 and (count == 1 or found[-1] == count - 1)


def test_nothing_has_no_places_and_the_distances_are_equal():
    assert spread(0, 12) == [] and spread(23, 12) == [*range(0, 23, 2)]
