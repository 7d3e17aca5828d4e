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


class RankError(PokeganError):
    """A rank does not answer: it is stuck, or gone."""


class PeerError(PokeganError):
    """Another rank has failed and told why; this one ends too and has nothing to add.

    `code` is the exit code.
    """

    def __init__(self, code: int = 1) -> None:
        super().__init__("another rank has failed")
        self.code = code
