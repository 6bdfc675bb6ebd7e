import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_records import CPU, EXTRACTOR, GPU, bpd, control, controls, failed, fd, model, precision, rate, run
from scipy import stats

from genbench.core.bench import Bench, BenchFile, Measure
from genbench.core.errors import UnknownName
from genbench.core.record import Look, TimeToQuality
from genbench.core.spec import parse_ref
from genbench.report._givers import metric_of
from genbench.report._noise import Z95, Estimate, merge, places
from genbench.report._numbers import beside, count, like, significant
from genbench.report._table import letter
from genbench.report.document import document
from genbench.report.leaderboard import control_order, leaderboard


def only(records, **how):
    boards = leaderboard(records, **how)
    assert len(boards) == 1
    return boards[0]


def row(board, label):
    return next(row for row in board.rows if row.label == label)


def cell(board, label, column):
    names = [column.name for column in board.columns]
    return row(board, label).cells[names.index(column)]


def texts(board, notes):
    return [board.footnotes[note] for note in notes]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (41.23, "41.2"),
        (9.999, "10.0"),
        (0.9996, "1.00"),
        (0.00123456, "0.00123"),
        (0, "0"),
        (-3.14159, "-3.14"),
        (999.6, "1,000"),
        (12345, "12,300"),
        (1234567, "1.23e6"),
        (0.0000123, "1.23e-5"),
    ],
)
def test_numbers_are_shown_in_three_significant_figures(value, shown):
    assert significant(value) == shown


@given(st.floats(-1e300, 1e300))
def test_a_shown_number_is_within_half_of_its_third_figure(value):
    assert float(significant(value).replace(",", "")) == pytest.approx(value, rel=5.001e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        significant(value)


def test_counts_keep_three_figures_across_the_sizes():
    shown = [count(n) for n in (0, 999, 1000, 200_000, 999_400, 999_600, 1_234_567, 5e9)]
    assert shown == ["0", "999", "1k", "200k", "999k", "1M", "1.23M", "5G"]


def test_a_spread_takes_the_decimals_of_its_value_and_never_hides_as_zero():
    assert beside(0.7211, "63.0") == "0.7"
    assert beside(0.0004, "63.0") == "0.0004"
    assert beside(0.0, "63.0") == "0.0"
    assert like(5.2, "3.21") == "5.20"


def test_footnotes_are_lettered_past_z():
    assert [letter(i) for i in (0, 25, 26, 27, 52, 701, 702)] == ["a", "z", "aa", "ab", "ba", "zz", "aaa"]


def test_two_seeds_pool_their_own_errors_and_give_no_spread():
    merged = merge([1.0, 3.0], [0.3, 0.4])
    assert merged.value == 2.0
    assert merged.stderr == pytest.approx(0.25)  # sqrt(0.09 + 0.16) / 2
    assert merged.spread is None


def test_three_seeds_give_a_student_interval():
    merged = merge([1.0, 2.0, 3.0], [None, None, None])
    assert merged.spread == pytest.approx(1.0)
    half = 4.302652729911275 / math.sqrt(3)  # t, 2 degrees of freedom, 97.5 %
    assert merged.ci95 == pytest.approx((2 - half, 2 + half), rel=1e-4)


@pytest.mark.parametrize("n", [3, 5, 12, 13, 14, 20, 50])
def test_the_interval_over_seeds_agrees_with_the_quantiles_of_scipy(n):
    merged = merge([float(k % 2) for k in range(n)], [None] * n)
    expected = stats.t.ppf(0.975, n - 1) * merged.spread / math.sqrt(n)
    assert merged.ci95[1] - merged.value == pytest.approx(expected, rel=1e-3)


def test_an_error_unknown_for_one_seed_is_unknown_for_the_mean_of_two():
    assert merge([1.0, 2.0], [0.1, None]).stderr is None


def estimate(value, stderr):
    return Estimate(value, stderr, None, None)


def test_a_new_tier_starts_where_the_difference_to_the_head_exceeds_the_noise():
    step = Z95 * math.sqrt(2)  # equal errors of 1
    values = {"a": 0.0, "b": 0.9 * step, "c": 1.1 * step, "d": 1.9 * step, "e": 2.2 * step}
    placed = places({name: estimate(value, 1.0) for name, value in values.items()}, "lower")
    assert {name: place.tier for name, place in placed.items()} == {"a": 1, "b": 1, "c": 2, "d": 2, "e": 3}
    assert not any(place.best for place in placed.values())


def test_tiers_run_the_other_way_where_higher_is_better():
    placed = places({"low": estimate(1.0, 0.01), "high": estimate(2.0, 0.01)}, "higher")
    assert placed["high"].tier == 1
    assert placed["high"].best
    assert placed["low"].tier == 2


def test_nothing_leads_a_rival_whose_noise_is_unknown():
    placed = places({"a": estimate(1.0, 0.01), "b": estimate(9.0, None)}, "lower")
    assert not placed["a"].best
    assert "b" not in placed


def test_a_model_alone_is_not_the_best():
    board = only([model("vae", [fd(5.0)])])
    assert not cell(board, "vae", "fd_shapes_net").bold


def test_models_come_by_the_first_score_then_failures_then_controls():
    board = only(run())
    labels = [row.label for row in board.rows]
    assert labels[:3] == ["ddpm", "ddpm[sampler=ddim,num_steps=20]", "pixelcnn"]
    assert labels[8] == "vqvae"
    assert [row.role for row in board.rows] == ["model"] * 9 + ["control"] * 6
    assert labels[9:] == ["train_copy", "real", "jpeg", "blur", "mean_image", "noise"]


def test_sorting_by_another_score_puts_rows_without_it_last():
    board = only(run(), sort="bits_per_dim")
    models = [row.label for row in board.rows if row.role == "model"]
    assert models[0] == "pixelcnn"
    assert set(models[-3:-1]) == {"dcgan", "a|b_{c}[x=1]<script>"}
    assert models[-1] == "vqvae"
    assert board.rows[0].tier == 1


def test_sorting_by_a_speed_puts_the_fastest_first():
    assert only(run(), sort="train_images_per_second").rows[0].label == "dcgan"


def test_an_unknown_column_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="precision"):
        leaderboard(run(), sort="precison")


