"""The exceptions of pokegan. This file imports nothing."""


class PokeganError(Exception):
    """Something a user can mend: one line that says what is wrong and what to do.

    The command line prints the message on stderr and exits with code 2.
    """


class ConfigError(PokeganError):
    """A setting is out of range, unknown, or contradicts another one."""


class DataError(PokeganError):
    """Pictures are missing, unreadable, or not what the command expects."""


class DivergedError(PokeganError):
    """A loss is no longer a finite number."""


class CheckpointError(PokeganError):
    """A checkpoint or a weight file is missing, damaged, or of another run."""
