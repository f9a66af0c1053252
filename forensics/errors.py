"""How the project tells a user that something is wrong."""


class UserError(Exception):
    """Something the user can mend.

    The text is one sentence that names the setting, file or folder and says what to do; entry
    points print it without a traceback and exit with a code other than 0.
    """