def test_no_records_make_no_table():
    assert leaderboard([]) == []
    assert control_order([]) == []


def test_seeds_become_one_row_with_mean_and_spread():
    board = only(run())
    shown = cell(board, "vae", "fd_shapes_net")
    assert row(board, "vae").seeds == (0, 1, 2)
    assert shown.number == pytest.approx(63.0 + 0.1 / 3)
    assert shown.spread == "± 0.7"  # of -0.8, 0.3, 0.6: 0.737
    assert cell(board, "ddpm", "fd_shapes_net").spread == ""
    assert cell(board, "ddpm", "fd_shapes_net").interval == "[11.3, 13.3]"


def test_marks_tell_bounds_estimates_and_exact_numbers_apart():
    board = only(run())
    shown = {label: cell(board, label, "bits_per_dim").text for label in ("pixelcnn", "realnvp", "ddpm", "ebm")}
    assert shown == {"pixelcnn": "3.92", "realnvp": "≤ 4.87", "ddpm": "≤ 4.21", "ebm": "≈ 6.40"}
    assert {entry.sign for entry in board.legend} >= {"≤", "≈", "±", "best", "tier"}


def test_a_bound_from_below_is_marked_so():
    score = precision(0.5).model_copy(update={"kind": "bound"})
    assert cell(only([model("vae", [score])]), "vae", "precision").text == "≥ 0.500"


def test_the_interval_of_one_seed_is_shown_as_it_was_recorded_about_a_value_of_zero_too():
    none = precision(0.0, None).model_copy(update={"ci95": (0.0, 0.0148), "interval": "wilson"})
    shown = cell(only([model("vae", [none])]), "vae", "precision")
    assert (shown.text, shown.interval) == ("0", "[0, 0.0148]")


