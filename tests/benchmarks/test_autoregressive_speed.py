"""`image_gpt` beside minGPT, transformers and x-transformers; pixels that are remembered beside pixels that are not.

In turns, in CPU seconds. The transformers are as deep and wide, run over as many elements, and where the layers are the
same ours lend theirs their weights. minGPT has no package:
`pip install x-transformers transformers git+https://github.com/karpathy/minGPT`.
Run with `OMP_NUM_THREADS=1 pytest -s --benchmark-enable tests/benchmarks/test_autoregressive_speed.py`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cpu_seconds import best_ratio, seconds
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import GenerativeModel, build_model
from genbench.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from genbench.models.autoregressive.pixelcnn import PixelCNN
from genbench.models.transformer.image_gpt import ImageGPT
from genbench.nn._categorical_head import draw

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SIDE, LEVELS, WIDTH, NUM_LAYERS, NUM_HEADS = 16, 256, 128, 4, 4
LENGTH, START, BATCH = SIDE**2, LEVELS, 8
ROUNDS, REPEATS, LEAST = 6, 2, 1.0
LEAST_OF_LIKE_KERNELS = 0.95
"""Beside transformers a training step is the same calls of PyTorch, and a little of the head."""
PIXELS = (3, 32, 32)
LEAST_OF_MEMORY = 10.0
PEERS = "needs `pip install x-transformers transformers git+https://github.com/karpathy/minGPT`"


def _ours() -> ImageGPT:
    """One transformer over all pixels of a grey picture, which is what the peers are."""
    torch.manual_seed(0)
    settings = {"patch": 0, "width": WIDTH, "num_layers": NUM_LAYERS, "num_heads": NUM_HEADS}
    spec = DataSpec(shape=(1, SIDE, SIDE), levels=LEVELS)
    return build_model(ImageGPT, spec, preset="small", settings=settings, owner="image_gpt")


def _mingpt() -> nn.Module:
    """It knows one element more than we do, that which stands before the first."""
    model = pytest.importorskip("mingpt.model", reason=PEERS)
    config = model.GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size = None, LEVELS + 1, LENGTH
    config.n_layer, config.n_head, config.n_embd = NUM_LAYERS, NUM_HEADS, WIDTH
    config.embd_pdrop = config.resid_pdrop = config.attn_pdrop = 0.0
    return model.GPT(config)


def _gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason=PEERS)
    config = transformers.GPT2Config(
        vocab_size=LEVELS + 1,
        n_positions=LENGTH,
        n_embd=WIDTH,
        n_layer=NUM_LAYERS,
        n_head=NUM_HEADS,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=START,
        eos_token_id=None,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    return transformers.GPT2LMHeadModel(config)


def _x_transformer() -> nn.Module:
    """No biases around its attention and no scales in its norms: less work than ours, not more."""
    peer = pytest.importorskip("x_transformers", reason=PEERS)
    layers = peer.Decoder(
        dim=WIDTH, depth=NUM_LAYERS, heads=NUM_HEADS, attn_dim_head=WIDTH // NUM_HEADS, attn_flash=True
    )
    net = peer.TransformerWrapper(num_tokens=LEVELS + 1, max_seq_len=LENGTH, attn_layers=layers)
    return peer.AutoregressiveWrapper(net)


def _lent(ours: ImageGPT, theirs: nn.Module, *, transposed: bool) -> nn.Module:
    """A peer in the names of GPT-2 with our weights; its logit of the start is not ours and stays as it is."""
    weights, own = theirs.state_dict(), ours.pixels.state_dict()
    weights["transformer.wte.weight"][:LEVELS] = ours.pixels.embedding.weight.detach()
    weights["transformer.wte.weight"][START] = own["start"]
    weights["transformer.wpe.weight"].copy_(own["positions"])
    weights["lm_head.weight"][:LEVELS] = own["head.weight"]
    names = {"norm1": "ln_1", "norm2": "ln_2", "qkv": "attn.c_attn", "out": "attn.c_proj"}
    names |= {"wide": "mlp.c_fc", "narrow": "mlp.c_proj"}
    for i, (mine, name), part in itertools.product(range(NUM_LAYERS), names.items(), ("weight", "bias")):
        value = own[f"blocks.{i}.{mine}.{part}"]
        weights[f"transformer.h.{i}.{name}.{part}"].copy_(value.T if transposed and value.ndim == 2 else value)
    for part in ("weight", "bias"):
        weights[f"transformer.ln_f.{part}"].copy_(own[f"norm.{part}"])
    theirs.load_state_dict(weights)
    return theirs.eval()


def _inputs(codes: Tensor) -> Tensor:
    return torch.cat([torch.full((len(codes), 1), START), codes[:, :-1]], dim=1)


def _pictures(count: int) -> Tensor:
    return torch.randint(LEVELS, (count, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(("peer", "transposed", "atol"), [(_mingpt, False, 5e-3), (_gpt2, True, 1e-4)])
def test_the_peers_are_the_same_network(peer, transposed, atol):
    """minGPT's GELU is an approximation by tanh."""
    ours = _ours().eval()
    for parameter in ours.pixels.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    theirs, codes = _lent(ours, peer(), transposed=transposed), ours.tokens(_pictures(2))
    with torch.no_grad():
        found = theirs(_inputs(codes))
        logits = found[0] if isinstance(found, tuple) else found.logits
        expected = ours.pixels(codes)
    assert expected.std() > 0.5
    torch.testing.assert_close(logits[..., :LEVELS], expected, rtol=0, atol=atol)


