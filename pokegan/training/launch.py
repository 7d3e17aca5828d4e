"""What `torchrun` told this process: which rank it is, of how many, after how many restarts.

Reads the environment; imports no torch, so that the command line can ask before anything is loaded.
"""

import hashlib
import os
import socket
from dataclasses import dataclass

from pokegan.errors import ConfigError

_NEEDED = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """One process of a job.

    Attributes:
        rank: of this process in the job, from 0.
        world: processes in the job.
        local_rank: of this process on its host, from 0.
        local_world: processes of the job on this host.
        restarts: how often torchrun has restarted the job.
        job: of torchrun, the same text after its restarts and another one for other jobs; else "".
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    restarts: int = 0
    job: str = ""

    @classmethod
    def from_environment(cls) -> "Launch":
        """Return what the environment says; one process alone where it says nothing.

        Raises:
            ConfigError: it contradicts itself.
        """
        world = _number("WORLD_SIZE", 1)
        missing = [name for name in _NEEDED if name not in os.environ]
        if world > 1 and missing:
            raise ConfigError(
                f"WORLD_SIZE {world} without {missing[0]}: start several ranks by torchrun "
                f"--nproc-per-node {world} -m pokegan train ..., or unset WORLD_SIZE"
            )
        rank, local_rank = _number("RANK", 0), _number("LOCAL_RANK", 0)
        local_world = _number("LOCAL_WORLD_SIZE", 1)
        if not (0 <= rank < world and 0 <= local_rank < local_world <= world):
            raise ConfigError(
                f"RANK {rank} of WORLD_SIZE {world} and LOCAL_RANK {local_rank} of "
                f"LOCAL_WORLD_SIZE {local_world} cannot be; start several ranks by torchrun"
            )
        restarts = _number("TORCHELASTIC_RESTART_COUNT", 0)
        return cls(rank, world, local_rank, local_world, restarts, _job())

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes."""
        return self.rank == 0

    @property
    def speaks(self) -> bool:
        """Whether this process tells what is wrong before the ranks know each other."""
        return self.local_rank == 0


def _job() -> str:
    """Name the job: by its rendezvous id, or else by the torchrun that is its parent."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if not name:
        return ""
    if name == "none":  # torchrun's default
        name = f"{socket.gethostname()} {os.getppid()}"
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} {text!r} in the environment: a whole number is wanted") from None
