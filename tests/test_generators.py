"""The generators against their papers, cases worked by hand and networks written out."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, conv2d, interpolate

from forensics.errors import UserError
from forensics.generators import GENERATORS, Gan, pggan, wgan_gp
from forensics.generators.dcgan import DcganSettings
from forensics.generators.pggan import Pggan, PgganSettings, minibatch_std, pixel_norm
from forensics.generators.wgan_gp import Architecture, WganGpSettings, gradient_penalty

DCGAN: dict[str, Any] = {
    "latent_size": 10,
    "width": 4,
    "learning_rate": 2e-4,
    "betas": [0.5, 0.999],
}
WGAN_GP: dict[str, Any] = {
    "architecture": Architecture.dcgan,
    "latent_size": 10,
    "width": 4,
    "critic_steps": 5,
    "gradient_penalty_weight": 10.0,
    "learning_rate": 1e-4,
    "betas": [0.0, 0.9],
}
PGGAN: dict[str, Any] = {
    "latent_size": 12,
    "channels": [8, 6, 4, 4],
    "first_resolution": 4,
    "stable_images": 100,
    "fade_images": 50,
    "average_decay": 0.9,
    "drift": 0.001,
    "gradient_penalty_weight": 10.0,
    "learning_rate": 1e-3,
    "betas": [0.0, 0.99],
}
Settings = DcganSettings | WganGpSettings | PgganSettings
SMALL: dict[str, Settings] = {
    "dcgan": DcganSettings(**DCGAN),
    "wgan_gp": WganGpSettings(**WGAN_GP),
    "wgan_gp_residual": WganGpSettings(**WGAN_GP | {"architecture": Architecture.residual}),
    "pggan": PgganSettings(**PGGAN),
}
EVERY = pytest.mark.parametrize("name", list(SMALL))


def _draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(count: int, size: int) -> Tensor:
    """Noise in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=_draws(1)) * 2 - 1


def _gan(name: str, image_size: int = 16) -> Gan:
    """A small one; PGGAN is half way into fading in 16 pixels."""
    torch.manual_seed(0)
    gan = SMALL[name].build(image_size)
    gan.begin(275)
    return gan


def _grown(**changes: int) -> Pggan:
    torch.manual_seed(0)
    return cast(Pggan, PgganSettings(**PGGAN | changes).build(32))


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _meta(settings: Settings, image_size: int) -> Gan:
    """A network without memory for its weights, to count them."""
    with torch.device("meta"):
        return settings.build(image_size)


