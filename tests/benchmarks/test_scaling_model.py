"""The model of a step's time against a simulated ring, layers by hand, and itself turned round."""

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pokegan import recipes
from pokegan.config import override
from pokegan.errors import ConfigError
from pokegan.objectives.phases import StepInput
from pokegan.training.build import build_phases
from pokegan.training.networks import build_networks

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HOP, RATE = 3e-6, 5e9


@pytest.fixture(scope="module", autouse=True)
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


@pytest.fixture(scope="module")
def times(scripts: None) -> ModuleType:
    return importlib.import_module("step_time")


@pytest.fixture(scope="module")
def costs(scripts: None) -> ModuleType:
    return importlib.import_module("step_cost")


@pytest.fixture(scope="module")
def model(scripts: None) -> ModuleType:
    return importlib.import_module("scaling_model")


@pytest.fixture(scope="module")
def hpml(costs: ModuleType):
    return costs.step_cost("hpml", 64)


def simulated_ring(chunk: float, hops: list[float], rate: float) -> tuple[float, float]:
    """Send real numbers around a ring; return when all ranks have them all: gathered, summed.

    In each step a rank passes on the chunk that reached it in the step before, once its link has
    sent the one before that.
    """
    count = len(hops)
    rng = random.Random(count)
    own = [[rng.random() for _ in range(count)] for _ in range(count)]
    held = [list(values) for values in own]
    there, free = [0.0] * count, [0.0] * count  # when a chunk came; when the link out is idle
    finished = []
    for step in range(2 * (count - 1)):
        sent, arrivals = [], []
        for rank in range(count):
            place = (rank - step) % count
            begin = max(there[rank], free[rank])
            free[rank] = begin + chunk / rate
            arrivals.append(free[rank] + hops[rank])
            sent.append((place, held[rank][place]))
        for rank in range(count):
            place, value = sent[rank - 1]
            adds = step < count - 1
            held[rank][place] = held[rank][place] + value if adds else value
            there[rank] = arrivals[rank - 1]
        finished.append(max(there))
    for place in range(count):
        whole = sum(values[place] for values in own)
        assert all(values[place] == pytest.approx(whole) for values in held)
    return finished[count - 2], finished[-1]


@pytest.mark.parametrize("count", [2, 3, 5, 8, 16])
@pytest.mark.parametrize("size", [0.0, 1e3, 1e7])
def test_exchanges_take_what_a_simulated_ring_takes(
    times: ModuleType, count: int, size: float
) -> None:
    path = times.Path(0.0, HOP, 1.0, RATE, 1.0)
    gathered, summed = simulated_ring(size / count, [HOP] * count, RATE)
    assert path.all_reduce(size, count) == pytest.approx(summed, rel=1e-9)
    assert path.all_gather(size / count, count) == pytest.approx(gathered, rel=1e-9)


@pytest.mark.parametrize(("hosts", "each"), [(2, 4), (3, 4), (4, 8)])
def test_over_several_hosts_the_latency_is_that_of_the_ring_but_for_two_hops(
    times: ModuleType, hosts: int, each: int
) -> None:
    far = 9 * HOP
    hops = ([HOP] * (each - 1) + [far]) * hosts
    _, summed = simulated_ring(0.0, hops, RATE)
    counted = times.Path(0.0, HOP, far, RATE, RATE).all_reduce(0.0, hosts * each, hosts)
    assert counted <= summed * (1 + 1e-9)
    assert summed <= counted + 2 * (far - HOP) + 1e-12


def test_the_slower_link_counts_and_one_rank_exchanges_nothing(times: ModuleType) -> None:
    path = times.Path(0.0, 0.0, 0.0, 8e9, 2e9)
    assert path.all_reduce(1e9, 16, 2) == pytest.approx(2 * 15 / 16 * 1e9 / 2e9)
    assert path.all_reduce(1e9, 8, 1) == pytest.approx(2 * 7 / 8 * 1e9 / 8e9)
    assert path.all_reduce(1e9, 1) == path.all_gather(1e9, 1) == 0


