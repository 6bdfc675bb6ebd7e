"""`genbench info`: what a thing is and how it can be set."""

import dataclasses

import pytest

from genbench.cli.main import main
from genbench.cli.tiers import tiers_of_model
from genbench.core.model import MODELS
from genbench.core.presets import CONFIG, SAMPLING, preset_values
from genbench.plan import Selection, make_plan, read_suite, suite_files


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("frechet_distance", "ddof: Literal[0, 1] = 1  -- N - ddof stands in the denominator"),
        ("shapes", "resolution: Literal[8, 16, 32, 64] = 32  -- Side of a picture in pixels"),
        ("patches", "resolution: int = 16 (from 4 to 64)  -- Side of a patch in pixels"),
        ("toy2d", "law: Literal['two_moons', 'checkerboard', 'spirals', 'gaussians25', 'gaussians8'] = 'two_moons'"),
        ("npz", "value_range: Literal['uint8', 'unit', 'signed'] = 'uint8'"),
        ("vqvae", "codebook: Literal['ema', 'gradient'] = 'ema'"),
        ("inception_v3", "resize: Literal["),
        ("inception_v3", "weights: str = ''  -- A file, or a folder that holds it"),
        ("vae", "latent_dim: int = 12 (at least 1)"),
        ("vae", "ema_decay: float | None = 0.99 (from 0 to below 1)  -- Of the weights"),
        ("mnist", "binarised: Literal['no', 'static', 'dynamic'] = 'no'"),
        ("npy", "path: str"),
        ("ddpm", "output: Literal['noise', 'data', 'velocity'] = 'velocity'"),
        ("ddpm", "num_steps: int | None = 50 (at least 1)  -- Steps, of one network evaluation"),
        ("ddpm", "sampler: Literal['ddpm', 'ddim', 'dpm_solver_pp', 'heun', 'predictor_corrector']"),
    ],
)
def test_settings_are_shown_with_their_defaults_and_what_they_mean(name, line, capsys):
    assert main(["info", name]) == 0
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("name", MODELS.files())
def test_values_read_off_the_source_of_a_preset_are_those_of_the_class(name):
    path, kind = MODELS.files()[name], MODELS.get(name)
    for table in (CONFIG, SAMPLING):
        presets = getattr(kind, table, {})
        for preset, config in presets.items():
            read = preset_values(path, name, preset, table=table)
            fields = {field.name: field.default for field in dataclasses.fields(config)}
            changed = {key for key, default in fields.items() if getattr(config, key) != default}
            assert changed <= set(read)
            values = {key: eval(text, vars(__import__(kind.__module__, fromlist=["_"]))) for key, text in read.items()}
            assert all(getattr(config, key) == value for key, value in values.items())


def said(capsys, *words):
    assert main(["info", *words]) == 0
    return capsys.readouterr().out


def test_the_preset_whose_values_are_shown_is_named_and_can_be_chosen(capsys):
    usual = said(capsys, "fsq")
    assert "settings with preset `small`; `genbench info 'fsq[preset=paper]'` shows another:" in usual
    assert "  levels: str = '8x8'" in usual
    smoke = said(capsys, "fsq[preset=smoke]")
    assert "settings with preset `smoke`;" in smoke
    assert "  levels: str = '8x8'  -- Levels of each channel" in smoke
    assert "  width: int = 32" in smoke  # of the class, for the preset does not change it
    assert "  prior_layers: int = 2" in smoke


def test_settings_in_brackets_are_shown_in_place_of_those_of_the_preset(capsys):
    text = said(capsys, "ddpm[preset=smoke,width=24,num_steps=7]")
    assert "settings with preset `smoke` and `width`, `num_steps` as given" in text
    assert "  width: int = 24" in text
    assert "settings of the sampler with preset `smoke`:" in text
    assert "  num_steps: int | None = 7" in text
    assert "  ddof: Literal[0, 1] = 0" in said(capsys, "frechet_distance[ddof=0]")
    assert "  resolution: Literal[8, 16, 32, 64] = 16" in said(capsys, "shapes[resolution=16]")
    assert "  preset: Literal['discrete', 'continuous'] = 'continuous'" in said(capsys, "sap[preset=continuous]")


def test_a_model_says_which_tiers_take_which_preset(capsys):
    lines = said(capsys, "vdvae").splitlines()
    start = lines.index("presets: smoke, small, paper; a tier takes, unless `vdvae[preset=NAME]` says another:")
    shown = dict(line.strip().split(": ", 1) for line in lines[start + 1 : start + 4])
    plans = {}
    for name, path in suite_files().items():
        suite = read_suite(path)
        for tier in suite.tiers if any(entry.use.name == "vdvae" for entry in suite.models) else ():
            cells = make_plan(suite, Selection(tier=tier, models=("vdvae",)), version="1").cells
            preset = next(cell.subject.preset or cell.protocol.preset for cell in cells if cell.role == "model")
            plans.setdefault(preset, set()).add((tier, name))
    assert set(shown) == set(plans) == {"smoke", "small", "paper"}
    for preset, text in shown.items():
        pairs = [part.removeprefix("tiers ").removeprefix("tier ").split(" of ") for part in text.split("; ")]
        assert {(t, s) for tiers, suites in pairs for t in tiers.split(", ") for s in suites.split(", ")} == plans[
            preset
        ]


def test_a_preset_that_a_row_names_is_that_of_all_tiers_and_one_that_nobody_takes_says_so(capsys):
    text = said(capsys, "jem")
    assert "\n  vector: tiers smoke, quick, standard, paper of density2d" in text
    assert "\n  blank: no tier" in "\n" + "\n".join(tiers_of_model("vae", ["blank"]))


def test_of_a_model_that_no_suite_has_the_presets_are_those_that_tiers_would_give_it():
    smoke, small = tiers_of_model("a_model_that_nobody_has_written", ["smoke", "small"])
    assert smoke.startswith("  smoke: tier smoke of adversarial, ")
    assert "tiers quick, standard of" in small


def test_a_suite_says_the_preset_the_data_and_the_budget_of_each_tier(capsys):
    text = said(capsys, "digits")
    assert "  quick: preset smoke on digits, 40,000 examples seen, 512 samples drawn\n" in text
    assert "  standard: preset small on digits, 2,000,000 examples seen, 2,048 samples drawn\n" in text
    assert "schema: genbench.suite/1" in text
    assert "rows with a preset of their own" not in text
    assert "rows with a preset of their own: nice[preset=vector], " in said(capsys, "tabular")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fsq[preset=smok]", "`fsq` has no preset `smok`"),
        ("fsq[widht=3]", "`fsq` has no setting `widht`"),
        ("fsq[width=wide]", "expected a whole number"),
        ("shapes[side=3]", "`shapes` has no setting `side`"),
        ("images[tier=quick]", "suite `images` takes no settings"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, message, capsys):
    assert main(["info", name]) == 2
    assert message in capsys.readouterr().err


def test_a_name_of_several_things_says_so_and_one_can_be_asked_for(capsys):
    both = said(capsys, "reconstruction")
    assert both.startswith("`reconstruction` is a metric and a suite; both follow, and `--kind` shows one alone")
    assert "schema: genbench.suite/1" not in said(capsys, "reconstruction", "--kind", "metric")
    assert said(capsys, "reconstruction", "--kind", "suite").startswith("reconstruction (suite)")
    assert main(["info", "reconstruction", "--kind", "model"]) == 2
    assert "no model is called `reconstruction`" in capsys.readouterr().err