class TestEvery:
    @EVERY
    def test_images_and_scores(self, name: str) -> None:
        gan = _gan(name, 32)
        latents = gan.draw_latents(3, _draws())
        assert (latents.shape, latents.dtype) == ((3, gan.latent_size), torch.float32)
        images = gan.sample(latents)
        assert (images.shape, images.dtype) == ((3, 3, 32, 32), torch.float32)
        assert not images.requires_grad
        assert -1 <= float(images.min()) < float(images.max()) <= 1

    @EVERY
    def test_the_same_draws_give_the_same_loss(self, name: str) -> None:
        def losses(seed: int) -> tuple[float, float]:
            gan, draws = _gan(name), _draws(seed)
            critic_loss = gan.critic_loss(_images(4, 16), draws).detach()
            return float(critic_loss), float(gan.generator_loss(4, draws).detach())

        assert losses(0) == losses(0)
        assert all(one != other for one, other in zip(losses(0), losses(1), strict=True))

    @EVERY
    def test_no_draw_comes_from_anywhere_else(self, name: str) -> None:
        gan, draws = _gan(name), _draws()
        state = torch.get_rng_state()
        gan.critic_loss(_images(4, 16), draws)
        gan.generator_loss(4, draws)
        gan.sample(gan.draw_latents(4, draws))
        assert torch.equal(torch.get_rng_state(), state)

    @EVERY
    @pytest.mark.parametrize("bfloat16", [False, True])
    def test_gradient_reaches_its_own_network_alone(self, name: str, bfloat16: bool) -> None:
        gan = _gan(name)
        # Not in use between 8 and 16 pixels.
        unused = {"to_rgb.0.weight", "to_rgb.0.bias", "from_rgb.0.weight", "from_rgb.0.bias"}
        # One context for both, with autocast's cache: what it keeps must not hinder the second.
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            losses = gan.critic_loss(_images(4, 16), _draws()), gan.generator_loss(4, _draws())
        pairs = [(gan.critic, gan.generator), (gan.generator, gan.critic)]
        for loss, (own, other) in zip(losses, pairs, strict=True):
            gan.zero_grad()
            torch.autograd.backward(loss)
            for key, parameter in own.named_parameters():
                if name == "pggan" and key in unused:
                    continue
                assert parameter.grad is not None, key
                assert parameter.grad.isfinite().all(), key
                # Real and generated scores have the last biases in common, so that they cancel.
                assert parameter.grad.any() or key.endswith("bias"), key
            assert all(parameter.grad is None for parameter in other.parameters())
        for network in (gan.generator, gan.critic):
            assert all(parameter.requires_grad for parameter in network.parameters())

    @EVERY
    def test_ten_steps_in_bfloat16_stay_finite(self, name: str) -> None:
        gan = _gan(name).to(memory_format=torch.channels_last)
        images = _images(6, 16).to(memory_format=torch.channels_last)
        before, draws = copy.deepcopy(gan), _draws()
        generators, critics = gan.optimizers()
        steps: list[tuple[torch.optim.Optimizer, Callable[[], Tensor]]] = [
            (critics, lambda: gan.critic_loss(images, draws)),
            (generators, lambda: gan.generator_loss(6, draws)),
        ]
        for step in range(10):
            gan.begin(step * 50)
            for optimizer, loss in steps:
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    value = loss()
                assert value.dtype == torch.float32
                assert value.isfinite()
                torch.autograd.backward(value)
                optimizer.step()
            gan.after_generator_step()
        for (key, now), then in zip(gan.named_parameters(), before.parameters(), strict=True):
            assert now.isfinite().all(), key
            # Real and generated scores have the last biases in common, so that they cancel.
            assert not torch.equal(now, then) or key.endswith("bias"), key
        assert gan.sample(gan.draw_latents(2, draws)).isfinite().all()

    @EVERY
    def test_losses_in_bfloat16_are_near_those_in_float32(self, name: str) -> None:
        exact, rounded = _gan(name), _gan(name)
        with torch.autocast("cpu", torch.bfloat16):
            loss = rounded.critic_loss(_images(4, 16), _draws())
        expected = exact.critic_loss(_images(4, 16), _draws())
        torch.testing.assert_close(loss, expected, rtol=0.03, atol=0.03)

    @EVERY
    def test_an_image_depends_on_its_own_latent_alone(self, name: str) -> None:
        gan = _gan(name)
        gan.generator_loss(8, _draws())  # BatchNorm has seen something
        latents = gan.draw_latents(4, _draws())
        alone = torch.cat([gan.sample(latent[None]) for latent in latents])
        torch.testing.assert_close(gan.sample(latents), alone)
        assert gan.generator.training
        gan.eval().sample(latents)
        assert not gan.generator.training

    @EVERY
    def test_samples_are_float32_under_autocast(self, name: str) -> None:
        gan = _gan(name)
        latents = gan.draw_latents(4, _draws())
        expected = gan.sample(latents)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(gan.sample(latents), expected)

    @EVERY
    def test_state_survives_saving_and_loading(self, name: str) -> None:
        gan = _gan(name)
        generators, _ = gan.optimizers()
        torch.autograd.backward(gan.generator_loss(4, _draws()))
        generators.step()
        gan.after_generator_step()
        file = io.BytesIO()
        torch.save(gan.state_dict(), file)
        file.seek(0)
        loaded = SMALL[name].build(16)
        loaded.load_state_dict(torch.load(file, weights_only=True))
        latents = gan.draw_latents(4, _draws())
        assert torch.equal(loaded.sample(latents), gan.sample(latents))
        losses = [g.critic_loss(_images(4, 16), _draws()).detach() for g in (loaded, gan)]
        assert torch.equal(*losses)
        if isinstance(gan, Pggan) and isinstance(loaded, Pggan):
            assert (gan.resolution, gan.alpha) == (16, 0.5)
            assert (loaded.resolution, loaded.alpha) == (16, 0.5)

    @EVERY
    def test_the_state_is_tensors_only(self, name: str) -> None:
        # Such a state can become a safetensors file.
        assert all(isinstance(value, Tensor) for value in _gan(name).state_dict().values())

    @EVERY
    def test_adams_are_the_settings(self, name: str) -> None:
        gan, settings = _gan(name), cast(Any, SMALL[name])
        networks = gan.generator, gan.critic
        for optimizer, network in zip(gan.optimizers(), networks, strict=True):
            assert isinstance(optimizer, torch.optim.Adam)
            (group,) = optimizer.param_groups
            assert group["params"] == list(network.parameters())
            assert (group["lr"], group["eps"]) == (settings.learning_rate, 1e-8)
            assert group["betas"] == tuple(settings.betas)

    @EVERY
    def test_the_seed_decides_the_weights(self, name: str) -> None:
        def weights(seed: int) -> Tensor:
            torch.manual_seed(seed)
            return nn.utils.parameters_to_vector(SMALL[name].build(16).parameters())

        assert torch.equal(weights(0), weights(0))
        assert not torch.equal(weights(0), weights(1))