@pytest.mark.parametrize(
    ("end", "value", "shown"),
    [
        (0.0148, "0", "0.0148"),
        (0.0, "0", "0"),
        (0.0148, "12.3", "0.01"),
        (-0.0004, "0.500", "-0.0004"),
        (0.0, "0.500", "0.000"),
        (0.0148, "0.500", "0.015"),
        (0.0148, "12,300", "0.0148"),
    ],
)
def test_an_end_that_is_not_zero_is_never_shown_as_zero(end, value, shown):
    assert like(end, value) == shown


def test_seeds_of_different_kinds_show_the_weakest():
    board = only([model("m", [bpd(3.0)], seed=0), model("m", [bpd(3.0, "estimate")], seed=1)])
    assert cell(board, "m", "bits_per_dim").mark == "≈"


def test_a_failed_cell_is_a_row_with_its_reason():
    board = only(run())
    shown = cell(board, "vqvae", "fd_shapes_net")
    assert shown.value == "failed"
    (reason,) = texts(board, shown.notes)
    assert reason.startswith("train: RuntimeError: CUDA out of memory")
    assert "\n" not in reason


def test_a_seed_that_failed_is_told_beside_the_row_that_the_others_made():
    board = only(run())
    assert row(board, "realnvp").seeds == (0,)
    assert row(board, "realnvp").failed_seeds == (1,)
    assert texts(board, row(board, "realnvp").notes) == [
        "failed for seed 1: train: FloatingPointError: loss is NaN at step 310"
    ]


def test_equal_reasons_share_a_footnote():
    board = only(run())
    notes = {cell(board, label, "bits_per_dim").notes for label in ("real", "noise", "blur")}
    assert len(notes) == 1
    assert len(set(board.footnotes)) == len(board.footnotes)


def test_footnotes_are_lettered_in_reading_order():
    board = only(run())
    met = [note for row in board.rows for notes in (row.notes, *(c.notes for c in row.cells)) for note in notes]
    assert list(dict.fromkeys(met)) == list(range(len(board.footnotes)))


def test_a_table_of_failures_has_the_columns_that_were_asked_for():
    board = only([failed("vae", "boom"), failed("gan", "boom")])
    assert [column.name for column in board.columns] == ["frechet_distance", "precision_recall", "bits_per_dim"]
    assert [row.cells[0].value for row in board.rows] == ["failed", "failed"]
    assert board.footnotes == ("train: RuntimeError: boom",)


def test_the_reason_of_a_metric_reaches_its_scores_under_other_names():
    skipped = {"frechet_distance": "needs features", "bits_per_dim": "no likelihood"}
    records = [model("vae", [fd(3.0), bpd(4.0)]), model("odd", [precision(0.5)], skipped=skipped)]
    board = only(records)
    assert texts(board, cell(board, "odd", "fd_shapes_net").notes) == ["needs features"]
    assert texts(board, cell(board, "odd", "bits_per_dim").notes) == ["no likelihood"]


def test_a_second_score_of_a_metric_is_missing_for_the_reason_of_that_metric():
    real, none = "the codes are real numbers", "the model defines no likelihood"
    metrics = tuple(map(parse_ref, ("code_rate", "codebook_usage", "bits_per_dim")))
    codes = ("code_rate", "code_entropy_rate", "codebook_usage", "codebook_perplexity")
    board = only(
        [
            model("vqvae", [*(fd(1.0, name=name) for name in codes), bpd(4.0)], metrics=metrics),
            model("vqgan", [fd(1.0, name=name) for name in codes], skipped={"bits_per_dim": none}, metrics=metrics),
            model("vae", [bpd(5.0)], skipped={"code_rate": real, "codebook_usage": real}, metrics=metrics),
        ]
    )
    assert {name: texts(board, cell(board, "vae", name).notes) for name in codes} == {name: [real] for name in codes}
    assert texts(board, cell(board, "vqgan", "bits_per_dim").notes) == [none]


def test_a_score_that_its_metric_did_not_give_and_one_that_nobody_asked_for_say_so():
    board = only([model("vae", [fd(3.0), bpd(4.0)]), model("odd", [fd(3.0), fd(1.0, name="psnr")])])
    assert texts(board, cell(board, "odd", "bits_per_dim").notes) == ["`bits_per_dim` was computed and gave none"]
    assert texts(board, cell(board, "vae", "psnr").notes) == ["not among the metrics of this run"]


