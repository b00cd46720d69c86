import threading

import pytest

from utils.background import Background


def test_what_was_submitted_is_done_even_when_interrupted():
    """An interrupt does not lose what a long computation has found."""
    started, done = threading.Event(), []

    def slow(number):
        started.wait()
        done.append(number)

    with pytest.raises(KeyboardInterrupt), Background(1) as background:
        for number in range(2):
            background.submit(slow, number)
        started.set()
        raise KeyboardInterrupt
    assert done == [0, 1]
