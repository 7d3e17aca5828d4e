"""The recipes of the five projects that pokegan unites, one function each.

What a project left open (a size, a length) is its own default; where its settings do not learn,
the recipe's docstring says what differs.
"""

import dataclasses

from pokegan.config import (
    DataConfig,
    LatentConfig,
    LengthConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
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


def gan_pokemon_dcgan() -> RunConfig:
    """GAN Pokemon, model DCGAN, backbone CONVNET: no norm in the discriminator."""
    adam = OptimizerConfig(lr=1e-4, beta1=0.0, beta2=0.9)
    return RunConfig(
        recipe="gan-pokemon-dcgan",
        data=DataConfig(size=64, flip=True),
        latent=LatentConfig(size=100),
        generator=NetworkConfig(
            "dcgan",
            {
                "channels": [512, 256, 128, 64],
                "activation": "lrelu",
                "dropout": 0.5,
                "dropout_first": True,
            },
        ),
        discriminator=NetworkConfig("dcgan", {"channels": [64, 128, 256, 512], "norm": "none"}),
        objective=ObjectiveConfig(loss="bce"),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        length=LengthConfig(epochs=1000),
        training=TrainingConfig(batch=128),
    )


def gan_pokemon_sngan() -> RunConfig:
    """GAN Pokemon, model SNGAN, backbone CONVNET: spectral norm on every convolution."""
    base = gan_pokemon_dcgan()
    critic = NetworkConfig("dcgan", {"channels": [64, 128, 256, 512], "norm": "spectral"})
    return dataclasses.replace(base, recipe="gan-pokemon-sngan", discriminator=critic)


def gan_pokemon_resnet() -> RunConfig:
    """GAN Pokemon, model SNGAN, backbone RESNET: residual blocks of 64 channels."""
    return dataclasses.replace(
        gan_pokemon_dcgan(),
        recipe="gan-pokemon-resnet",
        generator=NetworkConfig("resnet", {"channels": [64, 64, 64, 64]}, init="xavier"),
        discriminator=NetworkConfig("resnet", {"channels": [64, 64, 64, 64]}, init="xavier"),
    )


def dcgan_fc() -> RunConfig:
    """PokemonGAN: DCGAN with linear layers at both ends and uniform latents."""
    adam = OptimizerConfig(lr=2e-4, beta1=0.5, beta2=0.99)
    return RunConfig(
        recipe="dcgan-fc",
        data=DataConfig(size=64, flip=False),
        latent=LatentConfig(size=100, distribution="uniform"),
        generator=NetworkConfig(
            "dcgan",
            {
                "channels": [512, 256, 128, 64, 32],
                "stem": "linear",
                "norm_first": False,
                "last_stride": 1,
            },
        ),
        discriminator=NetworkConfig("dcgan", {"channels": [32, 64, 128, 256], "head": "linear"}),
        objective=ObjectiveConfig(loss="bce", label_smoothing=0.1),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        length=LengthConfig(epochs=500),
        training=TrainingConfig(batch=32),
    )


def dcgan_fc_128() -> RunConfig:
    """PokemonGAN at 128 px: wider, one more layer."""
    base = dcgan_fc()
    return dataclasses.replace(
        base,
        recipe="dcgan-fc-128",
        data=dataclasses.replace(base.data, size=128),
        generator=NetworkConfig(
            "dcgan",
            {**base.generator.options, "channels": [1024, 512, 256, 128, 64], "base": 8},
        ),
        discriminator=NetworkConfig(
            "dcgan",
            {
                "channels": [64, 128, 256, 512, 1024],
                "head": "linear",
                "keep_side": True,
                "base": 8,
            },
        ),
    )


def dcgan_deep() -> RunConfig:
    """Pokemon generator GAN: DCGAN at 128 px with a discriminator of 44 million parameters.

    Its project names no initialisation: layers start as PyTorch makes them. Drawn with DCGAN's
    deviation of 0.02 so wide a discriminator won for longer. Hard labels let it win at first either
    way; `dcgan-deep-noise` learns sooner.
    """
    adam = OptimizerConfig(lr=1e-4, beta1=0.5, beta2=0.999)
    return RunConfig(
        recipe="dcgan-deep",
        data=DataConfig(size=128, fit="crop", flip=False),
        latent=LatentConfig(size=128),
        generator=NetworkConfig("dcgan", {"channels": [512, 256, 128, 64, 32]}, init="pytorch"),
        discriminator=NetworkConfig(
            "dcgan",
            {"channels": [128, 256, 512, 1024, 2048], "norm_first": True},
            init="pytorch",
        ),
        objective=ObjectiveConfig(loss="bce"),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        length=LengthConfig(epochs=50),
        training=TrainingConfig(batch=64),
    )


def dcgan_deep_noise() -> RunConfig:
    """The same with what its project named as its next step, label noise; initialised as DCGAN.

    Smoothed and noisy labels on both sides, a faster generator and small batches keep so wide a
    discriminator from winning: pictures form within minutes.
    """
    base = dcgan_deep()
    return dataclasses.replace(
        base,
        recipe="dcgan-deep-noise",
        generator=dataclasses.replace(base.generator, init="normal"),
        discriminator=dataclasses.replace(base.discriminator, init="normal"),
        objective=dataclasses.replace(
            base.objective, label_smoothing=0.1, smooth_fakes=True, label_noise=0.1
        ),
        generator_optimizer=dataclasses.replace(base.generator_optimizer, lr=4e-4),
        training=dataclasses.replace(base.training, batch=16),
    )


def pokegan_dcgan() -> RunConfig:
    """PokeGAN's main.py: mirrored networks, soft labels, colour jitter and rotation."""
    adam = OptimizerConfig(lr=1e-3, beta1=0.5, beta2=0.999, eps=1e-6)
    return RunConfig(
        recipe="pokegan-dcgan",
        data=DataConfig(
            size=64, flip=True, brightness=0.3, contrast=0.2, saturation=0.1, rotation=15.0
        ),
        latent=LatentConfig(size=96),
        generator=NetworkConfig("pokegan", {}, init="kaiming"),
        discriminator=NetworkConfig("pokegan", {}, init="kaiming"),
        objective=ObjectiveConfig(
            loss="bce", label_smoothing=0.1, smooth_fakes=True, label_noise=0.1, label_swap=0.03
        ),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        length=LengthConfig(epochs=400),
        training=TrainingConfig(batch=32),
    )


def progan() -> RunConfig:
    """PokeGAN's progan.py: the same networks, grown from 16 px to 64 px."""
    return dataclasses.replace(
        pokegan_dcgan(),
        recipe="progan",
        schedule=ScheduleConfig(
            stages="16:5e-4x100,2e-4x200;32:5e-4x100,2e-4x200;64:5e-4x100,2e-4x200", freeze=False
        ),
        length=LengthConfig(epochs=900),
    )


def aegan() -> RunConfig:
    """AEGAN (arXiv 2004.05472): autoencodes pictures and latents, and has reconstructions."""
    return RunConfig(
        recipe="aegan",
        data=DataConfig(size=96, flip=True, shift=5, hue=0.5, holdout=32),
        latent=LatentConfig(size=16),
        generator=NetworkConfig("aegan"),
        discriminator=NetworkConfig("aegan"),
        encoder=NetworkConfig("aegan"),
        latent_discriminator=NetworkConfig("aegan"),
        objective=ObjectiveConfig(loss="bce"),
        generator_optimizer=OptimizerConfig(lr=2e-4, weight_decay=1e-8),
        discriminator_optimizer=OptimizerConfig(lr=1e-4, weight_decay=1e-8),
        length=LengthConfig(epochs=1000),
        training=TrainingConfig(batch=32),
    )