class TestSettings:
    @pytest.mark.parametrize("name", ["dcgan", "wgan_gp", "pggan"])
    def test_files_hold_every_setting_and_build(self, name: str) -> None:
        path = Path(__file__).parents[1] / "conf" / "generator" / f"{name}.yaml"
        values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))
        assert values.pop("defaults") == [f"/schema/generator/{name}@_here_"]
        typed = OmegaConf.merge(OmegaConf.structured(GENERATORS[name]), values)
        gan = _meta(cast(Settings, OmegaConf.to_object(typed)), 128)
        assert gan.critic_steps == (5 if name == "wgan_gp" else 1)

    @pytest.mark.parametrize(
        ("settings", "usual", "changes"),
        [
            *(
                (kind, usual, {key: value})
                for kind, usual in (
                    (DcganSettings, DCGAN),
                    (WganGpSettings, WGAN_GP),
                    (PgganSettings, PGGAN),
                )
                for key, value in (
                    ("latent_size", 0),
                    ("learning_rate", 0.0),
                    ("learning_rate", math.inf),
                    ("betas", [0.5]),
                    ("betas", [0.5, 1.0]),
                )
            ),
            (DcganSettings, DCGAN, {"width": 0}),
            (WganGpSettings, WGAN_GP, {"width": 0}),
            (WganGpSettings, WGAN_GP, {"critic_steps": 0}),
            (WganGpSettings, WGAN_GP, {"gradient_penalty_weight": -1.0}),
            (PgganSettings, PGGAN, {"gradient_penalty_weight": math.nan}),
            (PgganSettings, PGGAN, {"drift": -0.1}),
            (PgganSettings, PGGAN, {"channels": []}),
            (PgganSettings, PGGAN, {"channels": [8, 0]}),
            (PgganSettings, PGGAN, {"first_resolution": 2}),
            (PgganSettings, PGGAN, {"first_resolution": 12}),
            (PgganSettings, PGGAN, {"stable_images": 0}),
            (PgganSettings, PGGAN, {"fade_images": -1}),
            (PgganSettings, PGGAN, {"average_decay": 1.0}),
        ],
    )
    def test_out_of_range_is_refused(
        self, settings: Callable[..., Any], usual: dict[str, Any], changes: dict[str, Any]
    ) -> None:
        (key,) = changes
        with pytest.raises(UserError, match=rf"^generator\.{key} must .* not "):
            settings(**usual | changes)

    @pytest.mark.parametrize(
        ("name", "sizes"),
        [
            ("dcgan", [0, 8, 17, 96]),
            ("wgan_gp", [8, 96]),
            ("wgan_gp_residual", [8, 96]),
            ("pggan", [0, 2, 12]),
        ],
    )
    def test_sizes_that_no_doubling_reaches_are_refused(self, name: str, sizes: list[int]) -> None:
        for size in sizes:
            with pytest.raises(UserError, match=r"dataset\.image_size must be a power of two"):
                SMALL[name].build(size)

    def test_pggan_needs_channels_for_the_image_size(self) -> None:
        with pytest.raises(UserError, match=r"generator\.channels must have 5 numbers"):
            SMALL["pggan"].build(64)

    def test_pggan_cannot_begin_above_the_image_size(self) -> None:
        with pytest.raises(UserError, match=r"generator\.first_resolution must be at most .*=16"):
            PgganSettings(**PGGAN | {"first_resolution": 32}).build(16)


