"""The operators: the Python face of `csrc/`, each with its fake, gradient and plain reference.

Nothing above this floor is imported. The random fills are in `pokegan.ops.random`.
"""

from pokegan.ops.batch_gather import batch_gather
from pokegan.ops.batch_norm_act import (
    batch_norm_act,
    batch_norm_act_backward,
    batch_norm_act_sums,
    batch_norm_moments,
)
from pokegan.ops.conv import (
    conv2d_bf16,
    conv2d_split,
    conv_transpose2d_bf16,
    conv_transpose2d_split,
    conv_units,
)
from pokegan.ops.conv_choice import (
    conv2d,
    conv2d_moments,
    conv_transpose2d,
    conv_transpose2d_moments,
)
from pokegan.ops.conv_summed import (
    conv2d_moments_bf16,
    conv2d_norm_sums_bf16,
    conv_transpose2d_moments_bf16,
    conv_transpose2d_norm_sums_bf16,
)
from pokegan.ops.diff_augment import diff_augment
from pokegan.ops.dropout import dropout
from pokegan.ops.extension import Status, status
from pokegan.ops.soft_labels import label_targets, soft_labels
from pokegan.ops.spectral_norm import spectral_iterate, spectral_scale, spectral_sigma

__all__ = [
    "Status",
    "batch_gather",
    "batch_norm_act",
    "batch_norm_act_backward",
    "batch_norm_act_sums",
    "batch_norm_moments",
    "conv2d",
    "conv2d_bf16",
    "conv2d_moments",
    "conv2d_moments_bf16",
    "conv2d_norm_sums_bf16",
    "conv2d_split",
    "conv_transpose2d",
    "conv_transpose2d_bf16",
    "conv_transpose2d_moments",
    "conv_transpose2d_moments_bf16",
    "conv_transpose2d_norm_sums_bf16",
    "conv_transpose2d_split",
    "conv_units",
    "diff_augment",
    "dropout",
    "label_targets",
    "soft_labels",
    "spectral_iterate",
    "spectral_scale",
    "spectral_sigma",
    "status",
]