@pytest.mark.parametrize(
    ("score", "metric"),
    [
        ("fd_shapes_net", "frechet_distance"),
        ("fd_shapes_net_corrected", "frechet_distance"),
        ("fd_shapes_net_infinity", "frechet_infinity"),
        ("code_entropy_rate", "code_rate"),
        ("vendi_q2_shapes_net", "vendi_score"),
        ("recall", "precision_recall"),
        ("sap", None),
    ],
)
def test_a_score_is_traced_to_the_metric_that_declares_it(score, metric):
    asked = ["frechet_distance", "frechet_infinity", "code_rate", "vendi_score", "precision_recall", "of_a_plugin"]
    assert metric_of(score, asked) == metric


def test_a_metric_that_applies_to_no_row_is_remarked():
    board = only([model(name, [fd(3.0)], skipped={"clip_score": "no captions"}) for name in ("a", "b")])
    assert board.remarks == ("`clip_score` applies to no row: no captions",)


def test_scores_come_in_the_order_of_the_suite_even_where_rows_lack_some():
    records = [model("a", [fd(1.0), bpd(2.0)]), model("b", [fd(1.0), precision(0.5)]), model("c", [precision(0.1)])]
    names = [column.name for column in only(records).columns if column.quality]
    assert names[0] == "fd_shapes_net"
    assert set(names[1:]) == {"precision", "bits_per_dim"}


def test_costs_that_nobody_measured_have_no_column():
    names = [column.name for column in only([control("real", [fd(1.0)])]).columns]
    assert names == ["fd_shapes_net"]


def test_speeds_of_another_machine_are_shown_but_not_ranked():
    records = [model("a", [fd(1.0)], speed=10.0), model("b", [fd(2.0)], speed=20.0)]
    fast = model("c", [fd(3.0)], speed=9000.0, environment=GPU)
    board = only([*records, fast])
    shown = cell(board, "c", "train_images_per_second")
    assert shown.number == 9000.0
    assert shown.tier is None
    assert not shown.bold
    assert cell(board, "b", "train_images_per_second").bold
    (note,) = texts(board, row(board, "c").notes)
    assert GPU.fingerprint in note
    assert CPU.fingerprint in note


def test_a_row_measured_on_two_machines_shows_the_speed_of_the_common_one():
    records = [model("a", [fd(1.0)], speed=10.0), model("b", [fd(2.0)], speed=20.0)]
    board = only([*records, model("b", [fd(2.0)], speed=9000.0, environment=GPU, seed=1)])
    assert cell(board, "b", "train_images_per_second").number == 20.0
    assert row(board, "b").seeds == (0, 1)


def test_speeds_from_a_machine_that_nobody_recorded_are_not_ranked():
    board = only([model(name, [fd(1.0)], speed=v, environment=None) for name, v in (("a", 1.0), ("b", 99.0))])
    assert {cell(board, name, "train_images_per_second").tier for name in "ab"} == {None}


def test_speed_is_not_best_within_the_deviation_of_its_blocks():
    board = only([model("a", [fd(1.0)], speed=100.0), model("b", [fd(1.0)], speed=102.0)])
    assert {cell(board, name, "train_images_per_second").tier for name in "ab"} == {1}
    assert rate(100.0).p90 - rate(100.0).p10 == pytest.approx(5.0)


def _crowded(load, *, processors=2):
    return CPU.model_copy(update={"load_average": load, "processors": processors})


