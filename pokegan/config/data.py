"""The part of a config about pictures: which, how they are prepared, read and changed."""

from dataclasses import dataclass

from pokegan.config.setting import setting

FILTERS = (  # fields of DataConfig and of PrepareOptions: which readable pictures are kept
    *("near_duplicate_distance", "min_size", "max_aspect", "plain_background", "min_foreground"),
)


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they are prepared."""

    source: str = setting(
        "demo", "--data", "a folder, archive or packed set, or: demo, pokeapi, kaggle:OWNER/NAME"
    )
    size: int = setting(64, "--size", "side of the square pictures", unit="px", minimum=8)
    background: str = setting(
        "white", "--background", "what transparency becomes: white, black or #rrggbb"
    )
    fit: str = setting("pad", "--fit", "how a picture becomes square", choices=("pad", "crop"))
    keep_duplicates: bool = setting(False, "--keep-duplicates", "keep exact and near duplicates")
    near_duplicate_distance: float = setting(
        6.5,
        "--near-duplicate-distance",
        "pictures this close count as one, in levels of 0 to 255; 0: only exact duplicates",
        minimum=0.0,
        maximum=255.0,
    )
    min_size: int = setting(
        0, "--min-size", "leave out pictures with a shorter side", unit="px", minimum=0
    )
    max_aspect: float | None = setting(
        None,
        "--max-aspect",
        "leave out pictures so many times longer than their shorter side",
        unset="no limit",
        minimum=1.0,
    )
    plain_background: bool = setting(
        False,
        "--plain-background",
        "leave out pictures whose border is neither transparent nor the background",
    )
    min_foreground: float = setting(
        0.0,
        "--min-foreground",
        "leave out pictures of which a smaller share differs from the background",
        minimum=0.0,
        maximum=1.0,
    )
    flip: bool = setting(True, "--flip", "mirror half of the pictures left to right")
    shift: int = setting(
        0,
        "--shift",
        "move pictures by up to this much, filled with background",
        unit="px",
        minimum=0,
    )
    brightness: float = setting(
        0.0, "--brightness", "scale it by up to 1 plus or minus this", minimum=0.0, maximum=1.0
    )
    contrast: float = setting(
        0.0, "--contrast", "scale it by up to 1 plus or minus this", minimum=0.0, maximum=1.0
    )
    saturation: float = setting(
        0.0, "--saturation", "scale it by up to 1 plus or minus this", minimum=0.0, maximum=1.0
    )
    hue: float = setting(
        0.0,
        "--hue",
        "turn the hue by up to this much of the colour circle",
        minimum=0.0,
        maximum=0.5,
    )
    rotation: float = setting(
        0.0,
        "--rotation",
        "rotate by up to this much, filled with background",
        unit="degrees",
        minimum=0.0,
        maximum=180.0,
    )
    loader: str = setting(
        "auto",
        "--loader",
        "where batches come from: resident in the device's memory, mapped from the disk, or "
        "decoded from the files each epoch by torch or dali; auto: resident where the pictures "
        "take at most a quarter of the free memory, else mapped",
        choices=("auto", "resident", "mapped", "torch", "dali"),
    )
    workers: int | None = setting(
        None,
        "--workers",
        "processes (torch) or threads (dali) that decode pictures",
        unset="one a processor",
        minimum=0,
        maximum=256,
    )
    holdout: int = setting(
        0,
        "--holdout",
        "keep so many pictures out of training, to measure reconstructions on",
        unit="images",
        minimum=0,
    )
