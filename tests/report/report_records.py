"""Records as a run would leave them, for the tests of the reports."""

from genbench.core.record import Environment, Failure, Rate, Record, Score, Timing
from genbench.core.spec import Cell, Ref, Tier, parse_ref

NASTY = "a|b_{c}[x=1]<script>"
EXTRACTOR = {"extractor": "shapes_net", "sha256": "0f" * 32, "resize": "none", "dtype": "float32"}
CPU = Environment(device="Xeon 8480", platform="Linux x86_64", python="3.11.9", torch="2.6.0", packages={}, threads=2)
GPU = CPU.model_copy(update={"device": "H200"})
TIER = Tier(
    dataset=parse_ref("shapes[resolution=16]"),
    preset="small",
    samples_seen=200_000,
    num_samples=2000,
    num_reference=2000,
    num_likelihood=512,
)
METRICS = ("frechet_distance", "precision_recall", "bits_per_dim")


def fd(value, stderr=0.5, *, protocol=EXTRACTOR, num_samples=2000, name="fd_shapes_net"):
    return Score(
        name=name,
        value=value,
        unit="",
        better="lower",
        stderr=stderr,
        ci95=None if stderr is None else (value - 1.96 * stderr, value + 1.96 * stderr),
        interval="none" if stderr is None else "bootstrap over samples, 200 draws",
        num_samples=num_samples,
        num_reference=50_000,
        protocol=dict(protocol),
    )


def precision(value, stderr=0.01):
    return Score(
        name="precision",
        value=value,
        unit="",
        better="higher",
        stderr=stderr,
        num_samples=2000,
        num_reference=2000,
        protocol={**EXTRACTOR, "k": 3},
    )


def bpd(value, kind="exact", stderr=0.012):
    return Score(
        name="bits_per_dim",
        value=value,
        unit="bits/dim",
        better="lower",
        kind=kind,
        stderr=stderr,
        num_samples=512,
        protocol={"levels": 256},
    )


def rate(median, unit="images/s"):
    return Rate(median=median, p10=0.97 * median, p90=1.02 * median, unit=unit, raw=(0.97 * median, median))


def cell(label, *, role="model", seed=0, source="a" * 64, **changed):
    ref = Ref(name=label) if label == NASTY else parse_ref(label)
    is_model = role == "model"
    given = {
        "suite": "images",
        "suite_version": 2,
        "tier": "quick",
        "role": role,
        "subject": ref,
        "dataset": TIER.dataset,
        "features": parse_ref("shapes_net"),
        "metrics": tuple(map(parse_ref, METRICS)),
        "protocol": TIER,
        "samples_seen": TIER.samples_seen if is_model else 0,
        "seed": seed,
        "device": "cpu",
        "source_sha256": source,
        "genbench_version": "0.1.0",
    }
    return Cell(**{**given, **changed})


def model(label, scores, *, paradigm="vae", seed=0, skipped=None, speed=1000.0, nfe=None, environment=CPU, **changed):
    subject = cell(label, seed=seed, **changed)
    trained = "weights_from" not in changed
    timing = Timing(
        phases={"train": 61.5},
        train_seconds=61.5 if trained else None,
        train_images_per_second=rate(speed) if trained else None,
        sample_images_per_second=rate(4 * speed),
        network_evaluations=nfe,
        peak_memory_gib=0.71,
    )
    return _record(
        subject,
        scores=tuple(scores),
        skipped=skipped or {},
        timing=timing,
        environment=environment,
        num_parameters=1_234_567,
        paradigm=paradigm,
    )


def failed(label, message, *, paradigm="vae", seed=0, phase="train", kind="RuntimeError", **changed):
    error = Failure(phase=phase, type=kind, message=message, log="cells/x/stderr.log")
    subject = cell(label, seed=seed, **changed)
    return _record(subject, status="failed", error=error, paradigm=paradigm, environment=CPU)


def control(name, scores, **changed):
    skipped = {"bits_per_dim": "a control has no likelihood"}
    subject = cell(name, role="control", **changed)
    return _record(subject, scores=tuple(scores), skipped=skipped, environment=CPU, paradigm="control")


def _record(subject, *, status="ok", **fields):
    times = {"started": "2026-01-05T10:00:00Z", "ended": f"2026-01-05T10:0{subject.seed}:30Z"}
    return Record(key=subject.key, cell=subject, status=status, **times, **fields)


def controls(**changed):
    """All six, in the order in which a sane metric ranks them."""
    values = {"train_copy": (0.4, 0.99), "real": (1.1, 0.97), "jpeg": (9.5, 0.71), "blur": (34.0, 0.32)}
    values |= {"mean_image": (171.0, 0.0), "noise": (242.0, 0.0)}
    return [control(name, [fd(a, 0.1), precision(b)], **changed) for name, (a, b) in values.items()]


def run():
    """A run with everything in it: seeds, bounds, gaps, failures, a sampler variant and hostile names."""
    no_likelihood = {"bits_per_dim": "a GAN has no likelihood"}
    vae = [
        model("vae", [fd(63.0 + d), precision(0.41 + d / 100), bpd(5.31 + d / 50, "bound")], seed=seed)
        for seed, d in enumerate((-0.8, 0.3, 0.6))
    ]
    flow = [
        model("realnvp", [fd(41.2), precision(0.55), bpd(4.87, "dequantised")], paradigm="flow", speed=700.0),
        failed("realnvp", "loss is NaN at step 310", paradigm="flow", seed=1, kind="FloatingPointError"),
    ]
    ddpm = model("ddpm", [fd(12.3), precision(0.80), bpd(4.21, "bound")], paradigm="diffusion", speed=310.0, nfe=100)
    ddim = model(
        "ddpm",
        [fd(12.9), precision(0.78), bpd(4.21, "bound")],
        paradigm="diffusion",
        speed=310.0,
        nfe=20,
        sampling={"sampler": "ddim", "num_steps": 20},
        weights_from=ddpm.key,
    )
    return [
        *vae,
        *flow,
        ddpm,
        ddim,
        model("pixelcnn", [fd(29.8), precision(0.61), bpd(3.92)], paradigm="autoregressive", speed=450.0, nfe=768),
        model("ebm", [fd(88.0), precision(0.2), bpd(6.4, "estimate", 0.3)], paradigm="ebm", speed=90.0, nfe=60),
        model("dcgan", [fd(30.4), precision(0.66)], paradigm="gan", skipped=no_likelihood, speed=2100.0),
        failed("vqvae", "CUDA out of memory: tried 100% of {memory}_pool & more | `rm` <b>$5</b>\nsecond line"),
        model(NASTY, [fd(55.0), precision(0.5)], paradigm="<i>odd</i>", skipped=no_likelihood, environment=GPU),
        *controls(),
    ]
