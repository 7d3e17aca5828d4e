"""Every command and flag of docs/coming-from.md runs, on a few pictures and for a few steps."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pokegan.cli.main import main

DOCUMENT = Path(__file__).parents[2] / "docs" / "coming-from.md"
SHORT = {"--steps": "2", "--batch": "4", "--samples": "4", "--size": "16", "--data": "input"}
LONGER = {
    "progan": {"--size": "64", "--steps": "3"},
    "dcgan-fc-128": {"--size": "32"},
    "aegan": {"--holdout": "2"},
}


def rows() -> Iterator[tuple[str, str]]:
    """Yield (recipe of the section, command or flags) of every row of every table."""
    for section in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]:
        recipe = re.search(r"`pokegan train ([\w-]+)", section)
        assert recipe is not None, section.splitlines()[0]
        table = [line for line in section.splitlines() if line.startswith("| ")][1:]
        for line in table:
            spans = re.findall(r"`([^`]+)`", line.split("|")[2])
            assert spans, f"a row without a command of ours: {line}"
            for span in spans:
                yield recipe[1], span


ROWS = list(rows())


def short(arguments: list[str]) -> list[str]:
    """Return the arguments of `pokegan train` with everything that takes time made small."""
    options = SHORT | LONGER.get(arguments[1], {})
    if "--stages" in arguments:
        options = {name: value for name, value in options.items() if name != "--size"}
        options["--steps"] = "4"
    kept = list(arguments)
    for name in [*options, "--epochs"]:
        if name in kept and name != "--data" and not (name == "--size" and "--stages" in kept):
            place = kept.index(name)
            del kept[place : place + 2]
    for name, value in options.items():
        if name not in kept:
            kept += [name, value]
    return [*kept, "--no-plots"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with pictures in the layout of HPML-PokeGans and a finished run."""
    folder = tmp_path_factory.mktemp("coming-from")
    for number in range(12):
        inner = folder / "input" / "pokemon" / "pokemon"
        inner.mkdir(parents=True, exist_ok=True)
        colour = (20 * number, 255 - 20 * number, (67 * number) % 256, 255)
        picture = Image.new("RGBA", (24, 24), (0, 0, 0, 0))
        picture.paste(colour, (4 + number % 5, 4, 20, 12 + number % 7))
        picture.save(inner / f"{number}.png")
    return folder


def test_the_document_has_the_rows_of_all_five_projects() -> None:
    assert len({recipe for recipe, _ in ROWS}) == 5
    assert len(ROWS) > 45


@pytest.mark.parametrize(("recipe", "words"), ROWS, ids=[words[:60] for _, words in ROWS])
def test_row_runs(
    recipe: str,
    words: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    text = words if words.startswith("pokegan ") else f"pokegan train {recipe} {words}"
    arguments = shlex.split(text)[1:]
    if "runs/latest" in arguments and not Path("runs/latest").exists():
        assert main(short(["train", recipe])) == 0
    if "--resume" in arguments:
        done = len((Path("runs/latest") / "stats.jsonl").read_text().splitlines())
        assert done > 0
        arguments += ["--steps", "5"]
    elif arguments[0] == "train":
        arguments = short(arguments)
    assert main(arguments) == 0, capsys.readouterr().err
    if arguments[0] == "train":
        latest = Path("gan") if "--out" in arguments else Path("runs/latest")
        assert (latest / "generator.safetensors").stat().st_size > 0
