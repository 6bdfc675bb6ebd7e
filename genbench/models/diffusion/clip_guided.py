"""Diffusion of all pictures, guided to a caption by a dual encoder's similarity.

GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion Models. Alex Nichol, Prafulla
Dhariwal, Aditya Ramesh, Pranav Shyam, Pamela Mishkin, Bob McGrew, Ilya Sutskever, Mark Chen, 2021. arXiv:2112.10741

A dual encoder says how well a picture shows a caption. The gradient of what it says, added to the score of a diffusion
model that knows no captions, draws pictures of a caption. Nothing need be trained anew for another encoder.

Legend: `x_t` picture noised to step `t`, `x_0` estimate of the network, c caption, f and g directions of pictures and
captions, k sharpness (inverse temperature) of the encoder's training, `s` the scale `clip_scale`, `mu` and `Sigma` mean
and variance of a step, `alpha` and `sigma` factors of data and noise.

- Phase `diffusion`: as of `ddpm`.
- Phase `encoder`: a small dual encoder of pictures noised to a random t and of captions (`nn.noisy_dual_encoder`).
- Samples climb s k f . g(c): a step of `ddpm` is drawn from N(mu + s Sigma grad, Sigma) (Sec. 2.4), all other samplers
  follow eps - s sigma grad (Dhariwal and Nichol 2021, arXiv:2105.05233, Algorithm 2). At s = 0 nothing is climbed.
- `variant=noise_aware` climbs f(x_t, t) of the encoder of its own, as GLIDE does.
- `variant=x0_estimate` climbs f(x_0(x_t, t)) of an encoder that has seen no noise, such as the shipped `shapes_clip`,
  through the network (Bansal et al. 2023, arXiv:2302.07121, Eq. 6): one more evaluation of the network a step, and a
  pass back through it.

Both variants and all scales share weights. NFE counts the network alone, so a step of `noise_aware` is one evaluation
and one of `x0_estimate` two, as many as of guidance without a classifier; passes of encoders show in time and FLOPs.
With `condition=text` the network is told the caption as well, and `guidance` is as of `ddpm`. Samples that nobody asks
for take captions of training examples. The bound is that of the network without a caption.

A CLIP score read by the encoder that steered is not independent: steering raises it by means that no eye sees. Where
`x0_estimate` steers by the judge, the score is a `steered_clip_score` whose protocol says `steered_by`, and stands in a
column of its own; `caption_accuracy` is read by another network.

**Departures**
- GLIDE's encoder and network are its own large ones; here they are the U-Net of `ddpm` and its way down.
- Gradients are cut at 2 s alpha / sigma^2, which no exact gradient of a log-probability of x_t exceeds, as in
  `guided_diffusion`; the last step of `ddpm` is not shifted.
- `x0_estimate` takes no crops of the estimate and does not clip it before the encoder; clipping would stop gradients.
- `smoke` and `small` have the network of `ddpm` there. `paper` has GLIDE's T, schedule and batch around the network of
  `guided_diffusion`, not around 2.3 billion parameters; sizes and rates of its encoder are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.features import SteeringEncoder, build_features
from genbench.core.model import ConditionKind, Loss, Phase, Player, SteeredByFeatures, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Several, Share, Whole
from genbench.core.spec import parse_ref
from genbench.models._gaussian_diffusion import GaussianDiffusion
from genbench.nn.condition_pool import ConditionPool
from genbench.nn.noisy_classifier import NoisyClassifier
from genbench.nn.noisy_dual_encoder import NoisyDualEncoder, similarity_slope
from genbench.nn.unet import UNet
from genbench.prob import prediction
from genbench.prob.pixels import to_signed
from genbench.samplers._protocol import Slope

Similarity = Callable[[Tensor, Tensor], Tensor]
"""Of noised pictures and times to captions: (B,)."""
WIDTH = 2.0
"""Of [-1, 1]: no two means of x_0 differ by more."""


@register_model("clip_guided")
class CLIPGuided(GaussianDiffusion, SteeredByFeatures):
    """Diffusion in discrete time beside a dual encoder; the bound is as for `ddpm`.

    Raises:
        SettingError: the data have no captions.
    """

    needs = "text"

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        width: Count = 32
        """Channels of the first level of the U-Net."""
        multipliers: tuple[int, ...] = (1, 2)
        """Channels of each level as multiples of `width`, and of `encoder_width`."""
        num_blocks: Count = 1
        """Residual blocks per level, of the encoder too."""
        attention_resolution: Whole = 4
        """The first level of maps at most this large attends, as does the bottom; the encoder's too."""
        num_heads: Count = 1
        dropout: Fraction = 0.0
        patch: Count = 2
        """Side of the squares of pixels that are stacked into channels; the encoder sees pixels."""
        schedule: Literal["linear", "cosine"] = "cosine"
        output: Literal["noise", "data", "velocity"] = "velocity"
        """What the U-Net returns."""
        target: Literal["noise", "data", "velocity"] = "noise"
        """What the squared error of training is of."""
        learned_variance: bool = False
        """Whether the network also returns the variances of the reverse steps."""
        condition: Literal["none", "text"] = "none"
        """What the U-Net is told of an image; the encoder guides either way."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        num_timesteps: Several = 1000
        """T."""
        encoder_share: OpenShare = 0.3
        """Share of the examples seen that teach the encoder of noised pictures; the U-Net gets the rest."""
        encoder_width: Count = 16
        """Channels of the first level of its tower of pictures."""
        encoder_heads: Count = 1
        """Of each attention of that tower."""
        encoder_dim: Count = 64
        """Length of its embeddings."""
        words_width: Count = 64
        """Of its tower of captions."""
        encoder_lr: Positive = 2.0e-3
        """It falls to 0 along a cosine."""
        encoder_weight_decay: NonNegative = 0.05
        encoder_batch_size: Count = 64
        """Pictures among which a caption finds its own."""
        lr: Positive = 4.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn and the bound is evaluated."""

        variant: Literal["noise_aware", "x0_estimate"] = "noise_aware"
        """Which encoder looks at what: that of noised pictures, or `encoder` at the estimate of x_0."""
        clip_scale: NonNegative = 1.0
        """s: 0 leaves the encoder out, more exaggerates the caption."""
        encoder: str = "shapes_clip"
        """Which extractor looks at the estimate of x_0: `shapes_clip` or `clip`; of no effect with `noise_aware`."""
        sampler: Literal["ddpm", "ddim", "dpm_solver_pp", "heun", "predictor_corrector"] = "ddpm"
        num_steps: Count | None = 50
        """Steps, as of `ddpm`; None is T."""
        spacing: Literal["even", "karras"] = "even"
        """Steps even in time, or in a root of sigma / alpha from 80 down; `heun` always takes the latter."""
        eta: Share = 0.0
        """Share of the ancestral noise in a step of `ddim`."""
        predictor: Literal["reverse_diffusion", "none"] = "reverse_diffusion"
        """How `predictor_corrector` reaches the next level; `none` leaves all to the corrector."""
        corrector_steps: Whole = 1
        """Steps of Langevin dynamics at each level."""
        snr: Positive = 0.16
        """Ratio of the norms of signal and noise in such a step."""
        guidance: NonNegative = 1.0
        """How the U-Net's own knowledge of the caption is followed, as in `ddpm`; nothing with `condition=none`."""
        variance: Literal["beta", "beta_tilde"] = "beta_tilde"
        """Variance of a step of `ddpm`; of no effect where it is learned."""
        likelihood_steps: Count | None = 20
        """Terms of the bound evaluated between the first and the last, one from each stratum; None is all."""
        likelihood_variance: Literal["beta", "beta_tilde"] = "beta"
        """Variance of the steps in the bound; of no effect where it is learned."""

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1),
        "small": Config(),
        "paper": Config(
            width=192,
            multipliers=(1, 2, 3, 4),
            num_blocks=3,
            attention_resolution=16,
            num_heads=12,  # of 64 channels each at the bottom
            dropout=0.1,
            patch=1,
            output="noise",
            learned_variance=True,
            encoder_width=128,
            encoder_heads=8,  # of 64 channels each at the bottom
            encoder_dim=512,
            words_width=512,
            encoder_lr=3.0e-4,
            encoder_batch_size=2048,
            lr=1.0e-4,
            warmup_steps=0,
            final_lr_share=1.0,
            ema_decay=0.9999,
            batch_size=2048,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=25),
        "small": Sampling(),
        "paper": Sampling(clip_scale=3.0, num_steps=250, likelihood_steps=None),
    }
    config: Config
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config, clip_norm=1.0)
        if not spec.vocabulary:
            raise SettingError(
                "`clip_guided` guides to captions: the data have none", hint="`shapes` has captions; `ddpm` needs none"
            )
        self.sampling = self.Sampling()
        C, side, _ = spec.shape
        self.unet = UNet(
            C,
            self.num_outputs,
            resolution=side,
            width=config.width,
            multipliers=config.multipliers,
            num_blocks=config.num_blocks,
            attention_resolution=config.attention_resolution,
            num_heads=config.num_heads,
            dropout=config.dropout,
            patch=config.patch,
        )
        self.make_conditioner(self.unet.embedding_dim)
        pictures = NoisyClassifier(
            C,
            config.encoder_dim,
            resolution=side,
            width=config.encoder_width,
            multipliers=config.multipliers,
            num_blocks=config.num_blocks,
            attention_resolution=config.attention_resolution,
            num_heads=config.encoder_heads,
        )
        self.encoder = NoisyDualEncoder(
            pictures, num_words=len(spec.vocabulary), dim=config.encoder_dim, width=config.words_width
        )
        self.captions = ConditionPool("text")
        self._steering: dict[str, SteeringEncoder] = {}
        """Encoders of clean pictures by name, outside of the modules: they are no part of the model's weights."""

    @property
    def network(self) -> UNet:
        """The U-Net."""
        return self.unet

    @property
    def condition_kind(self) -> ConditionKind:
        """`text`: the encoder makes samples of it whatever the network is told."""
        return "text"

    @property
    def steered_by(self) -> str | None:
        """Name of the extractor whose similarity samples climb; None for the model's own, and at s = 0."""
        how = self.sampling
        return how.encoder if how.variant == "x0_estimate" and how.clip_scale > 0.0 else None

    def phases(self) -> tuple[Phase, ...]:
        """The network, and then the encoder."""
        c = self.config
        encoder = Player(
            name="encoder",
            modules=(self.encoder,),
            lr=c.encoder_lr,
            weight_decay=c.encoder_weight_decay,
            clip_norm=1.0,
            warmup_steps=c.warmup_steps,
            final_lr_share=0.0,
        )
        network, share = self.denoising_player(), c.encoder_share
        return (
            Phase(name="diffusion", share=1.0 - share, players=(network,), batch_size=c.batch_size),
            Phase(name="encoder", share=share, players=(encoder,), batch_size=c.encoder_batch_size),
        )

    def prepare(self, batch: Batch) -> None:
        """Keep captions to draw from until training brings its own."""
        super().prepare(batch)
        self.captions.prepare(batch)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `network` as of `ddpm`, or of `encoder`, in nats."""
        captions = self.captions.of_batch(batch)
        self.captions.keep(captions)
        return self._encoder_loss(batch.x, captions) if player == "encoder" else self.denoising_loss(batch)

    def drawn_conditions(self, count: int, *, generator: Generator) -> Tensor:
        """Captions of training examples, at random: (count, T)."""
        return self.captions.drawn(count, generator=generator)

    def slope(self, condition: Tensor | None) -> Slope | None:
        """Gradient s k grad f . g(c) that samples of captions (B, T) climb; None without one, and at s = 0."""
        scale = self.sampling.clip_scale
        if condition is None or scale == 0.0:
            return None
        noise_aware = self.sampling.variant == "noise_aware"
        similarity = self.similarity_of_noised(condition) if noise_aware else self.similarity_of_estimate(condition)

        def climbed(x_t: Tensor, t: Tensor) -> Tensor:
            at = self._level(t)
            most = WIDTH * at["alpha"] / at["sigma"].square()
            return scale * similarity_slope(similarity, x_t, t).clamp(-most, most)

        return climbed

    def similarity_of_noised(self, captions: Tensor) -> Similarity:
        """Similarity k f(x_t, t) . g(c) of the model's own encoder, from noised pictures and times to (B,)."""
        with torch.inference_mode(mode=False), torch.no_grad():
            spoken, sharpness = self.encoder.captions(captions.clone()), self.encoder.sharpness
        return lambda x_t, t: sharpness * (self.encoder.shown(x_t, t) * spoken).sum(1)

    def similarity_of_estimate(self, captions: Tensor) -> Similarity:
        """Similarity k f(x_0(x_t, t)) . g(c) of the encoder that `sampling` names; arguments and shape as above.

        Raises:
            SettingError: there is no such encoder, or none that gives gradients.
            DataError: its weights are not there.
            ValueError: it does not know a word of the captions.
        """
        encoder = self._steering_encoder(captions.device)
        with torch.inference_mode(mode=False), torch.no_grad():
            told = None if self.conditioner is None else self.told(captions.clone())
            spoken = F.normalize(encoder.encode_text([self.spec.caption(row) for row in captions]), dim=1)

        def similarity(x_t: Tensor, t: Tensor) -> Tensor:
            out, _ = self._outputs(x_t, t, told, guidance=self.sampling.guidance)
            x_0 = prediction.to_data(out, self.config.output, x_t, **self._level(t))
            seen = F.normalize(encoder.embed_signed(x_0.expand(-1, 3, -1, -1)), dim=1)  # grey has one channel
            return encoder.sharpness * (seen * spoken).sum(1)

        return similarity

    def _steering_encoder(self, device: torch.device) -> SteeringEncoder:
        name = self.sampling.encoder
        if name not in self._steering:
            built: object = build_features(parse_ref(name)).to(device)
            if not isinstance(built, SteeringEncoder):
                raise SettingError(f"`encoder={name}` cannot steer: it embeds no captions", hint="shapes_clip or clip")
            self._steering[name] = built
        return self._steering[name]

    def _encoder_loss(self, x: Tensor, captions: Tensor) -> Loss:
        x_0 = to_signed(x, self.levels)
        t = torch.randint(1, self.schedule.num_steps + 1, (len(x_0),), device=x_0.device)
        loss, found = self.encoder.loss(self._noised(x_0, t, torch.randn_like(x_0)), t, captions)
        return Loss(loss, {"contrast": loss.detach(), "retrieval": found})
