"""What an evaluation was given: samples, reference, held-out data, originals, networks, options."""

from __future__ import annotations

import dataclasses
import functools

from genbench.core.features import FeatureExtractor, Statistics
from genbench.core.spec import Scalar
from genbench.evaluation.captions import SampleCaptions
from genbench.evaluation.networks import Networks
from genbench.evaluation.options import Options
from genbench.evaluation.sides import FEATURES_GIVEN, Side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Everything that evidence can be made from."""

    samples: Side
    """What is scored."""
    reference: Side
    """Real training data."""
    held_out: Side | None
    """Real data that no model has been trained on; None: see `unseen`."""
    originals: Side | None
    """The pictures that the samples reconstruct, in the same order."""
    networks: Networks
    options: Options

    @functools.cached_property
    def captions(self) -> SampleCaptions:
        """What the samples were asked to show."""
        return SampleCaptions(self.samples, self.options)

    @property
    def unseen(self) -> Side | None:
        """Held-out data as given, else the split `test` of a reference of which only `train` is used."""
        if self.held_out is not None:
            return self.held_out
        side = self.reference
        if side.dataset is None or side.splits != ("train",) or "test" not in side.dataset.splits:
            return None
        return dataclasses.replace(side, splits=("test",))

    @property
    def needs_network(self) -> bool:
        """Whether features of some pictures are to be extracted."""
        return any(side.dataset is not None for side in (self.samples, self.reference))

    @property
    def extractor(self) -> FeatureExtractor:
        """The network of features."""
        return self.networks.get("features")

    @property
    def extractor_name(self) -> str:
        """Who made the features: the network's name, or what a statistics file says."""
        if self.needs_network:
            return self.networks.ref("features").name
        said = (statistics.protocol["extractor"] for statistics in self._known if "extractor" in statistics.protocol)
        return str(next(said, FEATURES_GIVEN))

    @property
    def protocol(self) -> dict[str, Scalar]:
        """What the features of both sides share."""
        if self.needs_network:
            return self.extractor.protocol()
        return dict(self._known[0].protocol) if self._known else {"extractor": FEATURES_GIVEN}

    @property
    def moments(self) -> Statistics | None:
        """Moments of the reference from a file; None where there are none, or others made them."""
        return None if self.why_no_moments is not None else self.reference.statistics

    @property
    def spatial_moments(self) -> Statistics | None:
        """The same of the spatial layer."""
        return None if self.why_no_moments is not None else self.reference.spatial

    @property
    def why_no_moments(self) -> str | None:
        """Why moments beside pictures of the reference are of no use here, None where they are, or are not there.

        Their file does not say what made them. By their number they may be of the network at hand, or not.
        """
        statistics = self.reference.statistics
        if statistics is None or self.reference.dataset is None or self.networks.why_not("features") is not None:
            return None
        mine, theirs = self.extractor.num_features, len(statistics.mean)
        if mine == theirs:
            return None
        return (
            f"the moments in {self.reference.label} are of {theirs} features and `{self.extractor_name}` has {mine}: "
            "the pictures beside them are used in their place"
        )

    @property
    def _known(self) -> list[Statistics]:
        return [side.statistics for side in (self.samples, self.reference) if side.statistics is not None]
