"""The one exception that a user can mend."""


class UserError(ValueError):
    """Wrong data or usage: one sentence that says what, where, and what to do.

    Only this exception is shown as a sentence; any other one is a defect of ours and keeps its
    traceback.
    """
