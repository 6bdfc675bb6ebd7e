"""`genbench info`: what a thing is and how it can be set."""

import pytest

from genbench.cli.main import main


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("frechet_distance", "ddof: Literal[0, 1] = 1  -- N - ddof stands in the denominator"),
        ("shapes", "resolution: int = 32 (at least 1)  -- Side of a picture in pixels"),
        ("inception_v3", "weights: str = ''  -- A file, or a folder that holds it"),
        ("vae", "latent_dim: int = 12 (at least 1)"),
        ("vae", "ema_decay: float | None = 0.99 (from 0 to below 1)  -- Of the weights"),
        ("ddpm", "num_steps: int | None = 50 (at least 1)  -- Steps, of one network evaluation"),
        ("ddpm", "sampler: Literal['ddpm', 'ddim', 'dpm_solver_pp', 'heun', 'predictor_corrector']"),
    ],
)
def test_settings_are_shown_with_their_defaults_and_what_they_mean(name, line, capsys):
    assert main(["info", name]) == 0
    assert line in capsys.readouterr().out
