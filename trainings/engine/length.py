"""The length of a training: the one place that knows what an epoch is. The clock is the step."""

import math
from dataclasses import dataclass

from trainings.options import Settings


@dataclass(frozen=True)
class Length:
    """How many steps a training has, and at which of them it validates and saves.

    A round ends with a row of history.csv. It is an epoch, one pass over the source, unless
    `--validation_steps` makes it the time between two validations.

    Attributes:
        steps_per_epoch, steps_per_round: updates in one epoch, and in one round.
        total_steps: updates of the whole training; the last round may be shorter than the others.
        validation_steps, checkpoint_steps: updates between two validations, and checkpoints.
        round_name: how a round is called in print.
    """

    steps_per_epoch: int
    steps_per_round: int
    total_steps: int
    validation_steps: int
    checkpoint_steps: int
    round_name: str

    @classmethod
    def of(cls, settings: Settings, steps_per_epoch: int) -> "Length":
        """Return the length that the settings ask for, in steps or in epochs."""
        return cls(
            steps_per_epoch,
            settings.validation_steps or steps_per_epoch,
            settings.num_steps or settings.num_epochs * steps_per_epoch,
            settings.validation_steps or settings.validation_step * steps_per_epoch,
            settings.checkpoint_steps or settings.checkpoint_step * steps_per_epoch,
            "round" if settings.validation_steps else "epoch",
        )

    @property
    def rounds(self) -> int:
        return math.ceil(self.total_steps / self.steps_per_round)

    @property
    def epochs(self) -> float:
        return self.epoch_at(self.total_steps)

    def epoch_at(self, step: int) -> float:
        """Return the epochs in so many steps: an int where they are whole, else 4 decimals."""
        whole, rest = divmod(step, self.steps_per_epoch)
        return round(whole + rest / self.steps_per_epoch, 4) if rest else whole

    def end_of_round(self, number: int) -> int:
        """Return the steps made by the end of a round, which is counted from 0."""
        return min((number + 1) * self.steps_per_round, self.total_steps)

    def validates_after(self, step: int) -> bool:
        return step == self.total_steps or step % self.validation_steps == 0

    def saves_after(self, step: int) -> bool:
        return step == self.total_steps or step % self.checkpoint_steps == 0

    def validations_from(self, step: int) -> int:
        """Return the number of validations that are left once so many steps are made."""
        return math.ceil(self.total_steps / self.validation_steps) - step // self.validation_steps
