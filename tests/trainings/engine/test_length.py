import pytest

from main import FlatSettings as Settings
from trainings.engine.length import Length


def test_epochs_and_steps_say_the_same_length():
    epochs = Length.of(Settings(num_epochs=3, validation_step=2, checkpoint_step=3), 10)
    assert (epochs.total_steps, epochs.rounds, epochs.epochs) == (30, 3, 3)
    assert Length.of(Settings(num_steps=30, validation_step=2, checkpoint_step=3), 10) == epochs
    assert [step for step in range(1, 31) if epochs.validates_after(step)] == [20, 30]
    assert [step for step in range(1, 31) if epochs.saves_after(step)] == [30]


@pytest.mark.parametrize("total", [1, 10, 25, 30, 31])
def test_rounds_cover_all_steps_and_validations_are_counted(total):
    for settings in (
        Settings(num_steps=total),
        Settings(num_steps=total, validation_step=2),
        Settings(num_steps=total, validation_steps=7, checkpoint_steps=4),
    ):
        length = Length.of(settings, 10)
        ends = [length.end_of_round(number) for number in range(length.rounds)]
        assert ends == sorted(set(ends)) and ends[-1] == total
        validated = [step for step in range(1, total + 1) if length.validates_after(step)]
        assert set(validated) <= set(ends)
        for done in range(total):
            assert length.validations_from(done) == sum(step > done for step in validated)


def test_an_epoch_is_a_whole_number_or_a_fraction():
    length = Length.of(Settings(num_epochs=2), 3)
    assert [length.epoch_at(step) for step in (0, 3, 4, 6)] == [0, 1, 1.3333, 2]
    assert isinstance(length.epoch_at(3), int)
