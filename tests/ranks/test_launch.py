"""What one process makes of torchrun's environment, before and without the others."""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pokegan.cli.main import main
from pokegan.config import RunConfig, override
from pokegan.errors import ConfigError, PokeganError
from pokegan.monitor.accumulate import Accumulator
from pokegan.training import run_folder
from pokegan.training.checks import check_ranks
from pokegan.training.distributed import Ranks, use_device
from pokegan.training.launch import Launch
from pokegan.training.run import Run
from pokegan.training.session import resume, train

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RUN_ID": "a job",
    "TORCHELASTIC_RESTART_COUNT": "3",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_environment_of_torchrun(environment: pytest.MonkeyPatch) -> None:
    launch = Launch.from_environment()
    assert (launch.rank, launch.world, launch.local_rank, launch.local_world) == (1, 4, 1, 2)
    assert launch.restarts == 3
    assert not launch.is_main
    environment.setenv("RANK", "3")
    assert Launch.from_environment().job == launch.job != ""
    environment.setenv("TORCHELASTIC_RUN_ID", "another job")
    assert Launch.from_environment().job != launch.job


def test_without_torchrun_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    assert Launch.from_environment() == Launch()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RANK", None, "WORLD_SIZE 4 without RANK: start several ranks by torchrun"),
        ("RANK", "4", "RANK 4 of WORLD_SIZE 4"),
        ("LOCAL_RANK", "2", "LOCAL_RANK 2 of LOCAL_WORLD_SIZE 2"),
        ("WORLD_SIZE", "two", "WORLD_SIZE 'two' in the environment"),
    ],
)
def test_an_environment_that_cannot_be(
    name: str, value: str | None, words: str, environment: pytest.MonkeyPatch
) -> None:
    environment.delenv(name) if value is None else environment.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        Launch.from_environment()


def test_one_process_a_host_tells_of_wrong_arguments(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["train", "--loss", "best"], ["train", "--batch", "1"], ["train", "nothing"]):
        for local_rank, told in (("1", 0), ("0", 1)):
            environment.setenv("LOCAL_RANK", local_rank)
            environment.setenv("WORLD_SIZE", "4")
            assert main(wrong) == 2
            assert capsys.readouterr().err.count("error:") == told


def test_what_a_run_says_is_in_a_log_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = (tmp_path / "log").open("w", buffering=1 << 16)  # as stdout of a batch job
    found: list[str] = []

    def look(config: RunConfig, out: Path, say: Callable[[str], None], *rest: object) -> Run:
        say("run       here")
        found.append((tmp_path / "log").read_text())
        raise ConfigError("enough")

    monkeypatch.setattr("pokegan.training.session.train", look)
    monkeypatch.setattr("sys.stdout", log)
    with log:
        assert main(["train"]) == 2
    assert found == ["run       here\n"]


def test_a_batch_that_cannot_be_shared(tiny: RunConfig) -> None:
    check_ranks(override(tiny, {"training.batch": 12}), 3)
    with pytest.raises(ConfigError, match=r"--batch 13 on 4 ranks: .* give 12 or 16"):
        check_ranks(override(tiny, {"training.batch": 13}), 4)
    with pytest.raises(ConfigError, match=r"--batch 3 on 8 ranks: .* give 8"):
        check_ranks(override(tiny, {"training.batch": 3}), 8)
    alone = {"training.batch": 4, "training.sync_batchnorm": "off"}
    with pytest.raises(ConfigError, match="one image alone has no variance; give --batch 8 or"):
        check_ranks(override(tiny, alone), 4)


def test_shares_of_a_batch_are_all_of_it() -> None:
    alone = Ranks()
    assert alone.share(24, 12) == (24, 12)
    assert not alone.several
    torch.testing.assert_close(alone.gather(torch.ones(3)), torch.ones(1, 3))
    torch.testing.assert_close(alone.mean(torch.ones(3)), torch.ones(3))


def test_weak_scaling_on_one_rank_changes_nothing(tiny: RunConfig, tmp_path: Path) -> None:
    config = override(tiny, {"length.steps": 2, "training.scaling": "weak"})
    run = train(config, tmp_path / "weak")
    assert run.images == 2 * config.training.batch
    read = run_folder.find(run.folder).read_config()
    assert (read.training.batch, read.training.scaling) == (config.training.batch, "strong")


class Three(Ranks):
    """As many, of which the other two are not there."""

    @property
    def count(self) -> int:
        return 3


