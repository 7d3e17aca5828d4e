"""A few hundred mutated pictures through `prepare`; `fuzz_pictures.py` runs thousands."""

from pathlib import Path

import pytest
from fuzz_pictures import fuzz
from mutations import bases, mend_checksums, mutated

from pokegan.data.jpeg import has_too_many_scans
from pokegan.data.refusals import category
from pokegan.data.sniff import sniff


def test_300_mutated_pictures(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is watched through /proc")
    done = fuzz(tmp_path, 300, seed=0, workers=2)
    assert done.faults() == []
    assert done.peak > 0
    assert done.manifest.found == len(done.written) == 300
    reasons = {category(row.reason) for row in done.manifest.skipped}
    assert {"damaged", "truncated", "too many pixels", "unsupported format"} <= reasons
    assert len(done.manifest.pictures) >= 10


def test_mutations_are_the_same_each_time_and_reach_every_format() -> None:
    assert mutated(3, 17) == mutated(3, 17) != mutated(4, 17)
    kinds = {sniff(mutated(0, i)[1]) for i in range(300)}
    assert kinds == {"PNG", "JPEG", "GIF", "WebP", "TIFF", "BMP", "SVG", None}
    whole = bases()["smooth.png"]
    broken = whole[:40] + b"\0" + whole[41:]
    assert mend_checksums(whole) == whole
    assert mend_checksums(broken)[:41] == broken[:41] != whole[:41]


def test_jpegs_of_encoders_have_few_scans() -> None:
    jpegs = {name: content for name, content in bases().items() if sniff(content) == "JPEG"}
    assert len(jpegs) > 8
    assert not any(has_too_many_scans(content) for content in jpegs.values())
    progressive = jpegs["smooth progressive.jpg"]
    first = progressive.index(b"\xff\xda")
    assert has_too_many_scans(progressive[:-2] + progressive[first:-2] * 20)
    assert not has_too_many_scans(progressive + b"\xff\xda\0\2" * 200)  # behind the end
