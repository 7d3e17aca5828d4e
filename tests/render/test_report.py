"""The report: what goes in, that nothing leaves the file, and how a browser shows it."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pokegan.render.report import (
    Match,
    Measure,
    Neighbour,
    Quality,
    RunStory,
    flows,
    render_report,
    series,
)


def records(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "step": 10 * i,
            "kimg": 0.32 * i,
            "seconds": 2.0 * i,
            "loss/generator": 1.0 + 1 / (i + 1),
            "loss/discriminator": None if i == 3 else 0.7,
            "gradient/generator": 10.0 ** (i % 4),
            "metrics/fid": 200.0 - i,
            "metrics/recall": 0.02 * i,
            "metrics/memorised": 0.0,
            "memory/peak_bytes": 5_000_000 + i,
        }
        for i in range(count)
    ]


def gradients() -> list[dict[str, Any]]:
    return [
        {
            "step": i,
            "kimg": 0.1 * i,
            "network": network,
            "layers": ["first", "last"],
            "mean": [0.1 * (i + 1), 0.0],
            "max": [0.5, 0.0],
            "norm": 1.0,
        }
        for i in range(5)
        for network in ("generator", "discriminator")
    ]


def grids(folder: Path, count: int, side: int = 96) -> list[tuple[str, Path]]:
    film = []
    folder.mkdir(exist_ok=True)
    for i in range(count):
        path = folder / f"epoch-{i:04d}.png"
        Image.new("RGB", (side, side), (i * 255 // max(1, count - 1), 80, 40)).save(path)
        film.append((f"epoch {i}", path))
    return film


def story(folder: Path, name: str = "a run") -> RunStory:
    pixels = np.full((8, 8, 3), 200, np.uint8)
    matches = [Match(pixels, "pixels", 0.4, "copy"), Match(pixels, "features", 1.3)]
    near = Neighbour(pixels, "no. 1", matches)
    measures = [Measure("fid", "distance", 160.25, 150, 170), Measure("recall", "share", 0.8)]
    return RunStory(
        name,
        "It learned.",
        [("recipe", "hpml")],
        records(),
        gradients(),
        grids(folder / "samples", 6),
        grids(folder / "reconstructions", 3),
        np.zeros((20, 30, 3), np.uint8),
        "20 of 24 files",
        [near, Neighbour(pixels, "no. 2", matches[1:])],
        "nearest",
        "{}",
        Quality(measures, "100 fakes against 20 reals", ["little variety"], [near], "of them"),
    )


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def picture(src: str) -> Image.Image:
    assert src.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2])))


def test_every_epoch_of_a_short_run_is_in_it(tmp_path: Path) -> None:
    run = data_of(render_report("t", [story(tmp_path)]))["runs"][0]
    assert [frame["label"] for frame in run["samples"]] == [f"epoch {i}" for i in range(6)]
    reds = [np.asarray(picture(frame["src"]))[..., 0].mean() for frame in run["samples"]]
    assert reds == pytest.approx([i * 51 for i in range(6)], abs=6)


def test_lines_hold_what_was_recorded() -> None:
    found = series(records(4))
    assert found["loss/generator"]["x"] == pytest.approx([0, 0.32, 0.64, 0.96])
    assert found["loss/generator"]["y"] == pytest.approx([2, 1.5, 4 / 3, 1.25], abs=1e-4)
    assert found["loss/discriminator"]["x"] == pytest.approx([0, 0.32, 0.64])  # null is left out
    assert found["speed/images_per_s"]["y"] == pytest.approx([160] * 3)
    measured = [{**one, "speed/images_per_s": 7.0} for one in records(3)] + records(4)[3:]
    assert series(measured)["speed/images_per_s"]["y"] == [7] * 3
    assert found["memory/peak"]["y"][0] == 5.0
    assert "memory/peak_bytes" not in found


def test_long_lines_are_averaged_to_few_points() -> None:
    many = [{"step": i, "kimg": float(i), "loss/g": float(i % 2)} for i in range(30_000)]
    line = series(many)["loss/g"]
    assert len(line["x"]) == len(line["y"]) == 300
    assert line["y"] == pytest.approx([0.5] * 300)
    assert line["x"][-1] == pytest.approx(29_949.5, rel=1e-4)


def test_flows_are_of_the_last_form_of_a_network() -> None:
    small = {"network": "generator", "kimg": 0.0, "layers": ["x"], "mean": [1.0], "max": [2.0]}
    found = flows([small, *gradients()])
    assert set(found) == {"generator", "discriminator"}
    assert found["generator"]["layers"] == ["first", "last"]
    assert found["generator"]["mean"] == [[pytest.approx(0.1 * (i + 1)), 0] for i in range(5)]


def test_nothing_in_the_file_points_out_of_it(tmp_path: Path) -> None:
    page = render_report("t", [story(tmp_path)])
    for address in re.findall(r"(?:https?:)?//[\w.]+\.[a-z]+\S*", page):
        assert address.startswith("http://www.w3.org/2000/svg"), address  # a name, never fetched
    assert "default-src 'none'" in page
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(?!data:)", page)


def test_names_cannot_break_out_of_their_place(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>@SCRIPT@<b>"
    page = render_report(hostile, [story(tmp_path, hostile)])
    assert "<script>alert" not in page
    assert data_of(page)["runs"][0]["name"] == hostile


def test_a_run_of_200_epochs_of_noise_stays_under_8_mb(tmp_path: Path) -> None:
    """With all that a report may hold: reconstructions, neighbours of 256 px, gradients."""
    noise = np.random.default_rng(0).integers(0, 256, (265, 265, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "epoch-0001.png")
    film = [(f"epoch {i}", tmp_path / "epoch-0001.png") for i in range(200)]
    layers = [f"a.layer.of.a.long.name.{i}" for i in range(40)]
    values = np.random.default_rng(0).random((1000, 40)).tolist()
    flow = [
        {"kimg": i, "network": "generator", "layers": layers, "mean": row, "max": row}
        for i, row in enumerate(values)
    ]
    crop = np.ascontiguousarray(noise[:256, :256])
    near = Neighbour(crop, "no. 1", [Match(crop, "pixels", 1), Match(crop, "features", 1)])
    quality = Quality([Measure("fid", "distance", 1.0)], "", nearest=[near] * 12)
    run_story = RunStory(
        "noise", "", (), records(5000), flow, film, film, noise, "", [near] * 12, quality=quality
    )
    page = render_report("t", [run_story])
    run = data_of(page)["runs"][0]
    assert len(page.encode()) < 8_000_000
    assert len(run["samples"]) == 100
    assert (run["samples"][0]["label"], run["samples"][-1]["label"]) == ("epoch 0", "epoch 199")


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    broken = tmp_path / "epoch-0001.png"
    broken.write_bytes(b"no picture")
    bare = RunStory("bare", "nothing yet", samples=[("epoch 1", broken)])
    run = data_of(render_report("t", [bare]))["runs"][0]
    assert (run["samples"], run["series"], run["gradients"], run["contact"]) == ([], {}, {}, None)


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a run"):
        render_report("t", [])


def opened(browser: Any, path: Path, width: int) -> tuple[Any, list[str]]:
    """Return the page, and everything that went wrong or out of the file."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: None if one.url.startswith("data:") else wrong.append(one.url))
    page.goto(path.as_uri())
    assert wrong.pop(0) == path.as_uri()
    return page, wrong