def _training(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss().backward()
        optimiser.step()

    return step


@pytest.mark.parametrize("peer", ["minGPT", "transformers"])
def test_training_is_no_slower(benchmark, peer):
    """The peers are handed their elements and targets, ours takes the picture."""
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    ours, x = _ours(), _pictures(BATCH)
    codes = ours.tokens(x)
    inputs = _inputs(codes)
    least = LEAST
    if peer == "minGPT":
        theirs = _mingpt().train()
        step = _training(theirs, lambda: theirs(inputs, codes)[1])
    else:
        theirs, least = _gpt2().train(), LEAST_OF_LIKE_KERNELS
        step = _training(
            theirs, lambda: F.cross_entropy(theirs(inputs, use_cache=False).logits.flatten(0, 1), codes.flatten())
        )
    own = _training(ours.train(), lambda: ours.loss(Batch(x), "model").total)
    _compare(benchmark, f"training of image_gpt, {peer}", own, step, least=least)


@pytest.mark.parametrize("num_samples", [1, 16])
@pytest.mark.parametrize("peer", ["transformers", "transformers, static", "x-transformers"])
def test_samples_with_kept_keys_and_values_are_no_slower(benchmark, peer, num_samples):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    ours, start = _ours().eval(), torch.full((num_samples, 1), START)
    if peer == "x-transformers":
        theirs = _x_transformer().eval()

        def other() -> Tensor:
            return theirs.generate(start, LENGTH, filter_logits_fn=lambda logits: logits, cache_kv=True)
    else:
        theirs = _gpt2().eval()
        kind = {"cache_implementation": "static"} if "static" in peer else {}
        drawing = {"do_sample": True, "top_k": 0, "top_p": 1.0, "pad_token_id": 0, "max_new_tokens": LENGTH}

        def other() -> Tensor:
            return theirs.generate(start, use_cache=True, **drawing, **kind)

    assert other().shape[1] >= LENGTH
    _compare(benchmark, f"{num_samples} samples of image_gpt, {peer}", lambda: _drawn(ours, num_samples), other)


@pytest.mark.parametrize("num_samples", [1, 16])
@pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN], ids=lambda kind: kind.__name__)
def test_pixels_that_are_remembered_are_ten_times_cheaper(benchmark, kind, num_samples):
    """Beside one pass for each sub-pixel, of which a few are timed: each costs the same, whatever was drawn before.

    A pass computes the logits of its own sub-pixel alone. That both draw the same stands in the tests of the models.
    """
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    torch.manual_seed(0)
    model = build_model(kind, DataSpec(shape=PIXELS, levels=256), preset="small", settings={}, owner=kind.__name__)
    model.eval()
    codes = torch.randint(256, (num_samples, *PIXELS))
    places = list(itertools.product(range(3), (0, 31), (16,)))
    turns = []
    for _ in range(3):  # in turns, so that both see the same machine
        slow, _ = seconds(lambda: [_next(model, codes, place) for place in places])
        fast, _ = seconds(lambda: _drawn(model, num_samples))
        turns.append(slow * 3 * 32 * 32 / len(places) / fast)
    benchmark.extra_info["turns"] = turns
    benchmark.pedantic(lambda: _drawn(model, num_samples), rounds=1)
    sys.stdout.write(f"\n{kind.__name__}, {num_samples} at 32x32: naive {min(turns):.1f} to {max(turns):.1f} x\n")
    assert min(turns) > LEAST_OF_MEMORY, turns


@torch.no_grad()
def _next(model: GenerativeModel, codes: Tensor, place: tuple[int, int, int]) -> Tensor:
    c, i, j = place
    if isinstance(model, PixelCNN):
        softmax = model.pixels.softmax
        logits = softmax.of_channel(c, model.pixels._features(softmax.embedded(codes))[:, i, j, c])
    else:
        features = model.pixels._features(codes, None)[:, i, j, c]
        logits = torch.addmm(model.pixels.out_bias[c], features, model.pixels.out_weight[c].T)
    return draw(logits, torch.rand(len(codes)))


def _drawn(model: GenerativeModel, num_samples: int) -> Tensor:
    return model.sample(num_samples, generator=torch.Generator().manual_seed(0))


def _compare(
    benchmark, what: str, ours: Callable[[], object], theirs: Callable[[], object], *, least: float = LEAST
) -> None:
    ratio, taken = best_ratio(ours, theirs, rounds=ROUNDS, repeats=REPEATS)
    pairs = sorted(slow / fast for slow, fast in taken[1:])
    benchmark.extra_info.update(ratio=ratio, pairs=pairs)
    benchmark.pedantic(ours, rounds=1)
    sys.stdout.write(f"\n{what}: {ratio:.2f} x ({pairs[0]:.2f} to {pairs[-1]:.2f} in pairs)\n")
    assert ratio > least, taken
