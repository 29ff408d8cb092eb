"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: one line naming the thing, what was expected and what was found.

    Commands print it without a traceback and exit with code 2.
    """


class Stopped(BaseException):
    """A signal ended a command before its end; what was done until then is saved.

    No Exception, as KeyboardInterrupt is none: libraries that try something and go on without it would swallow it.
    Commands exit with code 128 + `signal_number`: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, signal_number: int):
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


def escaped(text: str) -> str:
    """Text in which every character that can't be seen is written as in Python."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )
