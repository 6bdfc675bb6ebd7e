"""Suite files: what is read, what is refused, and how they expand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import genbench
from genbench.core.errors import DataError, GenbenchError, SettingError, SuiteError, UnknownName
from genbench.plan import Selection, load_suite, make_plan, read_suite, suite_files


def _refused(tmp_path: Path, text: str) -> SuiteError:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SuiteError) as caught:
        read_suite(path)
    return caught.value


@pytest.mark.parametrize("name", sorted(suite_files()))
def test_every_shipped_suite_reads_and_expands_in_every_tier(name):
    suite = load_suite(name)
    assert suite.name == name
    for tier in suite.tiers:
        plan = make_plan(suite, Selection(tier=tier), version="1")
        assert len(plan.cells) == len(plan.protocol.seeds) * (len(suite.models) + len(suite.controls))


def test_the_default_tier_follows_the_device():
    suite = load_suite("images")
    assert make_plan(suite, Selection(), version="1").tier == "quick"
    assert make_plan(suite, Selection(device="cuda"), version="1").tier == "standard"


@pytest.mark.parametrize("name", sorted(suite_files()))
def test_rows_named_one_by_one_are_the_cells_of_the_suite(name):
    """With their budgets, which may differ between rows of one model."""
    suite = load_suite(name)
    tier = "quick" if "quick" in suite.tiers else next(iter(suite.tiers))
    labels = tuple(entry.use.label for entry in suite.models)
    whole, named = (make_plan(suite, Selection(tier=tier, models=models), version="1") for models in ((), labels))
    assert [cell.key for cell in whole.cells] == [cell.key for cell in named.cells]


def test_a_bare_name_that_is_no_row_means_the_rows_of_that_model():
    """As they stand in the suite, with the settings that suit its data; a bare row is itself alone."""

    def labels(suite, name):
        plan = make_plan(load_suite(suite), Selection(models=(name,)), version="1")
        return [cell.label for cell in plan.cells if cell.role == "model"]

    assert labels("density2d", "nice") == ["nice[preset=vector]"]
    assert labels("density2d", "nice[preset=smoke]") == ["nice[preset=smoke]"]
    assert labels("audio", "wavenet") == ["wavenet"]


def test_a_misspelt_suite_names_the_nearest():
    with pytest.raises(UnknownName) as caught:
        load_suite("imagse")
    assert "`images`" in caught.value.hint


@pytest.mark.parametrize(
    ("models", "kind", "message"),
    [
        (("vea",), UnknownName, "unknown model `vea`"),
        (("vae[latnet_dim=3]",), SettingError, "no setting `latnet_dim`"),
        (("vae[latent_dim=big]",), SettingError, "latent_dim` is 'big'"),
        (("ddpm[sampler=dmid]",), SettingError, "sampler` is 'dmid'"),
        (("vae[preset=huge]",), SettingError, "no preset `huge`"),
        (("vqvae[num_codes=0]",), SettingError, "`num_codes` is 0, expected a whole number of at least 1"),
        (("vqvae[commitment=-2]",), SettingError, "`commitment` is -2, expected a number of at least 0"),
        (("beta_tcvae[beta=-1]",), SettingError, "`beta` is -1, expected a number of at least 0"),
        (("ddpm[num_steps=0]",), SettingError, "`num_steps` is 0, expected a whole number of at least 1"),
        (("vae[learning_rate=nan]",), SettingError, "`learning_rate` is nan, expected a number above 0"),
        (("ddpm[multipliers=1-2]",), SettingError, "`multipliers` is '1-2', expected whole numbers with `x`"),
        (("vdm[condition=class]",), SettingError, "`vdm` has no setting `condition`"),
        (
            ("edm[guidance=2.0]",),
            SettingError,
            "`edm` is told nothing with `condition=none`, so `guidance` has nothing",
        ),
        (("var[condition=none,guidance=1.0]",), SettingError, "`var` is told nothing"),
        (("guided_diffusion[guidance=2.0]",), SettingError, "`guided_diffusion` is told nothing"),
        (("@flows",), UnknownName, "unknown paradigm `@flows`"),
        (("no_such_file.py",), UnknownName, "no such model file"),
        (("no_such_module:Sampler",), UnknownName, "no module `no_such_module`"),
        (("vae:small",), SettingError, "model `vae` takes no argument, found `small`"),
    ],
)
def test_a_bad_model_is_refused_before_anything_runs(models, kind, message):
    with pytest.raises(kind) as caught:
        make_plan(load_suite("images"), Selection(models=models), version="1")
    assert message in caught.value.message


def test_a_setting_of_other_models_is_answered_with_their_names():
    with pytest.raises(SettingError) as caught:
        make_plan(load_suite("images"), Selection(models=("vdm[condition=class]",)), version="1")
    named = set(re.findall("`([a-z_]+)`", caught.value.hint))
    assert {"ddpm", "edm", "var", "gated_pixelcnn"} <= named
    assert named & {"vae", "ncsn", "jem", "consistency"} == set()
    assert "`genbench info vdm` lists what `vdm` has" in caught.value.hint
    with pytest.raises(SettingError) as caught:
        make_plan(load_suite("images"), Selection(models=("vae[lr=1.0]",)), version="1")
    assert re.search(r" and \d+ more have it", caught.value.hint)


def test_guidance_is_planned_where_the_model_is_told_something_by_a_setting_or_by_its_preset():
    models = (
        "edm[condition=text,guidance=2.0]",
        "dit[preset=paper,guidance=4.0]",
        "guided_diffusion[classifier_scale=2]",
    )
    cells = make_plan(load_suite("images"), Selection(models=models), version="1").cells
    assert [cell.sampling for cell in cells if cell.role == "model"] == [
        {"guidance": 2.0},
        {"guidance": 4.0},
        {"classifier_scale": 2},
    ]
    with pytest.raises(SettingError) as caught:
        make_plan(
            load_suite("images"), Selection(models=("dit[preset=paper,condition=none,guidance=4.0]",)), version="1"
        )
    assert "`dit[condition=class,guidance=4.0]`" in caught.value.hint
    assert "leave `guidance` out" in caught.value.hint


@pytest.mark.parametrize(
    ("dataset", "kind", "message"),
    [
        ("shapes[resolutoin=16]", SettingError, "`shapes` has no setting `resolutoin`"),
        ("patches[resolution=big]", SettingError, "`resolution` is 'big', expected a whole number"),
        ("shapes:16", SettingError, "dataset `shapes` takes no argument, found `16`"),
        ("mnist[binarised=always]", SettingError, "`binarised` is 'always', expected one of"),
        ("shapes[resolution=7]", SettingError, "`resolution` is 7, expected one of 8, 16, 32, 64"),
        ("mnist[resolution=14]", SettingError, "`resolution` is 14, expected one of 8, 16, 28, 32"),
        ("cifar10[resolution=64]", SettingError, "`resolution` is 64, expected one of 8, 16, 32"),
        ("patches[resolution=65]", SettingError, "`resolution` is 65, expected a whole number from 4 to 64"),
        ("tones[length=100]", SettingError, "`length` is 100, expected one of 512, 1024, 2048, 4096, 8192"),
        ("speech_digits[length=512]", SettingError, "`length` is 512, expected one of 1024"),
        ("toy2d[law=nosuch]", SettingError, "`law` is 'nosuch', expected one of 'two_moons'"),
        ("tabular[table=wein]", SettingError, "`table` is 'wein', expected one of 'breast_cancer'"),
        ("npz:pyproject.toml[levels=257]", SettingError, "`levels` is 257, expected a whole number from 2 to 256"),
        ("npy:pyproject.toml[value_range=byte]", SettingError, "`value_range` is 'byte', expected one of 'uint8'"),
        ("folder", SettingError, "dataset `folder` needs a path"),
        ("folder:/no/such/folder", DataError, "dataset `folder:/no/such/folder`: nothing is there"),
        ("npy:/no/such.npy", DataError, "nothing is there"),
    ],
)
def test_data_that_cannot_be_built_are_refused_before_anything_runs(dataset, kind, message):
    with pytest.raises(kind) as caught:
        make_plan(load_suite("images"), Selection(dataset=dataset), version="1")
    assert message in caught.value.message


def _check_planned(dataset, models, message, advice):
    """Models on a dataset are refused with a message and advice, or, where no message is given, planned."""
    selection = Selection(dataset=dataset, models=models)
    if message is None:
        assert make_plan(load_suite("images"), selection, version="1").cells
        return
    with pytest.raises(SettingError) as caught:
        make_plan(load_suite("images"), selection, version="1")
    assert message in caught.value.message
    assert advice in caught.value.hint


@pytest.mark.parametrize(
    ("dataset", "model", "message", "advice"),
    [
        ("digits", "ddpm[condition=text]", "`condition=text`: dataset `digits` has no captions", "`condition=class`"),
        ("patches[resolution=8]", "edm[condition=class]", "dataset `patches[resolution=8]` has no classes", "`shapes`"),
        ("patches", "dit[preset=paper]", "`dit` cannot be told `condition=class`", "write `condition=none`; `shapes`"),
        (
            "tones",
            "wavenet[condition=text]",
            "dataset `tones` has no captions",
            "`condition=none` or `condition=class`",
        ),
        ("digits", "dalle", "`dalle` needs captions: dataset `digits` has none", "`shapes`"),
        ("folder:.", "clip_guided", "`clip_guided` needs captions", "`shapes`"),
        ("patches", "guided_diffusion", "`guided_diffusion` needs classes", "`shapes`"),
        ("digits", "guided_diffusion", None, None),
        ("shapes", "dalle", None, None),
        ("patches", "dit[preset=paper,condition=none]", None, None),
        ("digits", "dit[preset=paper]", None, None),
        ("shapes", "ddpm[condition=text]", None, None),
    ],
)
def test_a_condition_that_the_data_do_not_have_is_refused_before_anything_runs(dataset, model, message, advice):
    _check_planned(dataset, (model,), message, advice)


@pytest.mark.parametrize(
    ("dataset", "models", "message", "advice"),
    [
        ("toy2d", ("vae", "edm"), "`vae` cannot model vectors, which dataset `toy2d` holds", "`-m edm`"),
        ("tones[length=512]", ("vae", "vqvae"), "`vae`, `vqvae` cannot model waveforms, which dataset", " wavenet"),
        ("shapes", ("captioner",), "`captioner` cannot model images", "`--dataset` (`captioned_shapes`), or"),
        ("tones", ("vae",), "`vae` cannot model waveforms", "(`digits` or `patches` or `shapes`), or"),
        ("shapes", ("@ebm", "wavenet"), None, None),
        ("tabular", ("wavenet", "ddpm[num_steps=5]", "made"), "`wavenet`, `ddpm[num_steps=5]`, `made` cannot", "glow"),
    ],
)
def test_data_of_a_kind_that_a_model_cannot_take_are_refused_before_anything_runs(dataset, models, message, advice):
    _check_planned(dataset, models, message, advice)


def test_of_a_users_own_model_nobody_knows_what_data_it_takes(tmp_path):
    (tmp_path / "mine.py").write_text("def sample(n, seed, device): ...\n")
    selection = Selection(dataset="toy2d", models=(str(tmp_path / "mine.py"),))
    assert make_plan(load_suite("images"), selection, version="1").cells


def test_data_and_modules_that_are_there_are_planned(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text("")
    monkeypatch.chdir(tmp_path)
    for dataset in (
        f"folder:{tmp_path}[resolution=16,skip_bad=true]",
        "mnist[binarised=static,resolution=16]",
        "digits",
    ):
        assert make_plan(load_suite("images"), Selection(dataset=dataset), version="1").cells
    assert make_plan(load_suite("images"), Selection(models=("my_module:Sampler",)), version="1").cells


def test_a_paradigm_selects_all_its_models():
    cells = make_plan(load_suite("images"), Selection(models=("@diffusion",)), version="1").cells
    folder = Path(genbench.__file__).parent / "models" / "diffusion"
    expected = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {"ddpm", "edm", "score_sde"} <= expected
    assert {cell.label for cell in cells if cell.role == "model"} == expected


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest(tmp_path, tiny_suite):
    error = _refused(tmp_path, tiny_suite.read_text().replace("num_samples: 64", "num_sample: 64"))
    line = 1 + tiny_suite.read_text().splitlines().index("    num_samples: 64")
    assert f"bad.yaml:{line}: `tiers.smoke.num_sample`" in error.message
    assert "`num_samples`" in error.hint
    error = _refused(tmp_path, tiny_suite.read_text() + "modells: [vae]\n")
    assert "modells" in error.message
    assert "`models`" in error.hint


def test_a_number_that_yaml_reads_as_text_is_explained(tmp_path, tiny_suite):
    error = _refused(tmp_path, tiny_suite.read_text().replace("min_block_seconds: 0.01", "min_block_seconds: 1e-2"))
    assert "min_block_seconds" in error.message
    assert "1.0e-4" in error.hint


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("num_samples: 64", "num_samples: many", "num_samples"),
        ("num_samples: 64", "num_samples: -1", "num_samples"),
        ("num_samples: 64", "num_samples: no", "num_samples"),
        ("models: [vae]", "models: []", "models"),
        ("name: tiny", "name: !!python/name:os.system", "tag"),
        ("name: tiny", "name: !include x", "tag"),
        ("name: tiny", "name: tiny\nname: tiny", "twice"),
        ("models: [vae]", "models: &a [vae]\nother: *a", "alias"),
        ("schema: genbench.suite/1", "schema: genbench.suite/9", "schema"),
        ("models: [vae]", "models: [vae", "YAML"),
    ],
)
def test_a_suite_that_says_something_else_is_refused(tmp_path, tiny_suite, old, new, word):
    assert word in _refused(tmp_path, tiny_suite.read_text().replace(old, new)).message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("frechet_distance", "frechet_distnace", "unknown metric `frechet_distnace`"),
        ("shapes[resolution=8]", "shpaes[resolution=8]", "unknown dataset `shpaes`"),
        ("features: shapes_net", "features: shape_net", "unknown feature extractor `shape_net`"),
        ("controls: [real", "controls: [reel", "unknown control `reel`"),
    ],
)
def test_a_misspelt_name_in_a_suite_is_refused_before_anything_runs(tmp_path, tiny_suite, old, new, message):
    path = tmp_path / "misspelt.yaml"
    path.write_text(tiny_suite.read_text().replace(old, new))
    with pytest.raises(UnknownName) as caught:
        make_plan(load_suite(str(path)), Selection(), version="1")
    assert caught.value.message == message
    assert "did you mean" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("resolution=8]", "resolution=0]", "`shapes` setting `resolution` is 0, expected one of 8, 16, 32, 64"),
        ("frechet_distance", "'realism[k=0]'", "`realism` setting `k` is 0, expected a whole number of at least 1"),
        (
            "frechet_distance",
            "'frechet_distance[ddof=2]'",
            "`frechet_distance` setting `ddof` is 2, expected one of 0, 1",
        ),
        ("features: shapes_net", "features: lpips[net=vgg,resolution=0]", "`resolution` is 0, expected a whole number"),
    ],
)
def test_a_setting_out_of_range_in_a_suite_is_refused_before_anything_runs(tmp_path, tiny_suite, old, new, message):
    path = tmp_path / "out_of_range.yaml"
    path.write_text(tiny_suite.read_text().replace(old, new))
    with pytest.raises(SettingError) as caught:
        make_plan(load_suite(str(path)), Selection(), version="1")
    assert message in caught.value.message


def test_nesting_without_end_is_refused(tmp_path):
    assert "nested" in _refused(tmp_path, "a: " + "[" * 50 + "]" * 50).message


def test_a_folder_an_empty_file_and_a_huge_file_are_refused(tmp_path):
    with pytest.raises(SuiteError, match="folder"):
        load_suite(str(tmp_path))
    assert "empty" in _refused(tmp_path, "").message
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(SuiteError, match="at most"):
        load_suite(str(huge))
    with pytest.raises(GenbenchError, match="no such suite file"):
        load_suite(str(tmp_path / "none.yaml"))


def test_binary_garbage_is_refused(tmp_path):
    path = tmp_path / "noise.yaml"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(SuiteError, match="not YAML"):
        read_suite(path)


def test_the_judge_of_captions_is_the_suites_or_the_one_asked_for_and_no_part_of_training():
    suite = load_suite("text_to_image")
    own = make_plan(suite, Selection(tier="smoke"), version="1")
    other = make_plan(suite, Selection(tier="smoke", text_encoder="clip[model=ViT-B-16]"), version="1")
    assert {cell.text_encoder.label for cell in own.cells} == {"shapes_clip"}
    assert {cell.text_encoder.label for cell in other.cells} == {"clip[model=ViT-B-16]"}
    for mine, theirs in zip(own.cells, other.cells, strict=True):
        assert mine.key != theirs.key
        assert mine.train_key == theirs.train_key
    for name, hint in {"clop": "did you mean `clip`?", "nosuch": "known names: clip, shapes_clip"}.items():
        with pytest.raises(UnknownName, match=name) as caught:
            make_plan(suite, Selection(text_encoder=name), version="1")
        assert caught.value.hint == hint


def test_an_extractor_that_embeds_no_captions_is_no_judge_of_them():
    with pytest.raises(SettingError, match="`lpips` embeds no captions") as caught:
        make_plan(load_suite("text_to_image"), Selection(text_encoder="lpips"), version="1")
    assert caught.value.hint == "take `clip` or `shapes_clip`"


def test_rows_that_differ_in_how_captions_are_followed_share_one_training():
    plan = make_plan(load_suite("text_to_image"), Selection(tier="quick"), version="1")
    trained = [cell.subject.name for cell in plan.cells if cell.role == "model" and cell.weights_from is None]
    assert trained == ["ddpm", "latent_diffusion", "flow_matching", "dalle", "clip_guided"]
