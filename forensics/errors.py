"""Errors that the user can fix."""


class UserError(Exception):
    """An error that the user can fix.

    The text is one sentence that names the setting, file or folder and says what to do; entry
    points print it without a traceback and exit with a nonzero code.

    Attributes:
        key: the setting or file at fault, for programs and tests; None if there is no single one.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key