def test_a_layers_operations_are_those_by_hand(costs: ModuleType) -> None:
    layer = nn.Conv2d(3, 64, 4, 2, 1, bias=False, device="meta")
    wide = nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False, device="meta")
    images = torch.empty(5, 3, 64, 64, device="meta")
    maps = torch.empty(5, 128, 16, 16, device="meta", requires_grad=True)
    with costs._Notes() as notes:
        layer(images).sum().backward()
    flops = [flops for flops, _ in notes.operators if flops]
    forward = 5 * 2 * (32 * 32) * 64 * (3 * 4 * 4)
    assert flops == [forward, forward]  # and its gradient by the weight; pictures need none
    elements = 5 * 3 * 64 * 64 + 64 * 3 * 4 * 4 + 5 * 64 * 32 * 32
    assert notes.operators[0] == (forward, elements)
    with costs._Notes() as notes:
        wide(maps).sum().backward()
    forward = 5 * 2 * (16 * 16) * 128 * (64 * 4 * 4)
    assert [flops for flops, _ in notes.operators if flops] == [forward, 2 * forward]


def test_a_step_has_the_operations_that_torch_counts(costs: ModuleType, hpml) -> None:
    batch = 6
    config = override(recipes.get("hpml"), {"data.size": 64})
    networks = {name: one.to("meta") for name, one in build_networks(config).items()}
    inputs = StepInput(
        torch.empty(batch, 3, 64, 64, device="meta"),
        torch.empty(batch, dtype=torch.int64, device="meta"),
        torch.empty((), dtype=torch.int64, device="meta"),
    )
    with FlopCounterMode(display=False) as counter:
        for phase in build_phases(config, networks, (255, 255, 255), None):
            for name in phase.frozen:
                networks[name].requires_grad_(False)
            phase.loss(inputs).loss.backward()
    counted = sum(operator.at(batch)[0] for operator in hpml.operators)
    assert counted == counter.get_total_flops()
    assert hpml.flops_per_picture == pytest.approx(counted / batch)


def test_parameters_and_exchanges_are_those_by_hand(hpml) -> None:
    critic = 16 * (3 * 64 + 64 * 128 + 128 * 128 + 128 * 128 + 128) + 2 * (64 + 3 * 128)
    assert hpml.parameters["discriminator"] == critic
    assert sorted(hpml.gradients) == sorted(4 * count for count in hpml.parameters.values())
    # Forwards G, D(x), D(G(z)), and D(G(z)) again; backwards D twice, and D and G. 4 norms each.
    assert len(hpml.gathers) == len(hpml.sums) == 16
    sides = 64 + 3 * 128  # channels of the norms of either network
    assert sum(hpml.gathers) == sum(hpml.sums) == 4 * 2 * 4 * sides


def test_what_a_step_takes(times: ModuleType, costs: ModuleType) -> None:
    operators = (
        costs.Operator((0.0, 1e6), (0.0, 1e3)),  # arithmetic is longer
        costs.Operator((0.0, 0.0), (5e6, 1e3)),  # memory alone
    )
    cost = costs.StepCost("any", 64, 32, {}, operators, (1000, 3000), (10,), (20,))
    paths = (times.Path(1e-6, 2e-6, 0.0, 1e9, 1e9),)
    machine = times.Machine("any", 1e12, 1e12, paths, "")
    step = times.step_time(cost, 8, 2, machine, 0.5)
    assert step.compute == pytest.approx(2 * (8e6 / 1e12 + 2 * (5e6 + 8e3) / 1e12))
    assert step.launches == pytest.approx(2 * times.LAUNCH)
    assert step.gradients == pytest.approx(2 * (1e-6 + 4e-6) + 4000 / 1e9)
    assert step.norms == pytest.approx((1e-6 + 2e-6 + 10 / 1e9) + (1e-6 + 4e-6 + 20 / 1e9))
    parts = (step.compute, step.launches, step.gradients, step.norms)
    assert step.total == pytest.approx(sum(parts))
    assert step.overlapped == pytest.approx(step.total - min(step.compute, step.gradients))
    assert times.step_time(cost, 8, 2, machine, 0.5, shared_norms=False).norms == 0


def test_what_no_step_can_be_faster_than(times: ModuleType, costs: ModuleType) -> None:
    operators = (
        costs.Operator((10.0, 1e6), (500.0, 1e3)),  # a convolution
        costs.Operator((0.0, 0.0), (0.0, 4e3)),  # what can be fused into it
        costs.Operator((0.0, 0.0), (14.0 * 250, 0.0)),  # the update, that of the gradient
    )
    cost = costs.StepCost("any", 64, 32, {}, operators, (1000,), (), ())
    machine = times.Machine("any", 1e12, 1e9, (), "")
    arithmetic, memory = times.floor(cost, 8, machine)
    assert arithmetic == pytest.approx((10 + 8e6) / 1e12)
    assert memory == pytest.approx((2 * (500 + 8e3) + 7 * 1000) / 1e9)


