"""The networks behind an evaluation, each built when the first metric asks for it, or the reason why it cannot be.

What this machine lacks, weights mostly, is a reason to skip the metrics that need them. A mistake in a network that
somebody named, a setting or a model that it has not, is an error; in one that nobody named it is a reason too.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from genbench.core.errors import DataError, GenbenchError, SettingError
from genbench.core.features import FEATURES, FeatureExtractor, PerceptualDistance, TextEncoder, build_features
from genbench.core.references import check_judges_name
from genbench.core.spec import Cell, Ref, parse_ref

Role = Literal["features", "perceptual", "captions"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roles:
    """Which extractor plays which part."""

    features: Ref
    """For everything that compares features, logits or factors."""
    perceptual: Ref = dataclasses.field(default_factory=lambda: Ref(name="lpips"))
    """For perceptual distances."""
    captions: Ref = dataclasses.field(default_factory=lambda: Ref(name="clip"))
    """For images beside captions."""
    named: frozenset[Role] = frozenset({"features"})
    """Roles whose extractor somebody chose: mistakes in these are errors."""


def chosen_roles(features: Ref, *, perceptual: str | Ref | None, text_encoder: str | Ref | None) -> Roles:
    """Roles as they were named; what is None has its default.

    Raises:
        UnknownName: nobody registered such an extractor, whether or not a metric will need it.
        SettingError: the one for captions embeds none.
    """
    given: dict[Role, str | Ref | None] = {"perceptual": perceptual, "captions": text_encoder}
    named = {role: ref if isinstance(ref, Ref) else parse_ref(ref) for role, ref in given.items() if ref is not None}
    for role, ref in named.items():
        if role == "captions":
            check_judges_name(FEATURES.names(), FEATURES.files(), ref)
        elif ref.name not in FEATURES.names():
            FEATURES.get(ref.name)  # says what is near
    roles = Roles(features=features, named=frozenset({"features", *named}))
    return dataclasses.replace(
        roles, perceptual=named.get("perceptual", roles.perceptual), captions=named.get("captions", roles.captions)
    )


def roles_of(cell: Cell) -> Roles:
    """Who judges a cell: what its suite names, else the default."""
    if cell.text_encoder is None:
        return Roles(features=cell.features)
    return Roles(features=cell.features, captions=cell.text_encoder, named=frozenset({"features", "captions"}))


class Networks:
    """Extractors by role, built once each.

    Args:
        roles: who plays which part.
        device: where they live.

    Raises:
        SettingError: there is no such device on this machine.
    """

    def __init__(self, roles: Roles, device: torch.device | None = None) -> None:
        self.roles = roles
        self._device = torch.device("cpu") if device is None else device
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise SettingError(
                f"device `{self._device}`: no NVIDIA driver, or torch was built without CUDA",
                hint="`genbench doctor` shows both",
            )
        self._built: dict[str, FeatureExtractor] = {}
        self._broken: dict[str, GenbenchError] = {}

    def ref(self, role: Role) -> Ref:
        """What the extractor of a role is built from."""
        return {"features": self.roles.features, "perceptual": self.roles.perceptual, "captions": self.roles.captions}[
            role
        ]

    def get(self, role: Role) -> FeatureExtractor:
        """The extractor of a role.

        Raises:
            GenbenchError: it cannot be built: unknown, misconfigured, or without weights.
        """
        label = self.ref(role).label
        if label in self._broken:
            raise self._broken[label]
        if label not in self._built:
            try:
                self._built[label] = build_features(self.ref(role)).to(self._device)
            except GenbenchError as error:
                self._broken[label] = error
                raise
        return self._built[label]

    def why_not(self, role: Role) -> str | None:
        """Why a role has no network on this machine, None when it has: what is missing and how to get it.

        Raises:
            GenbenchError: somebody named the network, and named it wrongly.
        """
        try:
            self.get(role)
        except GenbenchError as error:
            if role in self.roles.named and not isinstance(error, DataError):
                raise
            return error.message if error.hint is None else f"{error.message}; {error.hint}"
        return None

    def text_encoder(self) -> TextEncoder:
        """The network of captions.

        Raises:
            SettingError: the extractor in that role embeds none.
        """
        network: object = self.get("captions")
        if not isinstance(network, TextEncoder):
            raise SettingError(f"`{self.roles.captions.label}` embeds no captions", hint="take `clip` or `shapes_clip`")
        return network

    def why_no_text_encoder(self) -> str | None:
        """Why captions cannot be embedded, None when they can; errors as `why_not` and `text_encoder`."""
        missing = self.why_not("captions")
        if missing is None:
            self.text_encoder()
        return missing

    def perceptual(self) -> PerceptualDistance:
        """The network of perceptual distances.

        Raises:
            SettingError: the extractor in that role gives none.
        """
        network: object = self.get("perceptual")
        if not isinstance(network, PerceptualDistance):
            raise SettingError(f"`{self.roles.perceptual.label}` gives no perceptual distances", hint="take `lpips`")
        return network

    def why_no_distance(self, side: int) -> str | None:
        """Why perceptual distances of pictures with that many pixels per side cannot be had, None when they can."""
        missing = self.why_not("perceptual")
        if missing is not None or side >= (least := self.perceptual().least_side):
            return missing
        return f"`{self.roles.perceptual.label}` needs pictures of at least {least} pixels per side, these have {side}"
