"""References, cells and their keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genbench.core.errors import SettingError
from genbench.core.record import json_schemas
from genbench.core.spec import Cell, Ref, parse_ref
from genbench.plan import Selection, load_suite, make_plan

_KEYS = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(lambda key: key != "preset")
_VALUES = st.one_of(
    st.integers(-(10**6), 10**6),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(
        lambda text: text not in {"true", "false", "nan", "inf", "infinity"}
    ),
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_a_label_reads_back_as_the_same_reference(config):
    ref = Ref(name="vae", config=config)
    assert parse_ref(ref.label) == ref


def test_a_path_after_the_colon_is_the_argument():
    ref = parse_ref("folder:/some/where:else[resolution=32]")
    assert (ref.name, ref.argument, ref.config) == ("folder", "/some/where:else", {"resolution": 32})


@pytest.mark.parametrize("text", ["vae[latent_dim]", "vae[=3]", "vae[a=1", "vae]", "[a=1]", ""])
def test_a_malformed_reference_is_refused(text):
    with pytest.raises(SettingError):
        parse_ref(text)


@pytest.mark.parametrize("text", ["vae[width=8,width=16]", "vae[preset=smoke,preset=small]", "digits[a=1,b=2, a=1]"])
def test_a_setting_given_twice_is_refused(text):
    with pytest.raises(SettingError, match="twice"):
        parse_ref(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("fsq[levels=8,6,5]", "commas separate settings; a list of numbers is written with x: `levels=8x6x5`"),
        ("fsq[levels=8,6,width=5]", "commas separate settings; a list of numbers is written with x: `levels=8x6`"),
        ("vae[likelihood=a,b]", "commas separate settings, each of which is `key=value`"),
        ("vae[latent_dim]", None),
        ("vae[width=1,=2]", None),
    ],
)
def test_a_part_without_a_key_is_told_that_commas_separate_settings(text, hint):
    with pytest.raises(SettingError, match="is not `key=value`") as error:
        parse_ref(text)
    assert error.value.hint == hint


@pytest.fixture(scope="module")
def cells():
    return make_plan(load_suite("images"), Selection(tier="smoke"), version="1").cells


def test_every_cell_has_a_key_of_its_own(cells):
    assert len({cell.key for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"suite_version": 99},
        {"source_sha256": "other"},
        {"genbench_version": "2"},
        {"device": "cuda"},
        {"samples_seen": 1},
        {"tier": "other"},
        {"dataset": parse_ref("digits")},
        {"subject": parse_ref("vae[latent_dim=3]")},
        {"sampling": {"num_steps": 3}},
        {"text_encoder": parse_ref("shapes_clip")},
    ],
)
def test_anything_that_can_move_a_number_moves_the_key(cells, change):
    assert cells[0].model_copy(update=change).key != cells[0].key


def test_a_cell_from_before_text_encoders_has_the_key_that_it_had():
    written = json.loads(Path(__file__).with_name("first_cell.json").read_text(encoding="utf-8"))
    assert "text_encoder" not in written["cell"]
    assert Cell.model_validate(written["cell"]).key == written["key"]


def test_settings_of_a_sampler_leave_the_trained_weights_alone(cells):
    changed = cells[0].model_copy(update={"sampling": {"num_steps": 3}})
    assert changed.train_key == cells[0].train_key
    assert cells[0].model_copy(update={"seed": 3}).train_key != cells[0].train_key


def test_a_sampler_of_the_same_model_takes_its_weights_from_the_first_cell(cells):
    by_label = {cell.label: cell for cell in cells}
    ancestral, ddim = by_label["ddpm"], by_label["ddpm[sampler=ddim,num_steps=25]"]
    assert ddim.weights_from == ancestral.key
    assert ancestral.weights_from is None


def test_every_file_format_has_a_json_schema():
    schemas = json_schemas()
    assert set(schemas) == {"Suite", "Cell", "Record", "Score", "Timing", "Environment"}
    assert all(schema["type"] == "object" for schema in schemas.values())
    assert schemas["Suite"]["additionalProperties"] is False
