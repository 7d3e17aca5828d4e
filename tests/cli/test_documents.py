"""What README.md and docs/*.md name is there: commands, their flags, and files. Nothing is run."""

import argparse
import inspect
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pokegan.cli.main import build_parser
from pokegan.errors import PokeganError
from pokegan.training.networks import DISCRIMINATORS, GENERATORS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CALL = re.compile(r"(?:^|\s)(?:pokegan|-m pokegan) (?=[a-z-])")
END = re.compile(r"\s(?:&&|\||>|;|#)\s|$", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
PATH = re.compile(r"(?<![\w/.-])(?:benchmarks|csrc|docs|examples|pokegan|tests)/[\w./-]*[\w/]")
SOURCE = re.compile(r"[\w/]+\.(?:py|h|cpp|cu|sh)")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
TORCHRUN = {"--local-addr", "--max-restarts", "--rdzv-conf"}


def codes(text: str) -> Iterator[tuple[bool, str]]:
    """Yield (fenced, code): lines of fenced blocks, broken ones joined, and inline spans."""
    for number, part in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        if number % 2:
            yield from ((True, line) for line in re.sub(r"\\\n\s*", "", part).splitlines())
        else:
            yield from ((False, " ".join(one.split())) for one in re.findall(r"`([^`]+)`", part))


ALL = [(path, *code) for path in DOCUMENTS for code in codes(path.read_text(encoding="utf-8"))]


def called(path: Path, fenced: bool, code: str) -> Iterator[tuple[bool, str, str]]:
    """Yield (fenced, document, what follows `pokegan`) where `code` calls it."""
    call = CALL.search(code)
    if call is not None:
        rest = code[call.end() :]
        end = END.search(rest)
        assert end is not None
        yield fenced, path.name, rest[: end.start()].strip()


COMMANDS = sorted(set(itertools.chain(*(called(*code) for code in ALL))))
FILES = [f"/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("[bcept]*/**/*.*")]


def nested(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a parser by name."""
    groups = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {name: one for group in groups for name, one in group.choices.items()}


def every_parser(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for one in nested(parser).values():
        yield from every_parser(one)


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """The parser of the command that `words` begin with."""
    parser = build_parser(words)
    for word in words:
        if word not in nested(parser):
            break
        parser = nested(parser)[word]
    assert not nested(parser), f"no such command: {words}"
    return parser


@pytest.mark.parametrize(("fenced", "document", "text"), COMMANDS)
def test_a_command_is_there(fenced: bool, document: str, text: str) -> None:
    """In a block it can be typed as it stands; elsewhere its name, flags and choices are right."""
    words = shlex.split(text)
    parser = parser_of(words)
    if fenced and "--help" not in words and "RUN" not in words:
        try:
            args = build_parser(words).parse_args(words)
        except (SystemExit, PokeganError) as problem:
            pytest.fail(f"pokegan {text}: {problem}")
        assert hasattr(args, "run")
    options = parser._option_string_actions
    for flag in FLAG.findall(re.sub(r"\"[^\"]*\"", "", text)):
        assert flag in options, f"pokegan {text} has no {flag}"
    for flag, value in re.findall(r"(--?[a-z][\w-]*)[ =]([\w-]+(?:\|[\w-]+)+)", text):
        assert set(value.split("|")) == set(options[flag].choices or ()), flag


def test_flags_that_stand_alone_are_there() -> None:
    """But those of other programs, and the tables of what five other projects called theirs."""
    known = {flag for one in every_parser(build_parser()) for flag in one._option_string_actions}
    named = {
        (path.name, flag)
        for path, fenced, code in ALL
        if not fenced and code.startswith("--") and path.name != "coming-from.md"
        for flag in FLAG.findall(code)
    }
    assert len(named) > 40
    assert not {(name, flag) for name, flag in named if flag not in known | TORCHRUN}


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_files_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lost = [name for name in PATH.findall(text) if not (ROOT / name).exists()]
    assert not lost
    sources = [code for where, _, code in ALL if where == path and SOURCE.fullmatch(code)]
    assert not [name for name in sources if not any(one.endswith(f"/{name}") for one in FILES)]
    assert not [name for name in LINK.findall(text) if not (path.parent / name).exists()]


def test_scripts_have_the_flags_that_they_are_called_with() -> None:
    calls = {
        (match[1], flag)
        for _, _, code in ALL
        for match in re.finditer(r"(benchmarks/\w+\.py|csrc/tests/\w+\.py)((?: [^#|&;]*)?)", code)
        for flag in re.findall(r"(?<= )--[a-z][\w-]*", match[2])
        if "pytest" not in code
    }
    assert calls
    lost = [(name, flag) for name, flag in calls if f'"{flag}"' not in (ROOT / name).read_text()]
    assert not lost


def test_every_option_of_a_network_is_described_with_its_default() -> None:
    described: dict[tuple[str, str, str], str] = {}
    for section in (ROOT / "docs/networks.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        for row in re.findall(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|", section, flags=re.MULTILINE):
            for role, value in zip(("generator", "discriminator"), row[1:], strict=True):
                if value.strip():
                    described[role, section.split()[0], row[0]] = value.strip(" `")
    taken = {}
    for role, networks in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        for name, network in networks.items():
            for option, parameter in inspect.signature(network).parameters.items():
                if option not in ("size", "latent_size", "final_size"):
                    taken[role, name, option] = shown(parameter.default)
    assert described == taken


def shown(value: object) -> str:
    """A default as the page has it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value}".removesuffix(".0")
