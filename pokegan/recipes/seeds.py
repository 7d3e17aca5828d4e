"""The recipes of the five projects that pokegan unites, one function each."""

from pokegan.config import (
    DataConfig,
    LatentConfig,
    LengthConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
)


def hpml() -> RunConfig:
    """HPML-PokeGans: DCGAN with 16 latents and batch norm on every hidden layer of both sides."""
    adam = OptimizerConfig(lr=2.8e-4, beta1=0.5, beta2=0.999)
    return RunConfig(
        recipe="hpml",
        data=DataConfig(size=64, fit="crop", flip=False),
        latent=LatentConfig(size=16),
        generator=NetworkConfig("dcgan", {"channels": [128, 128, 128, 64]}),
        discriminator=NetworkConfig("dcgan", {"channels": [64, 128, 128, 128], "norm_first": True}),
        objective=ObjectiveConfig(loss="bce", share_fakes=True),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        length=LengthConfig(epochs=500),
        training=TrainingConfig(batch=128),
    )
