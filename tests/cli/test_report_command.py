"""`pokegan report`: of a run, of several, at the end of each run; and the nearest pictures."""

import json
import re
import shutil
from pathlib import Path

import pytest

from pokegan.cli.main import main
from pokegan.config import RunConfig, override
from pokegan.training.session import train


def data_of(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    found = re.search(r'id="report">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_run_ends_with_its_report(tmp_path: Path, tiny: RunConfig) -> None:
    run = train(override(tiny, {"output.plots": True}), tmp_path / "mine")
    data = data_of(run.folder / "report.html")
    (told,) = data["runs"]
    assert told["name"] == data["title"] == "mine"
    assert "6 steps of 8" in told["story"]
    assert {"loss/generator", "loss/discriminator", "memory/peak"} <= set(told["series"])
    assert set(told["gradients"]) == {"generator", "discriminator"}
    assert len(told["samples"]) == len(list((run.folder / "samples").glob("epoch-*.png")))
    assert len(told["neighbours"]) == 12
    facts = dict(told["facts"])
    assert facts["pictures"].startswith("20 of 20 files")
    assert "thread" in facts["device"]
    assert json.loads(told["settings"])["recipe"] == tiny.recipe


def test_several_runs_in_one_file(
    tmp_path: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    one = train(tiny, tmp_path / "a" / "run").folder
    two = shutil.copytree(one, tmp_path / "b" / "run")
    out = tmp_path / "both.html"
    capsys.readouterr()
    assert main(["report", str(one), str(two), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert [run["name"] for run in data_of(out)["runs"]] == ["a/run", "b/run"]


def test_without_its_pictures_the_rest_is_told(tmp_path: Path, tiny: RunConfig) -> None:
    run = train(tiny, tmp_path / "run")
    config = run.folder / "config.json"
    config.write_text(config.read_text().replace(tiny.data.source, str(tmp_path / "gone")))
    assert main(["report", str(run.folder)]) == 0
    (told,) = data_of(run.folder / "report.html")["runs"]
    assert told["contact"] is None
    assert told["neighbours"] == []
    assert told["samples"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["."], "not a run folder"),
        (["x"] * 9, "up to 8"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
