"""Which pictures of a set are unlike the others, by a rule that outliers cannot mislead.

The modified z-score of Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993:
M = 0.6745 (x - median) / MAD, with MAD the median of |x - median|. Where more than half of the
values are equal, so that MAD is 0, their second formula holds: M = (x - median) / (1.253314 MeanAD)
with the mean instead of the median.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pokegan.data.measures import Measures

THRESHOLD = 3.5  # as they recommend
FEWEST = 10  # pictures; of fewer the median says little

_BY_MEDIAN = 0.6745
_BY_MEAN = 1.253314
_MEASURES = ("brightness", "contrast", "saturation", "foreground", "layout")


@dataclass(frozen=True)
class Outlier:
    """Picture `index` of a set stands out by `measure`, which has the `value`; others, `median`.

    `score` is the modified z-score; negative: less than others have.
    """

    index: int
    measure: str
    value: float
    median: float
    score: float


def find_outliers(measures: Measures) -> list[Outlier]:
    """The pictures whose score is beyond `THRESHOLD` by any measure, the farthest out first.

    Each comes once, with the measure by which it stands out most. A picture near the median layout
    is none. Sets of fewer than `FEWEST` pictures have no outliers.
    """
    if len(measures.layout) < FEWEST:
        return []
    scores = np.stack([modified_z_scores(getattr(measures, name)) for name in _MEASURES])
    scores[-1] = np.maximum(scores[-1], 0)
    worst = np.abs(scores).argmax(axis=0)  # [N]
    found = []
    for i in np.flatnonzero(np.abs(scores).max(axis=0) > THRESHOLD).tolist():
        values = getattr(measures, _MEASURES[worst[i]])
        score, median = float(scores[worst[i], i]), float(np.median(values))
        found.append(Outlier(i, _MEASURES[worst[i]], float(values[i]), median, score))
    return sorted(found, key=lambda outlier: (-abs(outlier.score), outlier.index))


def modified_z_scores(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The modified z-scores of values [N]: [N]; all 0 where the values are all equal."""
    apart = values.astype(np.float64) - np.median(values)
    spread = float(np.median(np.abs(apart))) / _BY_MEDIAN
    if spread == 0:
        spread = float(np.abs(apart).mean()) * _BY_MEAN
    return apart / spread if spread > 0 else np.zeros_like(apart)
