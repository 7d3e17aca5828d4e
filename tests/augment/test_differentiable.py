"""DiffAugment: the policy's text, and a stream of its own for each role."""

import pytest
import torch

from pokegan.augment import DiffAugment
from pokegan.errors import ConfigError
from pokegan.ops import diff_augment
from pokegan.ops.random import Stream

STEP = torch.tensor(12)


def some_pictures() -> torch.Tensor:
    return torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize(
    ("role", "stream"),
    [
        ("real", Stream.AUGMENT_REAL),
        ("fake", Stream.AUGMENT_FAKE),
        ("generator", Stream.AUGMENT_GENERATOR),
    ],
)
def test_a_role_has_its_stream(role, stream: Stream) -> None:
    pictures, samples = some_pictures(), torch.arange(4)
    got = DiffAugment("translation, cutout", 3, fill=1.0)(pictures, STEP, samples, role)
    want = diff_augment(pictures, 3, stream, STEP, samples, colour=False, fill=1.0)
    assert torch.equal(got, want)


@pytest.mark.parametrize("policy", ["colour", "color", {"colour"}])
def test_a_policy_is_text_or_a_set_in_either_spelling(policy) -> None:
    pictures, samples = some_pictures(), torch.arange(4)
    got = DiffAugment(policy, 3)(pictures, STEP, samples, "real")
    want = diff_augment(
        pictures, 3, Stream.AUGMENT_REAL, STEP, samples, translation=False, cutout=False
    )
    assert torch.equal(got, want)


def test_an_empty_policy_returns_the_input() -> None:
    pictures = some_pictures()
    assert DiffAugment("", 3)(pictures, 0, torch.arange(4), "fake") is pictures


def test_an_unknown_policy_is_named_with_its_flag() -> None:
    with pytest.raises(ConfigError, match=r"--diff-augment colour,rotate: 'rotate' is unknown"):
        DiffAugment("colour,rotate", 3)
