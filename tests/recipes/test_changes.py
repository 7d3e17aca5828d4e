"""What of a recipe gives way to another loss, and what never does."""

from pokegan import recipes
from pokegan.config import RunConfig, override
from pokegan.recipes.changes import fit_to_loss


def changed(recipe: str, **objective: object) -> tuple[RunConfig, list[str]]:
    given = {f"objective.{name}": value for name, value in objective.items()}
    return fit_to_loss(override(recipes.get(recipe), given), given)


def test_targets_go_with_a_loss_that_has_none() -> None:
    config, off = changed("pokegan-dcgan", loss="hinge")
    assert off == ["--label-smoothing", "--smooth-fakes", "--label-noise", "--label-swap"]
    assert config.objective.label_smoothing == config.objective.label_noise == 0
    assert not config.objective.smooth_fakes


def test_what_the_user_gave_stays_to_be_refused_by_name() -> None:
    config, off = changed("pokegan-dcgan", loss="hinge", label_noise=0.2)
    assert config.objective.label_noise == 0.2
    assert "--label-noise" not in off


def test_a_loss_with_targets_keeps_them() -> None:
    config, off = changed("pokegan-dcgan", loss="lsgan")
    assert off == []
    assert config.objective.label_smoothing == 0.1


def test_fakes_are_not_shared_over_several_critic_steps() -> None:
    config, off = changed("hpml", loss="wgan")
    assert off == ["--share-fakes"]
    assert not config.objective.share_fakes
    assert changed("hpml", loss="wgan", discriminator_steps=1)[1] == []


def test_the_recipes_own_loss_changes_nothing() -> None:
    for name in recipes.RECIPES:
        assert fit_to_loss(recipes.get(name), ()) == (recipes.get(name), [])