def test_where_it_stops_paying(times: ModuleType) -> None:
    assert times.pays_up_to((1, 2, 4, 8), (10, 19, 30, 44)) == 4
    assert times.pays_up_to((1, 2, 4), (10, 20, 40)) == 4
    assert times.pays_up_to((1, 2, 4), (10, 14, 28)) == 1


def test_a_fit_finds_what_was_put_in(times: ModuleType, model: ModuleType) -> None:
    path = times.Path(0.0, HOP, HOP, RATE, RATE)
    found = model.fit_path([(size, path.all_reduce(size, 2)) for size in model.SIZES])
    assert found.hop == pytest.approx(HOP)
    assert found.rate == pytest.approx(RATE)
    assert model.fit_line([(1, 4.0), (2, 2.0)])[1] == 0  # never a negative time
    assert model.fit_line([(1, 1.0), (2, 3.0)])[0] == 0
    assert model.fit_line([(4, 8.0)]) == (0.0, 2.0)


def test_the_steps_that_scaling_measured_are_explained(
    times: ModuleType, model: ModuleType, hpml, tmp_path: Path
) -> None:
    scaling = importlib.import_module("scaling")
    path = times.Path(0.0, 1e-4, 1e-4, 1e9, 1e9)
    for kind in ("strong", "weak"):
        results = []
        for ranks in (1, 2):
            batch = 128 * (ranks if kind == "weak" else 1)
            exchange = times.gradient_exchange(hpml, ranks, [path])
            exchange += times.norm_exchange(hpml, ranks, [path])
            rate = batch / (0.02 + 0.003 * batch / ranks + exchange)
            results.append(
                scaling.Result(
                    device="any",
                    ranks=ranks,
                    recipe="hpml",
                    size=64,
                    precision="bf16",
                    batch=batch,
                    epochs=3,
                    seconds=60,
                    generator_loss=0.5,
                    discriminator_loss=0.25,
                    images_per_second=rate,
                    efficiency=1.0,
                    use_percent=50,
                    memory_gib=1,
                    command="",
                    samples=[(0.5 * n, [50.0 + n], [1.0]) for n in range(9)],
                )
            )
            scaling.graphs(results[-1], tmp_path)
        (tmp_path / kind).mkdir()
        scaling.write(Namespace(out=tmp_path / kind, recipe="hpml", scaling=kind), results)
    assert (tmp_path / "ranks-2-compute.png").stat().st_size > 1000
    assert (tmp_path / "ranks-2-memory.png").stat().st_size > 1000
    assert (
        "| any | 2 | 3 | 60.00 | 0.500000 | 0.250000 |"
        in (tmp_path / "weak/scaling.md").read_text()
    )
    read = model.read_results([tmp_path / kind / "scaling.json" for kind in ("strong", "weak")])
    lines = model._steps(read, hpml, path)
    assert lines[0].startswith("hpml, 64 px, bf16: 20.0 ms a step and 3.000 ms a picture")
    assert len(lines) == 4 + 4
    assert all(line.endswith(("| +0 % |", "| -0 % |")) for line in lines[4:])


def test_on_gpus_records_grids_and_checkpoints_are_rare(scripts: None) -> None:
    scaling = importlib.import_module("scaling")
    given = Namespace(recipe="hpml", data="demo", epochs=2.5, scaling="strong")
    given.log_every, given.rest = None, ["--seed", "3"]
    slow, fast = (scaling.training(given, 1, one, Path("out")) for one in ("cpu", "cuda"))
    assert slow[slow.index("--log-every") + 1] == "5"
    assert fast[fast.index("--log-every") + 1] == "200"
    assert "--sample-every" not in slow
    assert {"--sample-every", "--checkpoint-every"} <= set(fast)
    assert slow[:6] == [
        *("-m", "torch.distributed.run", "--standalone"),
        *("--local-addr", "127.0.0.1", "--nproc-per-node"),
    ]
    assert slow[-2:] == fast[-2:] == ["--seed", "3"]


