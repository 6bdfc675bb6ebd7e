"""What a network that cannot be had does to an evaluation: a reason, or an error."""

import pytest
import torch

from genbench.core.errors import DataError, SettingError, UnknownName
from genbench.core.features import FEATURES, TextEncoder
from genbench.core.references import judges_of_captions
from genbench.core.spec import parse_ref
from genbench.evaluation.networks import Networks, Roles, chosen_roles

SHAPES = parse_ref("shapes_net")
MISTAKEN = "clip[model=no_such_model]"


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No weights in the cache, and a file that is not there where they are looked for, so nothing is downloaded."""
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path / "nothing.pth"))


def test_roles_are_named_only_where_somebody_named_them():
    assert chosen_roles(SHAPES, perceptual=None, text_encoder=None) == Roles(features=SHAPES)
    roles = chosen_roles(SHAPES, perceptual=None, text_encoder="shapes_clip")
    assert roles.named == {"features", "captions"}
    assert (roles.captions.name, roles.perceptual.name) == ("shapes_clip", "lpips")


def test_a_name_that_nobody_registered_is_an_error_before_anything_is_built():
    with pytest.raises(UnknownName, match="clpi") as caught:
        chosen_roles(SHAPES, perceptual=None, text_encoder="clpi")
    assert "`clip`" in caught.value.hint


def test_only_judges_of_captions_are_offered_in_their_place():
    with pytest.raises(UnknownName, match="unknown judge of captions `nosuch`") as caught:
        chosen_roles(SHAPES, perceptual=None, text_encoder="nosuch")
    assert caught.value.hint == "known names: clip, shapes_clip"
    with pytest.raises(SettingError, match="`lpips` embeds no captions") as caught:  # before its weights are looked for
        chosen_roles(SHAPES, perceptual=None, text_encoder="lpips")
    assert caught.value.hint == "take `clip` or `shapes_clip`"
    judges = judges_of_captions(FEATURES.names(), FEATURES.files())
    assert judges == [name for name in FEATURES.names() if issubclass(FEATURES.get(name), TextEncoder)]


@pytest.mark.parametrize("role", ["perceptual", "captions"])
def test_a_mistake_in_a_network_that_was_named_is_an_error_each_time(role):
    given = {"perceptual": None, "text_encoder": None, "text_encoder" if role == "captions" else role: MISTAKEN}
    networks = Networks(chosen_roles(SHAPES, **given))
    for _ in range(2):
        with pytest.raises(SettingError, match="no model `no_such_model`"):
            networks.why_not(role)


def test_a_mistake_in_a_network_that_nobody_named_is_a_reason():
    networks = Networks(Roles(features=SHAPES, captions=parse_ref(MISTAKEN)))
    for _ in range(2):
        assert "no model `no_such_model`" in networks.why_not("captions")
        assert "no model `no_such_model`" in networks.why_no_text_encoder()


def test_missing_weights_are_a_reason_whoever_named_the_network():
    for text_encoder in (None, "clip"):
        networks = Networks(chosen_roles(SHAPES, perceptual=None, text_encoder=text_encoder))
        reason = networks.why_no_text_encoder()
        assert "nothing.pth" in reason
        with pytest.raises(DataError):
            networks.get("captions")


def test_a_network_in_a_role_that_it_cannot_play_is_an_error():
    named = frozenset({"perceptual", "captions"})
    networks = Networks(Roles(features=SHAPES, perceptual=SHAPES, captions=SHAPES, named=named))
    with pytest.raises(SettingError, match="embeds no captions"):
        networks.why_no_text_encoder()
    with pytest.raises(SettingError, match="gives no perceptual distances"):
        networks.why_no_distance(64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_an_error_before_anything_is_built(device):
    with pytest.raises(SettingError, match=f"device `{device}`: no NVIDIA driver"):
        Networks(Roles(features=SHAPES), torch.device(device))


def test_a_network_is_built_once_and_embeds():
    networks = Networks(chosen_roles(SHAPES, perceptual=None, text_encoder="shapes_clip"))
    assert networks.why_no_text_encoder() is None
    assert networks.text_encoder() is networks.get("captions")
    assert torch.isfinite(networks.text_encoder().encode_text(["a small red circle"])).all()