def test_a_speed_from_a_busy_machine_is_shown_without_a_rank_and_the_table_says_why():
    def board(load, *, processors=2):
        fast = model("fast", [fd(1.0)], speed=5000.0, environment=_crowded(load, processors=processors))
        quiet = [
            model(name, [fd(2.0)], speed=speed, environment=_crowded(1.0)) for name, speed in (("a", 900), ("b", 90))
        ]
        return only([fast, *quiet])

    quiet = board(2.9)
    assert cell(quiet, "fast", "train_images_per_second").bold
    assert not any("busy" in text for text in quiet.remarks)
    crowded = board(3.2)
    assert cell(crowded, "fast", "train_images_per_second").value == "5,000"
    assert not cell(crowded, "fast", "train_images_per_second").bold
    assert not cell(crowded, "a", "train_images_per_second").bold  # it leads only those that had the machine alone
    assert [cell(crowded, name, "train_images_per_second").tier for name in ("fast", "a", "b")] == [None, 1, 2]
    said = "speeds of fast were measured while the machine was busy, so they are not ranked and none is called best: "
    assert f"{said}up to 3.2 processes were ready to run, on 2 processors" in crowded.remarks
    assert any(text.endswith("on 1 processor") for text in board(3.2, processors=1).remarks)
    assert cell(board(3.2, processors=64), "fast", "train_images_per_second").bold
    assert cell(board(3.2, processors=None), "fast", "train_images_per_second").bold  # an older record does not say


def test_no_real_time_factor_is_best_on_a_busy_machine():
    def board(load):
        rows = []
        for name, factor in (("fast", 0.5), ("slow", 5.0)):
            row = model(name, [fd(2.0)], environment=_crowded(load))
            timing = row.timing.model_copy(update={"real_time_factor": rate(factor)})
            rows.append(row.model_copy(update={"timing": timing}))
        return only(rows)

    assert cell(board(1.0), "fast", "real_time_factor").bold
    assert not cell(board(7.0), "fast", "real_time_factor").bold


def test_scores_are_ranked_on_a_busy_machine_and_where_all_rows_are_its_the_remark_is_of_all():
    rows = [model(name, [fd(value)], environment=_crowded(7.0 + value)) for name, value in (("a", 1.0), ("b", 90.0))]
    board = only(rows)
    assert cell(board, "a", "fd_shapes_net").bold
    said = "speeds were measured while the machine was busy, so they are not ranked and none is called best: "
    assert f"{said}up to 97.0 processes were ready to run, on 2 processors" in board.remarks


def test_rounds_that_saw_other_work_are_not_ranked_whatever_the_load_of_the_cells():
    fast, slow = (model(name, [fd(30.0)], environment=_crowded(9.0)) for name in ("fast", "slow"))
    files = [_rounds(fast, 2000.0, 0.004), _rounds(slow, 500.0, 0.008)]
    board = only([fast, slow], speeds=files)
    assert cell(board, "fast", "train_images_per_second").bold
    assert not cell(board, "fast", "sample_images_per_second").bold  # not among the rounds: the cell's own clock
    flagged = files[0].results[0].model_copy(update={"flags": ("canary_drift",)})
    board = only([fast, slow], speeds=[files[0].model_copy(update={"results": (flagged,)}), files[1]])
    assert not cell(board, "fast", "train_images_per_second").bold
    assert any("rounds are flagged canary_drift; up to 9.0 processes" in text for text in board.remarks)


def test_a_smoke_table_says_that_it_compares_nothing():
    smoke = only([model("vae", [fd(1.0)], tier="smoke", suite="disentanglement")])
    assert any(text.startswith("tier smoke: ") and "not a comparison" in text for text in smoke.remarks)
    assert not any("smoke" in text for text in only([model("vae", [fd(1.0)])]).remarks)


def test_another_protocol_splits_the_table_and_says_why():
    other = {**EXTRACTOR, "resize": "clean", "sha256": "e" * 64}
    records = [model("a", [fd(1.0)]), model("b", [fd(2.0)]), model("c", [fd(0.5, protocol=other)])]
    boards = leaderboard(records)
    assert [[row.label for row in board.rows] for board in boards] == [["a", "b"], ["c"]]
    (why,) = boards[0].split
    assert why.startswith("`fd_shapes_net` was made by another protocol: resize=none here, clean there; sha256=0f0f")
    (why,) = boards[1].split
    assert "resize=clean here, none there" in why


def test_another_reference_suite_tier_dataset_or_extractor_splits_the_table():
    changes = [{"suite": "audio"}, {"suite_version": 3}, {"tier": "paper"}]
    records = [model("a", [fd(1.0)]), *(model("a", [fd(1.0)], **change) for change in changes)]
    larger = fd(1.0).model_copy(update={"num_reference": 10_000})
    records += [model("b", [larger])]
    assert len(leaderboard(records)) == 5


