"""`pokegan recipes`: what can be trained."""

import argparse


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    common: argparse.ArgumentParser,
) -> None:
    """Add the command."""
    parser = commands.add_parser("recipes", parents=[common], help="list the recipes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table of the recipes: the settings that tell them apart, parameters, origin."""
    from pokegan.recipes import DEFAULT, RECIPES
    from pokegan.training.networks import build_networks

    width = max(map(len, RECIPES)) + 2
    heads = ("size", "batch", "latents", "generator", "discrim.", "encoder")
    print(f"{'recipe':<{width}}" + "".join(f"{head:>{_width(head)}}" for head in heads))
    for name, make in RECIPES.items():
        config = make()
        counts = {
            role: f"{sum(parameter.numel() for parameter in network.parameters()):,}"
            for role, network in build_networks(config).items()
        }
        cells = (
            str(config.data.size),
            str(config.training.batch),
            str(config.latent.size),
            counts["generator"],
            counts["discriminator"],
            counts.get("encoder", "-"),
        )
        row = "".join(f"{cell:>{_width(head)}}" for head, cell in zip(heads, cells, strict=True))
        about = (make.__doc__ or "").splitlines()[0]
        print(f"{name:<{width}}{row}  {about}{' (default)' if name == DEFAULT else ''}")
    return 0


def _width(head: str) -> int:
    return max(len(head) + 2, 12 if head in ("generator", "discrim.", "encoder") else 0)