def test_weak_scaling_goes_on_where_its_batch_can_be_shared(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = override(tiny, {"length.steps": 2, "training.scaling": "weak"})
    assert weak.training.batch == 8
    train(weak, tmp_path / "run")
    monkeypatch.setattr(
        "pokegan.training.session.joined", lambda _: contextlib.nullcontext(Three())
    )
    longer = override(weak, {"length.steps": 3})
    with pytest.raises(ConfigError, match=r"--batch 8 on 3 ranks: .* give 6 or 9"):
        train(longer, tmp_path / "run", go_on=True)


def test_a_started_again_job_continues_its_run(tiny: RunConfig, tmp_path: Path) -> None:
    config = override(tiny, {"length.steps": 4, "output.checkpoint_every": 2})
    whole = train(config, tmp_path / "whole")
    first = train(override(config, {"length.steps": 2}), tmp_path / "parts", go_on=True)
    assert first.steps == 2
    said: list[str] = []
    again = train(config, tmp_path / "parts", said.append, go_on=True)
    assert any("from step 2" in line for line in said)
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    assert train(config, tmp_path / "parts", go_on=True).steps == 4  # at its end: nothing to do
    with pytest.raises(ConfigError, match="parts holds another run: choose another --out"):
        train(override(config, {"training.seed": 5}), tmp_path / "parts", go_on=True)


def test_only_a_job_that_was_restarted_takes_what_it_had(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    job = Launch.from_environment().job
    made = run_folder.create(tiny, None, job)
    assert run_folder.begun(None, job) == str(made.path)
    assert run_folder.begun(made.path, job) == str(made.path)
    assert run_folder.begun(None, "another") == ""
    assert run_folder.begun(made.path, "another") == ""
    assert run_folder.begun(made.path, "") == str(made.path)
    assert run_folder.begun(tmp_path / "nothing", "") == ""


def test_a_new_job_of_an_old_name_does_not_go_on_in_the_old_run(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setattr("pokegan.training.joining._sessions", itertools.repeat(0))
    short = override(tiny, {"length.steps": 1})
    old = train(short)
    with pytest.raises(PokeganError):  # the new job fails before it has a folder
        train(override(short, {"data.source": str(tmp_path / "nothing")}))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    new = train(override(tiny, {"length.steps": 2}))
    assert new.folder != old.folder
    assert train(override(tiny, {"length.steps": 2})).folder == new.folder  # its own it finds


def test_a_refused_job_of_an_old_name_is_refused_again_when_it_is_restarted(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setattr("pokegan.training.joining._sessions", itertools.repeat(0))
    out = tmp_path / "run"
    weights = train(override(tiny, {"length.steps": 1}), out).weights.read_bytes()
    longer = override(tiny, {"length.steps": 2})
    for restarts in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        with pytest.raises(ConfigError, match="run: exists and is not empty"):
            train(longer, out)
    assert (out / "generator.safetensors").read_bytes() == weights


def test_a_resumed_job_that_is_restarted_at_its_end_has_nothing_to_do(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(override(tiny, {"length.steps": 2}), tmp_path / "run")
    longer = {"length.steps": 3}
    made = resume(tmp_path / "run", longer).weights.read_bytes()
    with pytest.raises(ConfigError, match="already at step 3 of 3"):
        resume(tmp_path / "run", longer)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = resume(tmp_path / "run", longer)
    assert again.steps == 3
    assert again.weights.read_bytes() == made
    with pytest.raises(ConfigError, match="already at step 3 of 2"):
        resume(tmp_path / "run", {"length.steps": 2})
    assert run_folder.find(tmp_path / "run").read_config().length.steps == 3


def test_a_start_that_fails_leaves_no_folder(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokegan.data.loaders.free_bytes", lambda device: 100)
    with pytest.raises(ConfigError, match="--loader resident: the pictures take"):
        train(override(tiny, {"data.loader": "resident"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    mapped = override(tiny, {"data.loader": "mapped", "length.steps": 1})
    assert train(mapped, tmp_path / "run").steps == 1


def test_a_folder_in_use_is_not_forgotten(tiny: RunConfig, tmp_path: Path) -> None:
    made = run_folder.create(tiny, tmp_path / "run", "one")
    with made.locked():
        run_folder.forget("one", made.path)
        assert run_folder.begun(made.path, "one")
    run_folder.forget("another", made.path)
    assert run_folder.begun(made.path, "one")
    run_folder.forget("one", made.path)
    assert not run_folder.begun(made.path, "one")
    assert run_folder.begun(made.path, "")  # the run itself is there


def test_cores_are_divided_over_the_ranks_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # torchrun's default
        use_device(Launch(local_world=4, world=4), torch.device("cpu"))
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        torch.set_num_threads(1)
        use_device(Launch(local_world=4, world=4), torch.device("cpu"))
        assert torch.get_num_threads() == 1  # the user's number is torch's already
    finally:
        torch.set_num_threads(before)


def test_a_gpu_for_each_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"4 ranks on this host have 2 GPUs; .*-per-node 2"):
        use_device(Launch(rank=2, world=4, local_rank=2, local_world=4), torch.device("cuda"))


def test_means_over_ranks_are_recorded() -> None:
    sums = Accumulator()
    sums.add({"a": torch.tensor(1.0), "b": torch.tensor(4.0)})
    sums.merge(lambda values: values / 2)
    sums.add({"a": torch.tensor(2.5)})
    assert sums.peek() == {"a": 1.5, "b": 2.0}
    sums.clear()
    assert sums.read() == {}
