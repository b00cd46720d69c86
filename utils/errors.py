"""The exceptions that a user can mend."""


class UserError(ValueError):
    """Wrong data: one sentence that says what, where, and what to do.

    Only this exception is shown as a sentence; any other one is a defect of ours and keeps its
    traceback.
    """

    exit_code = 1


class UsageError(UserError):
    """Wrong usage: settings that cannot go together, found after the parser has let them in."""

    exit_code = 2