def test_a_failed_cell_stays_with_the_other_seeds_of_its_model():
    other = {**EXTRACTOR, "resize": "clean"}
    common = [model("a", [fd(1.0)]), model("b", [fd(2.0)])]
    boards = leaderboard([*common, model("c", [fd(0.5, protocol=other)]), failed("c", "boom", seed=1)])
    assert [row.label for row in boards[1].rows] == ["c"]
    assert boards[1].rows[0].failed_seeds == (1,)


def test_a_score_from_fewer_samples_is_shown_but_not_ranked():
    board = only([model("a", [fd(3.0)]), model("b", [fd(4.0)]), model("c", [fd(1.0, num_samples=500)])])
    shown = cell(board, "c", "fd_shapes_net")
    assert shown.tier is None
    assert texts(board, shown.notes) == ["from 500 examples, not 2000: not ranked"]
    assert [row.label for row in board.rows] == ["a", "b", "c"]
    assert cell(board, "a", "fd_shapes_net").tier == 1


def test_a_score_without_an_uncertainty_says_so():
    board = only([model("a", [fd(3.0)]), model("b", [fd(4.0, None)])])
    assert texts(board, cell(board, "b", "fd_shapes_net").notes) == ["given without an uncertainty, hence not ranked"]
    board = only([model("a", [fd(3.0, None)]), model("b", [fd(4.0, None)])])
    assert board.remarks == ("`fd_shapes_net` is given without an uncertainty, hence not ranked",)


@pytest.mark.parametrize(("num_samples", "label"), [(50_000, "FID"), (5000, "FID-5k"), (500, "FID-500")])
def test_fid_from_few_samples_is_labelled_with_their_number(num_samples, label):
    board = only([model("a", [fd(3.0, name="fid", num_samples=num_samples)])])
    assert board.columns[0].header == f"{label} ↓"


def test_a_sampler_row_names_the_row_that_trained_its_weights():
    board = only(run())
    variant = row(board, "ddpm[sampler=ddim,num_steps=20]")
    assert texts(board, variant.notes) == ["samples from the weights of `ddpm`"]


def test_rows_with_one_label_say_how_they_differ():
    board = only([model("vae", [fd(1.0)], source="a" * 64), model("vae", [fd(2.0)], source="b" * 64)])
    assert [row.label for row in board.rows] == ["vae (source_sha256=aaaaaaaa)", "vae (source_sha256=bbbbbbbb)"]


def test_a_rerun_of_a_failed_cell_replaces_it():
    board = only([failed("vae", "boom"), model("vae", [fd(1.0)])])
    assert row(board, "vae").failed_seeds == ()
    assert row(board, "vae").seeds == (0,)
    assert board.footnotes == ()


def test_control_characters_never_reach_a_table():
    board = only([failed("vae", "\x1b[31mred\x07 \u202eright"), model("a", [fd(1.0)], paradigm="x\x1b]0;t")])
    assert all(text.isprintable() for text in (*board.footnotes, *(row.paradigm for row in board.rows)))


def test_controls_in_order_give_no_finding():
    assert control_order(run()) == []


def test_a_metric_that_prefers_blur_to_real_data_is_found():
    wrong = [record for record in controls() if record.cell.subject.name != "blur"]
    findings = control_order([*wrong, control("blur", [fd(0.2, 0.1), precision(0.3)])])
    assert [(finding.metric, finding.control) for finding in findings] == [("fd_shapes_net", "blur")]
    assert findings[0].message == (
        "`fd_shapes_net`: control `blur` (0.200) is better than held-out data, `real` (1.10)"
    )


def test_a_metric_that_does_not_put_noise_last_is_found():
    wrong = [record for record in controls() if record.cell.subject.name != "noise"]
    findings = control_order([*wrong, control("noise", [fd(100.0), precision(0.0)])])
    assert [(finding.metric, finding.control) for finding in findings] == [("fd_shapes_net", "noise")]
    assert "better than control `mean_image`" in findings[0].message