@pytest.fixture
def jobs(scripts: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen]]:
    """The jobs that `scaling.measure` starts, which sleep."""
    scaling = importlib.import_module("scaling")
    started: list[subprocess.Popen] = []
    start = subprocess.Popen

    def note(command: list[str]) -> subprocess.Popen:
        started.append(start(command))
        return started[-1]

    monkeypatch.setattr(scaling, "training", lambda *_: ["-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(scaling.subprocess, "Popen", note)
    yield started
    for job in started:
        job.kill()
        job.wait()


def test_nothing_runs_where_nothing_can_be_read(
    jobs: list[subprocess.Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling = importlib.import_module("scaling")
    for device, module in (("cpu", "psutil"), ("cuda", "pynvml")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SystemExit, match="pip install"):
            scaling.measure(Namespace(out=Path("out"), one_core=False), 1, device)
    assert jobs == []


def test_a_job_that_is_not_waited_for_is_ended(
    jobs: list[subprocess.Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling = importlib.import_module("scaling")

    def interrupt(meter: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scaling, "readings", lambda *_: None)
    monkeypatch.setattr(scaling.Meter, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        scaling.measure(Namespace(out=Path("out"), one_core=False), 1, "cpu")
    assert [job.returncode for job in jobs] == [-signal.SIGTERM]


def test_the_gpus_that_are_read_are_those_that_train(
    scripts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling = importlib.import_module("scaling")
    use = {"GPU-a": 11, "GPU-b": 22, "GPU-c": 33}  # in NVML's order
    visible = [Namespace(uuid="c"), Namespace(uuid="a")]
    nvml = Namespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: list(use)[index],
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetUtilizationRates=lambda gpu: Namespace(gpu=use[gpu]),
        nvmlDeviceGetMemoryInfo=lambda gpu: Namespace(used=2**30),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", visible.__getitem__)
    assert scaling.readings("cuda", 2)(0) == ([33.0, 11.0], [1.0, 1.0])


@pytest.mark.skipif(not shutil.which("taskset"), reason="util-linux is not here")
def test_a_job_has_as_many_cores_as_ranks(scripts: None) -> None:
    scaling = importlib.import_module("scaling")
    for count in range(1, len(os.sched_getaffinity(0)) + 1):
        code = "import os; print(len(os.sched_getaffinity(0)))"
        command = [*scaling.pinned(count), sys.executable, "-c", code]
        assert int(subprocess.check_output(command)) == count


def test_samples_before_the_first_record_do_not_count(scripts: None) -> None:
    scaling = importlib.import_module("scaling")
    samples = [(float(n), [10.0 * n], [1.0]) for n in range(5)]
    assert scaling.between(samples, 2.0, 3.0) == samples[2:4]
    assert scaling.between(samples, 7.0, 8.0) == samples  # a run of one record has no others


def test_another_file_is_refused(model: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"results": [{"batch": 3}]}))
    with pytest.raises(ValueError, match=r"other.json: not a scaling.json"):
        model.read_results([tmp_path / "other.json"])


def test_a_recipe_that_cannot_be_counted_is_named(costs: ModuleType) -> None:
    with pytest.raises(ConfigError, match="gan-pokemon-sngan: a step of it cannot run"):
        costs.step_cost("gan-pokemon-sngan", 64)


def test_pages_are_filled_between_their_marks(model: ModuleType) -> None:
    page = "a\n<!-- measured: scaling_model.py -->\nold\n<!-- end of measured -->\nb\n"
    once = model.filled(page, {"measured": r"new \1"})
    assert once.startswith("a\n<!-- measured")
    assert once.endswith("<!-- end of measured -->\nb\n")
    assert r"new \1" in once
    assert "old" not in once
    assert model.filled(once, {"measured": r"new \1"}) == once
    with pytest.raises(ValueError, match="lacks the marks"):
        model.filled(page, {"predicted": "new"})


def test_the_page_has_what_the_model_predicts_now(model: ModuleType, hpml) -> None:
    page = (BENCHMARKS.parent / "docs/scaling.md").read_text(encoding="utf-8")
    if f"Counted on the networks, torch {model.version()}:" not in page:
        pytest.skip("the page was written with another torch, whose steps have other operators")
    machine = importlib.import_module("step_time").MACHINES[0]
    for scaling in ("strong", "weak"):
        assert model._rates([hpml], machine, scaling)[-1] in page
    for row in model._costs([hpml])[2:] + model._parts([hpml], machine)[2:]:
        assert row in page
