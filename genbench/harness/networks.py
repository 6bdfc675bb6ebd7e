"""The networks behind an evaluation, each built when the first metric asks for it, or the reason why it cannot be."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from genbench.core.errors import DataError, GenbenchError, SettingError
from genbench.core.features import FeatureExtractor, PerceptualDistance, build_features
from genbench.core.spec import Ref

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


class Networks:
    """Extractors by role, built once each.

    Args:
        roles: who plays which part.
        device: where they live.
    """

    def __init__(self, roles: Roles, device: torch.device | None = None) -> None:
        self.roles = roles
        self._device = torch.device("cpu") if device is None else device
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
            except DataError as error:
                self._broken[label] = error
                raise
        return self._built[label]

    def why_not(self, role: Role) -> str | None:
        """Why a role has no network on this machine, None when it has: what is missing and how to get it."""
        try:
            self.get(role)
        except DataError as error:
            return error.message if error.hint is None else f"{error.message}; {error.hint}"
        return None

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