def test_controls_within_the_noise_are_in_order():
    tied = [control("real", [fd(5.0)]), control("jpeg", [fd(4.5)]), control("noise", [fd(4.6)])]
    assert control_order(tied) == []


def test_controls_are_never_bold_nor_in_a_tier():
    board = only([*controls(), model("a", [fd(300.0)]), model("b", [fd(400.0)])])
    cells = [cell for row in board.rows if row.role == "control" for cell in row.cells]
    assert not any(cell.bold or cell.tier for cell in cells)
    assert cell(board, "a", "fd_shapes_net").bold


RECORD = st.builds(
    lambda label, seed, value, error, kind, speed, machine, skipped: model(
        label,
        [fd(value, error)] if skipped else [fd(value, error), bpd(value / 10, kind)],
        seed=seed,
        speed=speed,
        environment=machine,
        skipped={"bits_per_dim": "no likelihood"} if skipped else {},
    ),
    st.sampled_from("abcdef"),
    st.integers(0, 3),
    st.floats(0, 100),
    st.none() | st.floats(0, 5),
    st.sampled_from(["exact", "bound", "dequantised", "estimate"]),
    st.floats(1, 1000),
    st.sampled_from([CPU, GPU, None]),
    st.booleans(),
)
FAILED = st.builds(failed, st.sampled_from("abcdef"), st.text(max_size=20), seed=st.integers(0, 3))
RECORDS = st.lists(RECORD | FAILED, min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(RECORDS, st.randoms(use_true_random=False))
def test_the_order_of_the_records_does_not_matter(records, shuffler):
    shuffled = [*records, *controls()]
    shuffler.shuffle(shuffled)
    assert document(leaderboard(shuffled)) == document(leaderboard([*records, *controls()]))


@settings(max_examples=40, deadline=None)
@given(RECORDS)
def test_every_subject_has_one_row_and_every_row_a_cell_for_each_column(records):
    board = only(records)
    assert sorted(row.label for row in board.rows) == sorted({record.cell.label for record in records})
    assert {len(row.cells) for row in board.rows} == {len(board.columns)}
    seeds = {(record.cell.label, record.cell.seed) for record in records}
    assert seeds == {(row.label, seed) for row in board.rows for seed in (*row.seeds, *row.failed_seeds)}


@settings(max_examples=40, deadline=None)
@given(RECORDS)
def test_tiers_follow_the_values_and_bold_needs_a_lead_beyond_the_noise(records):
    board = only(records)
    for index, column in enumerate(board.columns):
        sign = -1 if column.better == "higher" else 1
        cells = [row.cells[index] for row in board.rows if row.cells[index].tier is not None]
        ordered = sorted(cells, key=lambda cell: (sign * cell.number, cell.tier))
        tiers = [cell.tier for cell in ordered]
        assert tiers == sorted(tiers)
        assert sorted(set(tiers)) == list(range(1, len(set(tiers)) + 1))
        bold = [cell for cell in cells if cell.bold]
        assert len(bold) <= 1
        for best in bold:
            second = ordered[1]
            assert best is ordered[0]
            assert abs(second.number - best.number) > Z95 * math.hypot(best.stderr, second.stderr)


@pytest.mark.parametrize("seed", range(5))
def test_the_split_into_tables_does_not_depend_on_the_order(seed):
    sizes = {"none": "abc", "clean": "de", "bilinear": "fa"}
    records = [model(name, [fd(1.0, protocol={"resize": k})], seed=7) for k, names in sizes.items() for name in names]
    records += [failed("e", "boom", seed=8), failed("z", "boom"), model("y", [bpd(3.0)]), *controls()]
    shuffled = random.Random(seed).sample(records, len(records))
    assert document(leaderboard(shuffled)) == document(leaderboard(records))


def _timed(record, seconds, *, budget=60.0, value=40.0):
    """A record with a curve that falls below its target at `seconds`, or never."""
    looks = tuple(Look(samples_seen=i * 1000, seconds=i * budget / 10, value=50.0 - i) for i in range(1, 11))
    found = TimeToQuality(
        score="fd_shapes_net",
        unit="",
        better="lower",
        target=value,
        num_samples=256,
        every=1000,
        looks=looks,
        seconds=seconds,
        samples_seen=None if seconds is None else round(1000 * seconds),
        budget_seconds=budget,
        budget_samples=60_000,
    )
    return record.model_copy(update={"timing": record.timing.model_copy(update={"time_to_quality": found})})


def _reached(label, times, *, budget=60.0):
    return [_timed(model(label, [fd(30.0)], seed=i), seconds, budget=budget) for i, seconds in enumerate(times)]


def test_time_to_a_target_is_the_median_over_seeds_and_a_miss_counts_as_longest():
    records = [*_reached("fast", (10.0, 30.0, None)), *_reached("slow", (20.0, None, None)), *_reached("one", (25.0,))]
    board = only(records, sort="time_to_quality")
    assert cell(board, "fast", "time_to_quality").text == "30.0"
    assert cell(board, "fast", "samples_to_quality").text == "30k"
    missed = cell(board, "slow", "time_to_quality")
    assert (missed.text, missed.number) == ("> 60.0", None)
    assert cell(board, "slow", "samples_to_quality").text == "> 60k"
    assert [row.label for row in board.rows] == ["one", "fast", "slow"]
    assert any(entry.sign == ">" for entry in board.legend)
    (remark,) = [text for text in board.remarks if text.startswith("time to target")]
    assert "`fd_shapes_net` ≤ 40" in remark
    assert "256 samples every 1,000 examples" in remark


def test_a_miss_is_last_however_small_its_budget():
    board = only([*_reached("quitter", (None,), budget=5.0), *_reached("runner", (50.0,))], sort="time_to_quality")
    assert [row.label for row in board.rows] == ["runner", "quitter"]
    assert cell(board, "quitter", "time_to_quality").text == "> 5.00"


def test_of_two_seeds_the_time_is_their_mean_and_a_miss_of_one_is_a_miss():
    board = only([*_reached("both", (10.0, 30.0)), *_reached("half", (10.0, None))])
    assert cell(board, "both", "time_to_quality").text == "20.0"
    assert cell(board, "half", "time_to_quality").text == "> 60.0"


def test_without_a_target_there_is_no_column_for_it():
    assert not any("quality" in column.name for column in only(run()).columns)


def _rounds(record, train, latency, *, environment=CPU, rounds=5):
    def measure(name, unit, better, value):
        ci95 = (0.98 * value, 1.02 * value)
        return Measure(
            name=name,
            unit=unit,
            better=better,
            value=value,
            ci95=ci95,
            medians=(value,) * rounds,
            interquartile=0.1,
            outliers=0,
        )

    measures = {
        "train_images_per_second": measure("train_images_per_second", "img/s", "higher", train),
        "latency_seconds": measure("latency_seconds", "s", "lower", latency),
    }
    row = Bench(cell=record.cell, measures=measures)
    return BenchFile(genbench_version="1", created="now", environment=environment, results=(row,))


def test_speeds_of_timed_rounds_stand_in_the_table_with_their_noise():
    fast, slow = model("fast", [fd(30.0)], speed=1000.0), model("slow", [fd(31.0)], speed=900.0)
    board = only([fast, slow], speeds=[_rounds(fast, 500.0, 0.004), _rounds(slow, 2000.0, 0.0081)])
    assert cell(board, "fast", "train_images_per_second").text == "500"
    assert cell(board, "slow", "train_images_per_second").text == "2,000"
    assert cell(board, "slow", "train_images_per_second").bold
    assert cell(board, "slow", "latency_seconds").text == "8.10"
    assert cell(board, "fast", "latency_seconds").ci95 == pytest.approx((3.92, 4.08))
    assert cell(board, "fast", "sample_images_per_second").text == "4,000"  # not among the rounds: the cell's own
    assert any("speeds: 5 rounds" in remark for remark in board.remarks)


def test_rounds_of_another_machine_do_not_replace_the_speeds_of_the_cells():
    one = model("one", [fd(30.0)], speed=1000.0)
    board = only([one], speeds=[_rounds(one, 500.0, 0.004, environment=GPU)])
    assert cell(board, "one", "train_images_per_second").text == "1,000"
