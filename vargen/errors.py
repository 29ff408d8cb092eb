"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: one line naming the thing, what was expected and what was found.

    Commands print it without a traceback and exit with code 2.
    """
