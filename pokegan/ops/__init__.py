"""The operators: the Python face of `csrc/`, each with its fake, gradient and plain reference.

Nothing above this floor is imported. The random fills are in `pokegan.ops.random`.
"""

from pokegan.ops.batch_gather import batch_gather
from pokegan.ops.extension import Status, status
from pokegan.ops.soft_labels import label_targets, soft_labels

__all__ = ["Status", "batch_gather", "label_targets", "soft_labels", "status"]