SMALL_TEXT = """Math.min(...Array.from(document.querySelectorAll("svg text, p, td, figcaption"))
    .filter((one) => one.textContent && one.getBoundingClientRect().height)
    .map((one) => one.closest("svg")
        ? 11 * one.closest("svg").getScreenCTM().a
        : parseFloat(getComputedStyle(one).fontSize)))"""
DRAWN = """Array.from(document.querySelectorAll("polyline")).every((line) => {
    const own = line.getBoundingClientRect(), whole = line.closest("svg").getBoundingClientRect();
    return own.width > 0.6 * whole.width && own.left >= whole.left && own.right <= whole.right
        && own.top >= whole.top && own.bottom <= whole.bottom;
})"""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("count", [1, 3])
def test_a_browser_shows_it(browser: Any, tmp_path: Path, width: int, count: int) -> None:
    path = tmp_path / "report.html"
    runs = [story(tmp_path, f"run {i}") for i in range(count)]
    path.write_text(render_report("Some runs", runs), encoding="utf-8")
    page, wrong = opened(browser, path, width)
    assert wrong == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("polyline", "rect", ".neighbours img", ".film img", ".scores b"):
        assert page.locator(selector).count() > 0, selector
    assert page.evaluate(DRAWN)
    assert page.evaluate(SMALL_TEXT) >= 10.9  # px: readable on a phone
    assert page.evaluate(
        "Array.from(document.images).every((one) => one.complete && one.naturalWidth > 0)"
    )
    slider, label = page.locator(".film input").first, page.locator(".film .label").first
    picture = page.locator(".film img").first
    shown = set()
    for epoch in range(6):
        slider.fill(str(epoch))
        assert label.inner_text() == f"epoch {epoch}"
        shown.add(picture.get_attribute("src"))
    assert len(shown) == 6
    if count > 1:
        together = page.get_by_label("Samples: all runs together")
        together.fill("0")
        assert page.locator(".film .label").all_inner_texts()[:count] == ["epoch 0"] * count
    assert wrong == []
    page.close()


