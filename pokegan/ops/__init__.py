"""The operators: the Python face of `csrc/`, each with its fake, gradient and plain reference.

`batch_gather`, the grouped spectral norm and the counted randomness are here; nothing above this
floor is imported.
"""

from pokegan.ops.batch_gather import batch_gather
from pokegan.ops.extension import Status, status
from pokegan.ops.spectral_norm import spectral_iterate, spectral_scale, spectral_sigma

__all__ = [
    "Status",
    "batch_gather",
    "spectral_iterate",
    "spectral_scale",
    "spectral_sigma",
    "status",
]
