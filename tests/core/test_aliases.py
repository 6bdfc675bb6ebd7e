"""Names of types are spelt out from sources, in the words in which Python resolves them."""

import ast
import dataclasses
import typing

import pytest

from genbench.core.aliases import spelt_out
from genbench.core.dataset import DATASETS
from genbench.core.declared import _kinds, annotations_of, declaration
from genbench.core.features import FEATURES
from genbench.core.metric import METRICS
from genbench.core.model import MODELS
from genbench.core.registry import Registry
from genbench.core.settings import field_names, kinds_of

REGISTRIES: dict[str, Registry] = {"model": MODELS, "dataset": DATASETS, "metric": METRICS, "features": FEATURES}
BUILT_IN = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.files()]


def _annotations(source: str) -> list[str]:
    tree = ast.parse(source)
    owner = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    spelt_out(owner, tree)
    return [ast.unparse(node.annotation) for node in ast.walk(owner) if isinstance(node, ast.AnnAssign)]


def test_an_alias_of_the_file_stands_for_its_type_also_in_a_nested_class_and_beside_none():
    source = (
        "Law = Literal['a', 'b']\nclass C:\n    law: Law = 'a'\n    class Config:\n        law: Law | None = None\n"
    )
    assert _annotations(source) == ["Literal['a', 'b']", "Literal['a', 'b'] | None"]


def test_an_alias_comes_from_the_file_that_it_is_imported_from():
    source = "from genbench.nn.vector_quantizer import Codebook as Book\nclass C:\n    codebook: Book = 'ema'\n"
    assert _annotations(source) == ["Literal['ema', 'gradient']"]


def test_names_that_are_no_aliases_stay():
    source = "from genbench.core.spec import Ref\nclass C:\n    ref: Ref\n    count: Count\n    x: torch.Tensor\n"
    assert _annotations(source) == ["Ref", "Count", "torch.Tensor"]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_values_of_every_setting_are_known_to_plans_as_to_the_class(kind, name):
    path, cls = REGISTRIES[kind].files()[name], REGISTRIES[kind].get(name)
    read = declaration(path, name).config if kind == "model" else annotations_of(path, name)
    owner = getattr(cls, "Config", cls)
    if not dataclasses.is_dataclass(owner):
        assert not read
        return
    hints = typing.get_type_hints(owner, include_extras=True)
    for key in field_names(owner):
        assert _kinds(ast.parse(read[key], mode="eval").body) == kinds_of(hints[key]), key