def test_what_was_measured_and_what_is_near(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report("t", [story(tmp_path)]), encoding="utf-8")
    page, wrong = opened(browser, path, 1280)
    table = page.locator(".scores").inner_text()
    assert "160.2" in table
    assert "150 to 170" in table
    assert page.locator(".warning").all_inner_texts() == ["little variety"]
    for note in ("100 fakes against 20 reals", "nearest", "of them"):
        assert page.get_by_text(note, exact=True).count() == 1, note
    cards = page.locator(".near-card")
    assert [cards.nth(i).locator("img").count() for i in range(cards.count())] == [3, 2, 3]
    assert re.split(r"\s+", cards.first.inner_text()) == [
        *("no.", "1", "0.40", "pixels", "copy", "1.30", "features"),
    ]
    titles = page.locator(".chart h3").all_inner_texts()
    assert "Fréchet distance" in titles
    assert "Copies of training pictures" not in titles  # 0 all along: the table says so
    assert wrong == []
    page.close()


def test_a_chart_is_drawn_anew_for_another_width(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report("t", [story(tmp_path)]), encoding="utf-8")
    page, wrong = opened(browser, path, 1280)
    chart = page.locator(".chart svg").first
    before = chart.bounding_box()["width"]
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function(f"document.querySelector('.chart svg').clientWidth < {before} - 20")
    assert page.evaluate(DRAWN)
    assert page.evaluate(SMALL_TEXT) >= 10.9
    assert wrong == []
    page.close()


def test_the_film_plays(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report("t", [story(tmp_path)]), encoding="utf-8")
    page, wrong = opened(browser, path, 1280)
    page.get_by_role("button", name="play").first.click()
    label, seen = page.locator(".film .label").first, []
    for _ in range(200):
        seen.append(label.inner_text())
        if len(seen) > 1 and seen[-1] == "epoch 5":
            break
        page.wait_for_timeout(30)
    assert seen[0] == "epoch 0"
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert seen[-1] == "epoch 5"
    assert wrong == []
    page.close()


def test_pointing_at_a_chart_tells_its_values(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report("t", [story(tmp_path)]), encoding="utf-8")
    page, _ = opened(browser, path, 1280)
    panel = page.locator(".chart", has_text="Losses").first
    panel.locator("svg").hover()
    assert re.match(
        r"[\d.]+ kimg: generator 1\.\d+ · discriminator 0\.7", panel.locator(".tip").inner_text()
    )
    page.close()
