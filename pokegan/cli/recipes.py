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
    """Print a table of the recipes."""
    from pokegan.recipes import DEFAULT, RECIPES
    from pokegan.training.networks import build_networks

    print(f"{'recipe':<14}{'size':>5}{'batch':>7}{'latents':>9}{'generator':>12}{'discrim.':>12}")
    for name, make in RECIPES.items():
        config = make()
        counts = [
            sum(parameter.numel() for parameter in network.parameters())
            for network in build_networks(config).values()
        ]
        row = f"{name:<14}{config.data.size:>5}{config.training.batch:>7}{config.latent.size:>9}"
        row += "".join(f"{count:>12,}" for count in counts)
        about = (make.__doc__ or "").splitlines()[0]
        print(f"{row}  {about}{' (default)' if name == DEFAULT else ''}")
    return 0