class TestDcgan:
    def test_shapes_of_figure_1(self) -> None:
        # 1024 channels of 4x4, then half as many at twice the size, to 3 of 64x64.
        torch.manual_seed(0)
        gan = DcganSettings(**DCGAN | {"latent_size": 100, "width": 128}).build(64)
        shapes = []
        for module in gan.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                assert (module.kernel_size, module.stride) == ((4, 4), (2, 2))
                module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
        images = gan.generator(gan.draw_latents(2, _draws()))
        generator = [(2, 512, 8, 8), (2, 256, 16, 16), (2, 128, 32, 32), (2, 3, 64, 64)]
        assert shapes == generator
        assert gan.critic(images).shape == (2,)
        discriminator = [(2, 128, 32, 32), (2, 256, 16, 16), (2, 512, 8, 8), (2, 1024, 4, 4)]
        assert shapes == generator + discriminator

    def test_parameter_counts(self) -> None:
        # Of the network that PyTorch's DCGAN tutorial builds for 64 pixels (nz 100, ngf 64, ndf
        # 64), whose first and last layers are 4x4 convolutions of 1x1 pixels.
        gan = _meta(DcganSettings(**DCGAN | {"latent_size": 100, "width": 64}), 64)
        # 16 x 100 x 512 + 2 x 512                          820,224
        # 16 x 512 x 256 + 2 x 256                        2,097,664
        # 16 x 256 x 128 + 2 x 128                          524,544
        # 16 x 128 x 64 + 2 x 64                            131,200
        # 16 x 64 x 3                                         3,072
        assert _count(gan.generator) == 3_576_704
        # 16 x 3 x 64                                         3,072
        # 16 x 64 x 128 + 2 x 128                           131,328
        # 16 x 128 x 256 + 2 x 256                          524,800
        # 16 x 256 x 512 + 2 x 512                        2,098,176
        # 16 x 512                                            8,192
        assert _count(gan.critic) == 2_765_568

    @pytest.mark.parametrize("training", [True, False])
    def test_networks_are_those_written_out(self, training: bool) -> None:
        gan = _gan("dcgan")
        gan.generator_loss(8, _draws())
        generator = nn.Sequential(
            nn.ConvTranspose2d(10, 8, 4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
        critic = nn.Sequential(
            nn.Conv2d(3, 4, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4, 8, 4, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8, 1, 4, bias=False),
        )
        for by_hand, network in ((generator, gan.generator), (critic, gan.critic)):
            values = list(network.state_dict().values())
            targets = by_hand.state_dict()
            if network is gan.generator:
                values[0] = values[0].T
            shaped = [v.reshape(t.shape) for v, t in zip(values, targets.values(), strict=True)]
            by_hand.load_state_dict(dict(zip(targets, shaped, strict=True)))
        latents = gan.draw_latents(4, _draws())
        images = gan.train(training).generator(latents)
        torch.testing.assert_close(images, generator.train(training)(latents[..., None, None]))
        torch.testing.assert_close(gan.critic(images), critic.train(training)(images).flatten())

    def test_weights_start_as_published(self) -> None:
        gan = DcganSettings(**DCGAN | {"width": 32}).build(16)
        for key, parameter in gan.named_parameters():
            values = parameter.detach().flatten().numpy()
            if key.endswith("bias"):
                assert not values.any(), key
            else:
                mean = 1.0 if parameter.ndim == 1 else 0.0
                assert stats.kstest(values[:5000], "norm", (mean, 0.02)).pvalue > 1e-4, key

    def test_losses_are_cross_entropies(self) -> None:
        gan, images = _gan("dcgan"), _images(4, 16)
        generated = gan.generator(gan.draw_latents(4, _draws()))
        real_scores, generated_scores = gan.critic(images), gan.critic(generated)
        ones, zeros = torch.ones(4), torch.zeros(4)
        expected = binary_cross_entropy_with_logits(real_scores, ones)
        expected = expected + binary_cross_entropy_with_logits(generated_scores, zeros)
        torch.testing.assert_close(gan.critic_loss(images, _draws()), expected)
        expected = binary_cross_entropy_with_logits(generated_scores, ones)
        torch.testing.assert_close(gan.generator_loss(4, _draws()), expected)

    def test_latents_are_uniform(self) -> None:
        latents = _gan("dcgan").draw_latents(1000, _draws()).flatten().numpy()
        assert stats.kstest(latents, "uniform", (-1, 2)).pvalue > 1e-3


class TestGradientPenalty:
    def test_of_a_linear_critic(self) -> None:
        # Its gradient is its weights, of norm 3 everywhere: (3 - 1) squared.
        weights = torch.tensor([1.0, 2.0, 2.0]).view(1, 3, 1, 1)
        penalty = gradient_penalty(
            lambda x: (x * weights).sum((1, 2, 3)),
            torch.randn(5, 3, 1, 1),
            torch.randn(5, 3, 1, 1),
            _draws(),
        )
        torch.testing.assert_close(penalty, torch.tensor(4.0))

    def test_of_a_quadratic_critic(self) -> None:
        # The gradient of half the square is the image. Between 0 and an image of norm 5 it has
        # norm 5 u, u being what is drawn.
        generated = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(6, -1, -1, -1)
        penalty = gradient_penalty(
            lambda x: x.square().sum((1, 2, 3)) / 2, torch.zeros(6, 2, 1, 1), generated, _draws()
        )
        shares = torch.rand(6, generator=_draws())
        torch.testing.assert_close(penalty, (5 * shares - 1).square().mean())

    def test_its_gradient(self) -> None:
        # A critic a times the sum of 4 numbers: penalty (2 a - 1)^2, derivative 4 (2 a - 1).
        slope = torch.tensor(3.0, requires_grad=True)
        real, generated = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2, requires_grad=True)
        penalty = gradient_penalty(lambda x: slope * x.sum((1, 2, 3)), real, generated, _draws())
        torch.autograd.backward(penalty)
        torch.testing.assert_close(slope.grad, torch.tensor(20.0))
        assert generated.grad is None

    def test_a_flat_critic_has_a_finite_gradient(self) -> None:
        slope = torch.zeros((), requires_grad=True)
        images = torch.randn(2, 1, 2, 2)
        penalty = gradient_penalty(lambda x: slope * x.sum((1, 2, 3)), images, -images, _draws())
        torch.autograd.backward(penalty)
        assert float(penalty.detach()) == 1
        assert slope.grad is not None
        assert slope.grad.isfinite()

    def test_is_float32_under_autocast(self) -> None:
        gan, real, generated = _gan("wgan_gp"), _images(4, 16), -_images(4, 16)
        expected = gradient_penalty(gan.critic, real, generated, _draws())
        with torch.autocast("cpu", torch.bfloat16):
            penalty = gradient_penalty(gan.critic, real.bfloat16(), generated, _draws())
            assert penalty.dtype == torch.float32
            penalty = gradient_penalty(gan.critic, real, generated, _draws())
        assert torch.equal(penalty, expected)


class TestWganGp:
    @pytest.mark.parametrize("name", ["wgan_gp", "wgan_gp_residual"])
    def test_losses_are_the_papers(self, name: str) -> None:
        gan, images, draws = _gan(name), _images(4, 16), _draws()
        generated = gan.generator(gan.draw_latents(4, draws)).detach()
        penalty = gradient_penalty(gan.critic, images, generated, draws)
        expected = gan.critic(generated).mean() - gan.critic(images).mean() + 10 * penalty
        torch.testing.assert_close(gan.critic_loss(images, _draws()), expected)
        torch.testing.assert_close(gan.generator_loss(4, _draws()), -gan.critic(generated).mean())

    @pytest.mark.parametrize("name", ["wgan_gp", "wgan_gp_residual"])
    def test_a_score_depends_on_its_own_image_alone(self, name: str) -> None:
        gan, images = _gan(name), _images(4, 16)
        alone = torch.cat([gan.critic(image[None]) for image in images])
        torch.testing.assert_close(gan.critic(images), alone)

    def test_scores_start_at_the_scale_of_one(self) -> None:
        # He's weights keep variances; with DCGAN's, scores would begin a thousand times smaller.
        torch.manual_seed(0)
        scores = wgan_gp.Critic(16, 64)(torch.randn(64, 3, 64, 64)).detach()
        assert 0.2 < float(scores.std()) < 5

    def test_latents_are_normal(self) -> None:
        latents = _gan("wgan_gp").draw_latents(1000, _draws()).flatten().numpy()
        assert stats.kstest(latents, "norm").pvalue > 1e-3

    def test_residual_parameter_counts(self) -> None:
        # The authors' GoodGenerator and GoodDiscriminator at 64 pixels with 64 channels, the
        # latter without its layer norms. A block up from i to o channels:
        # 2 i + 9 i o + 2 o + 9 o o + o + i o + o; a block down: 9 i i + i + 9 i o + o + i o + o.
        settings = {"architecture": Architecture.residual, "latent_size": 128, "width": 64}
        gan = _meta(WganGpSettings(**WGAN_GP | settings), 64)
        # 128 x 8192 + 8192                               1,056,768
        # up 512 to 512                                   4,983,808
        # up 512 to 256                                   1,902,592
        # up 256 to 128                                     476,160
        # up 128 to 64                                      119,296
        # 2 x 64 + 27 x 64 + 3                                1,859
        assert _count(gan.generator) == 8_540_483
        # 27 x 64 + 64                                        1,792
        # down 64 to 128                                    119,104
        # down 128 to 256                                   475,776
        # down 256 to 512                                 1,901,824
        # down 512 to 512                                 4,982,272
        # 8192 + 1                                            8,193
        assert _count(gan.critic) == 7_488_961

    def test_residual_channels_grow_to_eight_times(self) -> None:
        assert wgan_gp.residual_channels(64, 64) == [512, 512, 256, 128, 64]
        assert wgan_gp.residual_channels(64, 128) == [512, 512, 512, 256, 128, 64]

    def test_residual_blocks_are_those_of_the_authors_code(self) -> None:
        torch.manual_seed(0)
        features = torch.randn(2, 4, 6, 6)
        up = wgan_gp.UpBlock(4, 3).eval()
        larger = interpolate(features, scale_factor=2)
        changed = up.conv1(interpolate(up.norm1(features).relu(), scale_factor=2))
        expected = up.shortcut(larger) + up.conv2(up.norm2(changed).relu())
        torch.testing.assert_close(up(features), expected)
        down = wgan_gp.DownBlock(4, 3)
        changed = down.conv2(down.conv1(features.relu()).relu())
        expected = down.shortcut(avg_pool2d(features, 2)) + avg_pool2d(changed, 2)
        torch.testing.assert_close(down(features), expected)


class TestPggan:
    def test_parameter_counts_are_those_of_table_2(self) -> None:
        published = PGGAN | {
            "latent_size": 512,
            "channels": [512, 512, 512, 512, 256, 128, 64, 32, 16],
        }
        gan = cast(Pggan, _meta(PgganSettings(**published), 1024))
        # Generator:  4x4  512 x 8192 + 512, 9 x 512 x 512 + 512          6,554,624
        #             8, 16, 32  3 x 2 x (9 x 512 x 512 + 512)           14,158,848
        #             64   9 x 512 x 256 + 256, 9 x 256 x 256 + 256       1,769,984
        #             128  9 x 256 x 128 + 128, 9 x 128 x 128 + 128         442,624
        #             256  9 x 128 x 64 + 64, 9 x 64 x 64 + 64              110,720
        #             512  9 x 64 x 32 + 32, 9 x 32 x 32 + 32                27,712
        #             1024 9 x 32 x 16 + 16, 9 x 16 x 16 + 16                 6,944
        #             to RGB  3 x 16 + 3                                         51
        assert _count(gan.generator.blocks) == 23_071_456
        table = _count(gan.generator.blocks) + _count(gan.generator.to_rgb[-1])
        assert round(table / 1e6, 1) == 23.1
        # With the layers to RGB of all levels: 3 x 2544 + 9 x 3.
        assert _count(gan.generator) == 23_071_456 + 7_659
        # Critic:     1024 9 x 16 x 16 + 16, 9 x 16 x 32 + 32                 6,960
        #             512  9 x 32 x 32 + 32, 9 x 32 x 64 + 64                27,744
        #             256  9 x 64 x 64 + 64, 9 x 64 x 128 + 128             110,784
        #             128  9 x 128 x 128 + 128, 9 x 128 x 256 + 256         442,752
        #             64   9 x 256 x 256 + 256, 9 x 256 x 512 + 512       1,770,240
        #             32, 16, 8  3 x 2 x (9 x 512 x 512 + 512)           14,158,848
        #             4    9 x 513 x 512 + 512, 8192 x 512 + 512, 513     6,559,745
        # With those from RGB: 3 x 2544 + 2544. The authors' code prints 23087249 for it.
        assert _count(gan.critic) == 23_077_073 + 10_176 == 23_087_249
        table = 23_077_073 + _count(gan.critic.from_rgb[-1])
        assert round(table / 1e6, 1) == 23.1

    @pytest.mark.parametrize("level", [0, 1, 2, 3])
    def test_shapes_at_every_resolution(self, level: int) -> None:
        gan = _grown()
        size = 4 * 2**level
        assert gan.begin(level * 150) == 2 * level
        assert (gan.resolution, gan.alpha) == (size, 1)
        images = gan.generator(torch.randn(3, 12), level, 1.0)
        assert images.shape == (3, 3, size, size)
        assert gan.critic(images, level, 1.0).shape == (3,)
        assert gan.sample(torch.randn(3, 12)).shape == (3, 3, 32, 32)

    @pytest.mark.parametrize(
        ("images_shown", "stage", "resolution", "alpha"),
        [
            (0, 0, 4, 1),
            (100, 0, 4, 1),
            (101, 1, 8, 0.02),
            (125, 1, 8, 0.5),
            (149, 1, 8, 0.98),
            (150, 2, 8, 1),
            (250, 2, 8, 1),
            (275, 3, 16, 0.5),
            (300, 4, 16, 1),
            (449, 5, 32, 0.98),
            (450, 6, 32, 1),
            (575, 6, 32, 1),
            (10**9, 6, 32, 1),
        ],
    )
    def test_growth(self, images_shown: int, stage: int, resolution: int, alpha: float) -> None:
        gan = _grown()
        gan.begin(425)  # Where it was before does not matter.
        assert gan.begin(images_shown) == stage
        assert (gan.resolution, gan.alpha) == (resolution, alpha)

    def test_growth_is_that_of_the_authors_schedule(self) -> None:
        # Their level of detail counts down from the full size; its fraction is what is faded.
        gan = _grown(stable_images=70, fade_images=30)
        for images_shown in range(500):
            phase, within = divmod(images_shown, 100)
            detail = max(3 - phase - max(within - 70, 0) / 30, 0)
            gan.begin(images_shown)
            assert gan.resolution == 32 // 2 ** math.floor(detail)
            assert gan.alpha == pytest.approx(1 - (detail - math.floor(detail)))

    def test_growth_without_fading_and_from_another_size(self) -> None:
        gan = _grown(fade_images=0, first_resolution=8)
        stages = [(gan.begin(shown), gan.resolution, gan.alpha) for shown in (0, 99, 100, 200, 300)]
        assert stages == [(0, 8, 1), (0, 8, 1), (2, 16, 1), (4, 32, 1), (4, 32, 1)]

    def test_fading_in_goes_from_the_level_below_to_the_next(self) -> None:
        gan, latents = _grown(), torch.randn(3, 12)
        lower, upper = gan.generator(latents, 1, 1.0), gan.generator(latents, 2, 1.0)
        lower = interpolate(lower, scale_factor=2)
        torch.testing.assert_close(gan.generator(latents, 2, 0.0), lower)
        mixed = 0.75 * lower + 0.25 * upper
        torch.testing.assert_close(gan.generator(latents, 2, 0.25), mixed)
        images = _images(3, 16)
        below = gan.critic(avg_pool2d(images, 2), 1, 1.0)
        torch.testing.assert_close(gan.critic(images, 2, 0.0), below)
        near = gan.critic(images, 2, 1 - 1e-6)
        torch.testing.assert_close(near, gan.critic(images, 2, 1.0), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("images_shown", "alpha"), [(275, 0.5), (300, 1.0), (0, 1.0)])
    def test_real_images_are_as_detailed_as_generated_ones(
        self, images_shown: int, alpha: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gan = _grown()
        gan.begin(images_shown)
        seen: list[Tensor] = []
        forward = gan.critic.forward

        def recorded(images: Tensor, level: int, alpha: float, batches: int = 1) -> Tensor:
            seen.append(images.detach())
            return forward(images, level, alpha, batches)

        monkeypatch.setattr(gan.critic, "forward", recorded)
        images, size = _images(4, 32), gan.resolution
        gan.critic_loss(images, _draws())
        blocks = images.numpy().reshape(4, 3, size, 32 // size, size, 32 // size)
        expected = blocks.mean((3, 5))
        if alpha < 1:
            halved = expected.reshape(4, 3, size // 2, 2, size // 2, 2).mean((3, 5))
            coarse = np.kron(halved, np.ones((2, 2)))
            expected = (1 - alpha) * coarse + alpha * expected
        assert seen[0].shape == (8, 3, size, size)
        np.testing.assert_allclose(seen[0][:4], expected, atol=1e-6)

    def test_critic_loss_is_the_papers(self) -> None:
        gan, images, draws = _grown(), _images(8, 32), _draws()
        gan.begin(450)
        generated = gan.generator(gan.draw_latents(8, draws), 3, 1.0).detach()
        scores: Tensor = gan.critic(images, 3, 1.0)
        penalty = gradient_penalty(lambda x: gan.critic(x, 3, 1.0), images, generated, draws)
        generated_score: Tensor = gan.critic(generated, 3, 1.0).mean()
        drift: Tensor = 0.001 * scores.square().mean()
        expected: Tensor = generated_score - scores.mean() + 10 * penalty + drift
        torch.testing.assert_close(gan.critic_loss(images, _draws()), expected)
        torch.testing.assert_close(gan.generator_loss(8, _draws()), -generated_score)

    def test_samples_come_from_the_average_cut_off_and_upsampled(self) -> None:
        gan = _grown()
        gan.begin(150)
        nn.init.constant_(cast(pggan.Conv, gan.average.to_rgb[1]).bias, 1.5)
        latents = gan.draw_latents(3, _draws())
        expected = gan.average(latents, 1, 1.0).numpy()
        assert expected.max() > 1
        expected = np.kron(expected.clip(-1, 1), np.ones((4, 4)))
        np.testing.assert_array_equal(gan.sample(latents), expected)

    def test_running_average(self) -> None:
        gan = _grown()
        start = [parameter.clone() for parameter in gan.generator.parameters()]
        for average, parameter in zip(gan.average.parameters(), start, strict=True):
            assert torch.equal(average, parameter)
            assert not average.requires_grad
        with torch.no_grad():
            for parameter in gan.generator.parameters():
                parameter.add_(1)
            gan.after_generator_step()  # 0.9 x 0 + 0.1 x 1 above the start
            for parameter in gan.generator.parameters():
                parameter.add_(1)
            gan.after_generator_step()  # 0.9 x 0.1 + 0.1 x 2
        for average, parameter in zip(gan.average.parameters(), start, strict=True):
            torch.testing.assert_close(average, parameter + 0.29)

    def test_latents_are_on_the_hypersphere(self) -> None:
        gan = _grown()
        latents = gan.draw_latents(5, _draws())
        radii = torch.linalg.vector_norm(pixel_norm(latents), dim=1)
        torch.testing.assert_close(radii, torch.full((5,), math.sqrt(12)))
        images = gan.generator(latents, 1, 1.0)
        torch.testing.assert_close(gan.generator(latents * 7, 1, 1.0), images)


class TestPggansLayers:
    def test_pixel_norm(self) -> None:
        # The mean square of 3 and 4 is 12.5.
        features = torch.tensor([[3.0, 0.0], [4.0, 0.0]]).view(1, 2, 2, 1)
        expected = torch.tensor([[3.0, 0.0], [4.0, 0.0]]).view(1, 2, 2, 1) / math.sqrt(12.5)
        torch.testing.assert_close(pixel_norm(features), expected)

    def test_minibatch_std(self) -> None:
        # Of 1 to 4 the variance is 1.25; the second feature is constant and halves the average.
        features = torch.ones(8, 2, 1, 1)
        features[:, 0, 0, 0] = torch.tensor([1.0, 2, 3, 4, 2, 4, 6, 8])
        group = math.sqrt(1.25) / 2
        expected = torch.tensor([group] * 4 + [2 * group] * 4)
        torch.testing.assert_close(minibatch_std(features), expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize(
        ("count", "groups"),
        [(1, [1]), (2, [2]), (3, [3]), (5, [3, 2]), (6, [3, 3]), (7, [4, 3]), (9, [3, 3, 3])],
    )
    def test_minibatch_std_of_odd_batches(self, count: int, groups: list[int]) -> None:
        features = torch.randn(count, 3, 4, 4, generator=_draws())
        stds = minibatch_std(features)
        for group, found in zip(
            torch.split(features, groups), torch.split(stds, groups), strict=True
        ):
            expected = np.sqrt(group.numpy().var(0) + 1e-8).mean()
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        # Two batches at once are as each alone.
        both = minibatch_std(torch.cat([features, 3 * features]), batches=2)
        torch.testing.assert_close(both, torch.cat([stds, minibatch_std(3 * features)]))

    def test_minibatch_std_is_one_more_feature_of_the_last_block(self) -> None:
        torch.manual_seed(0)
        verdict, features = pggan.Verdict(4), torch.randn(4, 4, 4, 4)
        std = minibatch_std(features).view(4, 1, 1, 1).expand(4, 1, 4, 4)
        layers = verdict.conv, verdict.hidden, verdict.score
        conv, hidden, score = (layer.scaled() for layer in layers)
        slope = nn.LeakyReLU(0.2)
        expected = slope(conv2d(torch.cat([features, std], 1), conv, padding=1)).flatten(1)
        expected = slope(expected @ hidden.T) @ score.T
        torch.testing.assert_close(verdict(features, 1), expected.flatten())

    def test_resampling_convolutions_are_resampling_and_convolution(self) -> None:
        torch.manual_seed(0)
        features = torch.randn(2, 3, 6, 6)
        up = pggan.UpConv(3, 5)
        kernel = up.scaled().transpose(0, 1).flip(2, 3)  # A transposed convolution turns it over.
        expected = conv2d(interpolate(features, scale_factor=2), kernel, padding=1)
        torch.testing.assert_close(up(features), expected)
        down = pggan.DownConv(3, 5)
        expected = avg_pool2d(conv2d(features, down.scaled(), padding=1), 2)
        torch.testing.assert_close(down(features), expected)

    @torch.no_grad()
    @pytest.mark.parametrize("inputs", [4, 64])
    def test_unit_inputs_give_outputs_of_the_gains_variance(self, inputs: int) -> None:
        torch.manual_seed(0)
        convolved = pggan.Conv(inputs, 64, 3, gain=1)(torch.randn(16, inputs, 16, 16))
        assert float(convolved[..., 1:-1, 1:-1].var()) == pytest.approx(1, rel=0.1)
        projected = pggan.Linear(inputs * 16, 64)(torch.randn(64, inputs * 16))
        assert float(projected.var()) == pytest.approx(2, rel=0.1)
        seed = pggan.Seed(inputs * 4, 16)
        # Of table 2's 4x4 convolution, which has 16 times as many inputs: 2 / 16.
        projected = torch.randn(64, inputs * 4) @ seed.project.scaled().T
        assert float(projected.var()) == pytest.approx(1 / 8, rel=0.15)

    def test_steps_are_alike_in_all_layers(self) -> None:
        # Adam's first step moves each weight by the learning rate; so relative to the layer's
        # weights all move alike, however many inputs there are.
        torch.manual_seed(0)
        moved = []
        for inputs in (4, 4096):
            layer = pggan.Linear(inputs, 64)
            before = layer.scaled().detach()
            torch.autograd.backward(layer(torch.randn(8, inputs)).square().sum())
            torch.optim.Adam(layer.parameters(), lr=1e-3, betas=(0.0, 0.99)).step()
            moved.append(float((layer.scaled().detach() - before).abs().mean() / layer.scale))
        assert moved == pytest.approx([1e-3, 1e-3], rel=1e-3)
