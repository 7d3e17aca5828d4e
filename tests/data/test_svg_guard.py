"""An SVG reads no file of ours, however it asks, and is looked through in linear time."""

import base64
import time
from pathlib import Path

import numpy as np
import pytest
from picture_files import bomb, saved
from PIL import Image

from pokegan.data import svg, svg_guard
from pokegan.data.refusals import OUT_OF_MEMORY, DecodeError, category

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8">'
LINK = '<image id=">" href="{}" width="8" height="8"/>'
SECRETS = [
    HEAD + LINK + "</svg>",
    HEAD + LINK.replace(" href", "\n x='\"' xlink:href") + "</svg>",
    HEAD.replace(">", " xmlns:a='http://www.w3.org/1999/xlink'>")
    + LINK.replace("h", "a:h", 1)
    + "</svg>",
    "<!DOCTYPE svg [<!ENTITY e '{}'>]>" + HEAD + LINK.format("&e;") + "</svg>",
    '<!DOCTYPE svg [<!ENTITY e "' + LINK.replace('"', "'") + '">]>' + HEAD + "&e;</svg>",
    "<!DOCTYPE svg [<!ENTITY e SYSTEM '{}'>]>" + HEAD + LINK.format("#&e;") + "</svg>",
    HEAD + LINK.replace("{}", "data:{}") + "</svg>",
    HEAD + "<filter id='f'><feImage href='{}'/></filter><rect filter='url(#f)'/></svg>",
    HEAD + LINK.replace("{}", "&#x2f;{}") + "</svg>",
]


@pytest.mark.parametrize("template", SECRETS)
def test_no_other_file_is_read(tmp_path: Path, template: str) -> None:
    pytest.importorskip("resvg_py")
    path = tmp_path / "secret.png"
    path.write_bytes(saved(Image.new("RGB", (8, 8), (0, 255, 0)), "PNG"))
    with pytest.raises(DecodeError, match="unsupported format"):
        svg.draw(template.replace("{}", str(path)).encode(), 8)


def test_a_relative_link_finds_nothing_even_past_the_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("resvg_py")
    (tmp_path / "secret.png").write_bytes(saved(Image.new("RGB", (8, 8), (0, 255, 0)), "PNG"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(svg_guard, "check", lambda text: False)
    drawn = svg.draw((HEAD + LINK.format("secret.png") + "</svg>").encode(), 8)
    assert not np.asarray(drawn).any()


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "<image " * 200_000,
        HEAD + "<image href='#a' " + "a='b' " * 100_000 + "/></svg>",
        HEAD + "<!-- <image " * 200_000 + "--></svg>",
        HEAD + "<g>" * 300_000,
        "<!DOCTYPE svg [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>" + HEAD + "&b;</svg>",
        f"<!DOCTYPE svg [<!ENTITY a '{'a' * 100_000}'>]>" + HEAD + "&a;" * 10_000 + "</svg>",
    ],
)
def test_what_could_take_long_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(DecodeError, match=r"damaged|unsupported"):
        svg_guard.check(text)
    assert time.process_time() - start < 2


def test_writing_is_seen() -> None:
    assert svg_guard.check(HEAD + "<text>a</text></svg>")
    assert not svg_guard.check(HEAD + "<!-- <text> --><textPath/></svg>")


def test_the_deepest_file_that_is_let_through_is_drawn() -> None:
    pytest.importorskip("resvg_py")
    deep = '<g opacity="0.995" filter="blur(0.2)">' * 126 + "<rect width='8' height='8'/>"
    drawn = svg.draw((HEAD + deep + "</g>" * 126 + "</svg>").encode(), 8)
    assert drawn.size == (8, 8)
    assert np.asarray(drawn)[..., 3].any()


def _holding(picture: bytes, kind: str = "png") -> str:
    data = base64.encodebytes(picture).decode()  # in lines, as editors write it
    return HEAD + LINK.replace("{}", f"data:image/{kind};base64,{data}") + "</svg>"


def test_a_picture_inside_is_drawn() -> None:
    pytest.importorskip("resvg_py")
    green = saved(Image.new("RGB", (8, 8), (0, 255, 0)), "PNG")
    assert svg.draw(_holding(green).encode(), 8).getpixel((4, 4)) == (0, 255, 0, 255)


def test_a_huge_picture_inside_is_refused_by_its_header() -> None:
    with pytest.raises(DecodeError, match="too many pixels: in pictures inside an SVG"):
        svg_guard.check(_holding(bomb(20_000)))
    half = saved(Image.new("1", (3_000, 3_000)), "PNG")
    assert not svg_guard.check(_holding(half))
    two = _holding(half).replace("</svg>", "") + _holding(half).removeprefix(HEAD)
    with pytest.raises(DecodeError, match="too many pixels"):
        svg_guard.check(two)


def test_an_svg_inside_is_looked_through_too() -> None:
    inner = HEAD + "<g>" * 200 + "</g>" * 200 + "</svg>"
    with pytest.raises(DecodeError, match="nested more than 128 deep"):
        svg_guard.check(_holding(inner.encode(), "svg+xml"))
    assert svg_guard.check(_holding((HEAD + "<text>a</text></svg>").encode(), "svg+xml"))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_damaged_picture_inside_is_refused(content: bytes) -> None:
    with pytest.raises(DecodeError, match="damaged: SVG: a picture inside it"):
        svg_guard.check(_holding(content))
    with pytest.raises(DecodeError, match="is no base64"):
        svg_guard.check(HEAD + LINK.replace("{}", "data:image/png;base64,AAAAA") + "</svg>")


def test_a_file_for_which_memory_runs_out_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resvg_py = pytest.importorskip("resvg_py")

    def too_much(**options: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(resvg_py, "svg_to_bytes", too_much)
    with pytest.raises(DecodeError) as caught:
        svg.draw((HEAD + "</svg>").encode(), 8)
    assert category(str(caught.value)) == OUT_OF_MEMORY
    assert isinstance(caught.value.__cause__, MemoryError)
