"""Every registered model keeps the contract, told nothing and told whatever it can be told."""

import pytest

from genbench.conformance import check_model, check_reference, usual_data
from genbench.core.dataset import build_dataset
from genbench.core.declared import declaration
from genbench.core.model import MODELS
from genbench.core.spec import parse_ref

DATA = "shapes[resolution=8]"


def _conditional() -> list[str]:
    """Models with a setting `condition`, once for each thing that it can be, `none` left out."""
    found = []
    for name in MODELS.names():
        path = MODELS.path(name)
        kinds = "" if path is None else declaration(path, name).config.get("condition", "")
        found += [f"{name}[condition={kind}]" for kind in ("class", "text") if f"'{kind}'" in kinds]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS.names())
def test_registered_model_keeps_the_contract(name):
    kind = MODELS.get(name)
    findings = check_model(kind, build_dataset(usual_data(kind.takes)))
    broken = [f"{finding.name}: {finding.message}" for finding in findings if not finding.passed]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", MODELS.names())
def test_no_setting_is_both_of_the_model_and_of_its_sampler(name):
    path = MODELS.path(name)
    declared = None if path is None else declaration(path, name)
    assert declared is None or not set(declared.config) & set(declared.sampling)


def test_conditional_settings_are_found():
    models = ("ddpm", "dit", "edm", "flow_matching", "latent_diffusion", "score_sde")
    expected = {f"{name}[condition={kind}]" for name in models for kind in ("class", "text")}
    assert expected | {"guided_diffusion[condition=class]"} <= set(_conditional())


@pytest.mark.slow
@pytest.mark.parametrize("label", _conditional())
def test_conditional_model_keeps_the_contract(label):
    findings = {finding.name: finding for finding in check_reference(parse_ref(label), parse_ref(DATA))}
    broken = [f"{finding.name}: {finding.message}" for finding in findings.values() if not finding.passed]
    assert not broken, "\n".join(broken)
    assert findings["conditions_can_be_given"].message == "kept"
