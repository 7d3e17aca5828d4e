"""Named, complete configurations: plain functions that return a `RunConfig`."""

from collections.abc import Callable

from pokegan.config import RunConfig
from pokegan.errors import ConfigError
from pokegan.recipes import seeds
from pokegan.recipes.house import house_dcgan
from pokegan.recipes.seeds import hpml

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "house-dcgan": house_dcgan,
    "hpml": hpml,
    "gan-pokemon-dcgan": seeds.gan_pokemon_dcgan,
    "gan-pokemon-sngan": seeds.gan_pokemon_sngan,
    "gan-pokemon-resnet": seeds.gan_pokemon_resnet,
    "dcgan-fc": seeds.dcgan_fc,
    "dcgan-fc-128": seeds.dcgan_fc_128,
    "dcgan-deep": seeds.dcgan_deep,
    "dcgan-deep-noise": seeds.dcgan_deep_noise,
    "pokegan-dcgan": seeds.pokegan_dcgan,
    "progan": seeds.progan,
    "aegan": seeds.aegan,
}
DEFAULT = "house-dcgan"

__all__ = ["DEFAULT", "RECIPES", "get", "house_dcgan", "hpml"]


def get(name: str) -> RunConfig:
    """Return the recipe called `name`.

    Raises:
        ConfigError: there is no such recipe; the message lists those there are.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()
