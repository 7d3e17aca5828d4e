"""Our own recipes."""

from pokegan.config import (
    DataConfig,
    LatentConfig,
    LengthConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    OutputConfig,
    RunConfig,
    TrainingConfig,
)


def house_dcgan() -> RunConfig:
    """A small DCGAN that shows creatures within minutes on a laptop's processor.

    The batch is small because what shows early is the count of updates; the generator's last
    layer has a bias because the background is one flat colour.
    """
    adam = OptimizerConfig(lr=4e-4, beta1=0.5, beta2=0.99)
    return RunConfig(
        recipe="house-dcgan",
        data=DataConfig(source="demo", size=64, flip=True),
        latent=LatentConfig(size=64),
        generator=NetworkConfig("dcgan", {"channels": [256, 128, 64, 32], "bias": True}),
        discriminator=NetworkConfig("dcgan", {"channels": [32, 64, 128, 256]}),
        objective=ObjectiveConfig(loss="bce", label_smoothing=0.1, share_fakes=True),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        length=LengthConfig(kimg=80.0),
        training=TrainingConfig(batch=32, ema_kimg=2.0),
        output=OutputConfig(sample_every=3),
    )
