"""An MP4 of `pokegan video` in a browser: it plays, at its size, with its colours, to its end."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pokegan.cli.main import main
from pokegan.config import LatentConfig, NetworkConfig
from pokegan.render.pictures import make_grid
from pokegan.training.generator import Generator, GeneratorSpec
from pokegan.training.networks import build_generator

H264 = 'video/mp4; codecs="avc1.640028"'
NETWORK, LATENT = NetworkConfig("dcgan", {"channels": [16, 8]}), LatentConfig(size=6)


@pytest.fixture
def generator(tmp_path: Path) -> Generator:
    torch.manual_seed(0)
    network = build_generator(NETWORK, LATENT, 16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4.0)  # so that pictures differ clearly
    made = Generator(network, GeneratorSpec(NETWORK, LATENT, 16, "test", 0, 0))
    made.save(tmp_path / "generator.safetensors")
    return made


def test_a_walk_plays_in_a_browser(browser: Any, tmp_path: Path, generator: Generator) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="needs pokegan[video]")
    clip = tmp_path / "walk.mp4"
    source = str(tmp_path / "generator.safetensors")
    choice = ["--kind", "walk", "-n", "9", "--seconds", "2", "--fps", "20", "--out", str(clip)]
    assert main(["video", source, *choice]) == 0
    text = f'<style>body {{ margin: 0 }}</style><video src="{clip.name}" muted></video>'
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    page = browser.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.goto((tmp_path / "page.html").as_uri())
    if not page.evaluate(f"document.createElement('video').canPlayType('{H264}')"):
        pytest.skip("this Chromium was built without H.264")
    page.wait_for_function("document.querySelector('video').readyState >= 2", timeout=15000)

    def told(expression: str) -> Any:
        return page.evaluate(f"document.querySelector('video').{expression}")

    grid = make_grid(generator.sample(9))
    even = tuple(side + side % 2 for side in grid.shape[:2])
    assert (told("videoHeight"), told("videoWidth")) == even
    assert told("duration") == pytest.approx(2, abs=0.06)
    shot = Image.open(io.BytesIO(page.locator("video").screenshot())).convert("RGB")
    shown = np.asarray(shot)[: grid.shape[0], : grid.shape[1]].astype(float)
    # Means of 8 x 8 pixels: the format halves the resolution of colour, and these are full of it.
    blocks = [
        one[:56, :56].reshape(7, 8, 7, 8, 3).mean(axis=(1, 3))
        for one in (shown, grid.astype(float))
    ]
    assert np.abs(blocks[0] - blocks[1]).max() < 12
    assert blocks[1].std() > 10
    page.evaluate("document.querySelector('video').play()")
    page.wait_for_function("document.querySelector('video').ended", timeout=15000)
    assert told("currentTime") == pytest.approx(2, abs=0.06)
    assert told("error") is None
    assert told("getVideoPlaybackQuality().totalVideoFrames") > 5
    assert wrong == []
    page.close()
