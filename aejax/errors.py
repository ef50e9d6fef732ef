"""The one error that a user, not a programmer, can mend."""


class InputError(ValueError):
    """Bad input: a flag, a setting, data or a checkpoint.

    Its text is one line that names the setting, its value and what would be accepted. Programs
    in `launch` print it and exit with code 2, before anything has been computed.
    """
