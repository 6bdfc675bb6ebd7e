"""Captions by a published text encoder that stands still: any of Hugging Face's, by name or from a folder.

Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (Saharia et al. 2022, arXiv:2205.11487,
Sec. 2.1) tells its network the states of a frozen language model. So does this: last hidden states of the encoder's
tokens, normalised and mapped to the length that the network wants; these two maps are all that is trained, and all that
is kept. What the encoder was is kept as a digest of its weights, so that another one is never taken in its place.

BERT, T5, the text tower of CLIP, and whatever else `transformers` loads for a name or a folder; of encoder-decoders the
encoder. States of each caption are computed once and remembered, for as many captions as `REMEMBERED`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.core.errors import DataError, SettingError
from genbench.core.text_encoders import WANTED, by_hand, can_be_fetched, check_text_encoder

try:
    import transformers
except ImportError as error:
    raise SettingError(
        "a `text_encoder` of Hugging Face needs the library `transformers`", hint="pip install genbench[text]"
    ) from error

REMEMBERED = 4096
"""Captions whose states are kept; `shapes` has 960."""
_UNREADABLE = (OSError, ValueError, ImportError, RuntimeError)
_Loaded = tuple[transformers.PretrainedConfig, transformers.PreTrainedTokenizerBase, transformers.PreTrainedModel]


class FrozenTextEncoder(nn.Module):
    """Captions (B, T) of a vocabulary to vectors (B, dim), or to a vector for each of the encoder's tokens.

    Args:
        name: of the encoder, or the path of its folder.
        spec: of the data; spells the captions out.
        dim: of the vectors.

    Raises:
        DataError: there is no such encoder.
    """

    digest: Tensor

    def __init__(self, name: str, spec: DataSpec, dim: int) -> None:
        super().__init__()
        self._name, self._spec = name, spec
        self._tokenizer, encoder = _loaded(name, spec.vocabulary[1:])
        self._frozen = [encoder]
        """Outside of the modules: published weights are no part of the model's own."""
        self._remembered: dict[str, Tensor] = {}
        width = int(encoder.config.hidden_size)
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, dim)
        self._own_digest = _digest(encoder)
        self.register_buffer("digest", torch.tensor(self._own_digest))

    def forward(self, captions: Tensor) -> Tensor:
        """Vectors (B, dim), the mean over the encoder's tokens; padding changes nothing."""
        h, shown = self._projected(captions)
        mean: Tensor = h.sum(1) / shown.sum(1)
        return mean

    def tokens(self, captions: Tensor) -> Tensor:
        """A vector for each of the encoder's tokens (B, L, dim), zero for padding."""
        return self._projected(captions)[0]

    def states(self, captions: list[str]) -> list[Tensor]:
        """Last hidden states of each caption, (its tokens, width) float32, as the encoder gives them.

        Raises:
            DataError: the weights around the encoder were trained with another one.
        """
        if int(self.digest) != self._own_digest:
            raise DataError(
                f"text encoder `{self._name}`: its weights are not those that this model was trained with",
                hint="name the same encoder as in training",
            )
        missing = [caption for caption in dict.fromkeys(captions) if caption not in self._remembered]
        if len(self._remembered) + len(missing) > REMEMBERED:
            self._remembered.clear()
            missing = list(dict.fromkeys(captions))
        if missing:
            self._remembered |= dict(zip(missing, self._encoded(missing), strict=True))
        return [self._remembered[caption] for caption in captions]

    @torch.no_grad()
    def _encoded(self, captions: list[str]) -> list[Tensor]:
        device = self.project.weight.device
        encoder = self._frozen[0]
        nn.Module.to(encoder, device)
        words = self._tokenizer(captions, padding=True, truncation=True, return_tensors="pt").to(device)
        mask = words["attention_mask"]
        found = encoder(input_ids=words["input_ids"], attention_mask=mask).last_hidden_state.float()
        return [states[kept.bool()] for states, kept in zip(found, mask, strict=True)]

    def _projected(self, captions: Tensor) -> tuple[Tensor, Tensor]:
        """Projected states (B, L, dim), zero where padding stands, and where none stands, (B, L, 1)."""
        found = self.states([self._spec.caption(row) for row in captions.cpu()])
        device, dtype = self.project.weight.device, self.project.weight.dtype
        filled = nn.utils.rnn.pad_sequence(found, batch_first=True).to(device, dtype)
        lengths = torch.tensor([len(states) for states in found], device=device)
        shown = (torch.arange(filled.shape[1], device=device) < lengths[:, None])[:, :, None].to(dtype)
        return self.project(self.norm(filled)) * shown, shown


def _loaded(
    name: str, words: Sequence[str]
) -> tuple[transformers.PreTrainedTokenizerBase, transformers.PreTrainedModel]:
    """Tokenizer, which knows words, and encoder in evaluation mode, without gradients; what is here asks no network."""
    check_text_encoder(name)
    hint = f"give {WANTED}"
    try:
        try:
            config, tokenizer, encoder = _read(name, words, local_files_only=True)
        except _UNREADABLE:
            if not can_be_fetched(name):
                hint = hint if Path(name).is_dir() else by_hand(name)
                raise
            config, tokenizer, encoder = _read(name, words, local_files_only=False)
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"text encoder `{name}`: cannot be loaded: {reason}", hint=hint) from error
    if config.is_encoder_decoder and type(config) not in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:
        encoder = encoder.get_encoder()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer, encoder.float().eval().requires_grad_(False)


def _read(name: str, words: Sequence[str], *, local_files_only: bool) -> _Loaded:
    config = transformers.AutoConfig.from_pretrained(name, local_files_only=local_files_only)
    tokenizer = transformers.AutoTokenizer.from_pretrained(name, local_files_only=local_files_only)
    if len(words) > 1 and len({tuple(tokenizer(word)["input_ids"]) for word in words}) == 1:
        # `transformers` makes an empty tokenizer where its files are missing
        raise ValueError("its tokenizer tells no two words of the captions apart; are the tokenizer's files there?")
    return config, tokenizer, _kind_of(config).from_pretrained(name, local_files_only=local_files_only)


def _kind_of(config: transformers.PretrainedConfig) -> type[transformers.PreTrainedModel]:
    """What loads the encoder of texts alone, where a folder holds more."""
    kind: object = transformers.AutoModel
    if config.model_type in {"clip", "clip_text_model"}:
        kind = transformers.CLIPTextModel
    elif type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:
        kind = transformers.AutoModelForTextEncoding
    return cast("type[transformers.PreTrainedModel]", kind)


def _digest(encoder: nn.Module) -> int:
    """63 bits of the SHA-256 of all weights by name."""
    content = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        content.update(name.encode() + value.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return int.from_bytes(content.digest()[:8]) >> 1
