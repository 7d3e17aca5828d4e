"""`RunConfig` and its parts: everything that makes a run, and nothing else.

Frozen dataclasses. A field that a user can set carries its command-line flag, so that messages and
`--help` come from here alone.
"""

from pokegan.config.data import FILTERS, DataConfig
from pokegan.config.parts import (
    AutoencodingConfig,
    LatentConfig,
    LengthConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    OutputConfig,
    ScheduleConfig,
    TrainingConfig,
)
from pokegan.config.run import RESUMABLE, SAME_BATCHES, RunConfig, override, same_batches, settings
from pokegan.config.setting import Setting, interval

__all__ = [
    "FILTERS",
    "RESUMABLE",
    "SAME_BATCHES",
    "AutoencodingConfig",
    "DataConfig",
    "LatentConfig",
    "LengthConfig",
    "NetworkConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "OutputConfig",
    "RunConfig",
    "ScheduleConfig",
    "Setting",
    "TrainingConfig",
    "interval",
    "override",
    "same_batches",
    "settings",
]
