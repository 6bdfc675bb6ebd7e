"""Every registered model keeps the contract."""

import pytest

from genbench.conformance import check_model
from genbench.core.dataset import build_dataset
from genbench.core.model import MODELS
from genbench.core.spec import parse_ref


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS.names())
def test_registered_model_keeps_the_contract(name):
    findings = check_model(MODELS.get(name), build_dataset(parse_ref("shapes[resolution=8]")))
    broken = [f"{finding.name}: {finding.message}" for finding in findings if not finding.passed]
    assert not broken, "\n".join(broken)
