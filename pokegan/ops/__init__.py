"""The operators: the Python face of `csrc/`, each with its fake, gradient and plain reference.

`batch_gather` and the counted randomness are here; nothing above this floor is imported.
"""

from pokegan.ops.batch_gather import batch_gather
from pokegan.ops.extension import Status, status

__all__ = ["Status", "batch_gather", "status"]
