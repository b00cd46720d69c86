"""Which steps of a plan need which others, by the folders that they fill and read."""

from collections.abc import Sequence

from trainings.reproduction.plan import PlannedStep


def needs(plan: Sequence[PlannedStep]) -> list[set[int]]:
    """Return for each step the numbers of the earlier ones that fill a folder it reads or fills."""
    fills = [{step.folder, *(command.folder for command in step.commands)} for step in plan]
    touches = [
        own | {path.parent for command in step.commands for path in command.made_from}
        for step, own in zip(plan, fills, strict=True)
    ]
    return [
        {earlier for earlier in range(number) if fills[earlier] & touched}
        for number, touched in enumerate(touches)
    ]


def chains(needed: Sequence[set[int]], seconds: Sequence[float]) -> list[float]:
    """Return for each step the seconds from its start to the end of the last step that waits for
    it, if no step ever waits for a free process."""
    chain = list(seconds)
    for number in reversed(range(len(chain))):  # a step needs earlier ones alone
        for earlier in needed[number]:
            chain[earlier] = max(chain[earlier], seconds[earlier] + chain[number])
    return chain
