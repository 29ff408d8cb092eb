"""JPEG-LM's published layout with random weights: imported, compared to a float64 Llama of these arrays, and back."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vargen
from vargen.cli import main
from vargen.errors import UserError
from vargen.interop import files, jpeglm, systems
from vargen.samplers import Sampling, decode

D, HEADS, GROUPS, LAYERS, HIDDEN, SPARE = 32, 4, 2, 2, 40, 3
EPS = 1e-3
CONFIG = dict(
    model_type="llama", num_attention_heads=HEADS, rms_norm_eps=EPS, rope_theta=10000.0, hidden_act="silu"
)
JOINED = "ffd0 ffd1 28a2 28a228a2".split()


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def message(*fields):
    """A protocol buffer: numbers with whole numbers, floats or bytes."""
    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def braille(text):
    return "".join(chr(0x2800 + byte) for byte in bytes.fromhex(text))


def names(space):
    """Of the pieces, as a trainer orders them: joined ones, then characters by how often they occur."""
    alone = [f"{byte:02x}" for byte in np.random.default_rng(3).permutation(256)]
    return ["<unk>", "<s>", "</s>", *map(braille, [*JOINED, *alone]), *["\u2581"] * space]


def vocabulary(space=True, begins=True, kind=2, charsmap=b"", byte_fallback=0, last=None, order=1):
    kinds = {"<unk>": [(3, 2)], "<s>": [(3, 3)], "</s>": [(3, 3)]}
    found = [*names(space), *([] if last is None else [last])]
    pieces = [
        (1, message((1, name.encode()), (2, 0.0 if i < 3 else -float(order * i)), *kinds.get(name, [])))
        for i, name in enumerate(found)
    ]
    trainer = message((1, b"bytes.txt"), (3, kind), (4, len(found)), (10, 1.0), (35, byte_fallback))
    normaliser = message((1, b"identity"), (2, charsmap), (3, begins), (4, 0))
    return message(*pieces, (2, trainer), (3, normaliser))


def weights():
    """By the published names; the embedding has rows to spare."""
    rng = np.random.default_rng(0)
    codes = len(names(True)) + SPARE
    shapes = {
        "model.embed_tokens.weight": (codes, D),
        "lm_head.weight": (codes, D),
        "model.norm.weight": (D,),
    }
    for i in range(LAYERS):
        b = f"model.layers.{i}"
        for name, outputs in (("q", D), ("k", D * GROUPS // HEADS), ("v", D * GROUPS // HEADS), ("o", D)):
            shapes[f"{b}.self_attn.{name}_proj.weight"] = (outputs, D)
        shapes |= {f"{b}.mlp.{name}_proj.weight": (HIDDEN, D) for name in ("gate", "up")}
        shapes[f"{b}.mlp.down_proj.weight"] = (D, HIDDEN)
        shapes |= {f"{b}.{name}_layernorm.weight": (D,) for name in ("input", "post_attention")}
    found = {k: rng.normal(size=s).astype(np.float32) * (0.3 if len(s) > 1 else 1) for k, s in shapes.items()}
    return found | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(D // HEADS // 2, np.float32)}


def norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def turn(x):
    """x [n, heads, d]: channel j turns with j + d/2 by its row times 10000^(-2j/d)."""
    n, _, d = x.shape
    angle = np.arange(n)[:, None, None] * 10000.0 ** (-2 * np.arange(d // 2) / d)
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def logits(w, ids):
    """[n, K] of numbers [n], the first of which is <s>."""
    w = {k: x.astype(np.float64) for k, x in w.items()}
    x = w["model.embed_tokens.weight"][ids]
    n = len(ids)
    for i in range(LAYERS):
        b = f"model.layers.{i}"
        y = norm(x, w[f"{b}.input_layernorm.weight"])
        q, k, v = (
            (y @ w[f"{b}.self_attn.{name}_proj.weight"].T).reshape(n, count, -1)
            for name, count in (("q", HEADS), ("k", GROUPS), ("v", GROUPS))
        )
        q, k, v = turn(q), turn(k).repeat(HEADS // GROUPS, axis=1), v.repeat(HEADS // GROUPS, axis=1)
        scores = np.einsum("nhd,mhd->hnm", q, k) / np.sqrt(D // HEADS)
        scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        y = np.einsum("hnm,mhd->nhd", scores / scores.sum(-1, keepdims=True), v).reshape(n, D)
        x = x + y @ w[f"{b}.self_attn.o_proj.weight"].T
        y = norm(x, w[f"{b}.post_attention_layernorm.weight"])
        gate, up = (y @ w[f"{b}.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{b}.mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


def run(*arguments, code=0):
    assert main.main([str(a) for a in arguments]) == code


@pytest.fixture
def published(tmp_path):
    """Files as they are published, but for the format of the weights."""
    files.write(tmp_path / "pytorch_model.npz", weights())
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.model").write_bytes(vocabulary())
    return tmp_path


def test_imported_and_back(published, capsys):
    """Logits of every code and the codes that are the likeliest each time, both without and with the cache."""
    w, out = weights(), published / "model"
    given = ("--generator", published / "pytorch_model.npz", "--tokenizer", published / "tokenizer.model")
    run("import", "jpeglm", *given, "--out", out)
    assert f"next: vargen sample --workdir {out} --count 4" in capsys.readouterr().out
    model = vargen.load(out)
    c, pieces = model.config, model.tokenizer.pieces
    assert (c.mixer.heads, c.mixer.kv_heads, c.model.eps, c.data.image_size) == (HEADS, GROUPS, EPS, 256)
    assert model.tokenizer.frame.restart == 1 and model.tokenizer.frame.quality == 25 and pieces.stop == 2
    assert [pieces.texts[i] for i in (0, 1, 2, 3, 6, 263)] == ["", "", "", "ffd0", "28a228a2", "_"]
    assert pieces.texts[7:263] == tuple(f"{b:02x}" for b in np.random.default_rng(3).permutation(256))
    assert model.tokenizer.grid.size == 12288

    c.tokenizer.slots, c.compute_dtype = 9, "float32"
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, model.generator_params)
    rng = np.random.default_rng(1)
    content = rng.integers(3, 263, (2, 10))

    @jax.jit
    def teacher_forced(params, content):
        labels, order = jnp.full(2, generator.condition.null), generator.ordering.decoding(None, 2)
        hidden, _ = generator.hidden(params, None, content, labels, order)
        return generator.head.apply({"params": params["head"]}, hidden)

    found = teacher_forced(params, content)
    for row, codes in zip(found, content, strict=True):
        expected = logits(w, [1, *codes[:-1]])
        np.testing.assert_allclose(row, expected, atol=2e-5 * np.abs(expected).max())

    @jax.jit
    def greedy(params):
        labels, key = jnp.full(1, generator.condition.null), jax.random.key(0)
        return decode(generator, params, None, labels, key, Sampling.make(top_k=1)).content

    ids = [1]
    while len(ids) < 11 and ids[-1] != 2:
        ids.append(int(logits(w, ids)[-1].argmax()))
    drawn = np.asarray(greedy(params))[0].tolist()
    assert drawn == (ids[1:] + [2] * 10)[:10] and len(set(drawn)) > 3

    exported = published / "again.npz", published / "again.model"
    run("export", "jpeglm", "--workdir", out, "--generator", exported[0], "--tokenizer", exported[1])
    again = files.read(exported[0])
    assert set(again) == {k for k in w if "inv_freq" not in k}
    for name in again:
        np.testing.assert_array_equal(again[name], w[name], err_msg=name)
    run(
        "import",
        "jpeglm",
        "--generator",
        exported[0],
        "--tokenizer",
        exported[1],
        "--out",
        published / "second",
    )
    assert vargen.load(published / "second").tokenizer == model.tokenizer


def test_where_texts_begin(tmp_path):
    """With a space that is a piece, with one that isn't known, or with none."""
    file = tmp_path / "tokenizer.model"
    found = []
    for space, begins in ((True, True), (False, True), (True, False)):
        file.write_bytes(vocabulary(space, begins))
        texts = systems.system("jpeglm").tokenizer.part(files.read(file).parameters()).pieces
        found.append([i for i, text in enumerate(texts) if "_" in text])
    assert found == [[263], [0], []]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(kind=1), "over plain characters, found one of another kind"),
        (dict(byte_fallback=1), "found one that falls back to bytes"),
        (dict(charsmap=b"x"), "found one that normalises"),
        (dict(last="word"), "expected pieces of bytes as Braille characters, found 'word'"),
        (dict(last=braille("00")), "tokenizer.pieces: expected each once, found 00 twice"),
        (dict(order=-1), "expected pieces from the best on, found another order"),
    ],
)
def test_other_vocabularies(change, message, tmp_path, capsys):
    file = tmp_path / "tokenizer.model"
    file.write_bytes(vocabulary(**change))
    refused(capsys, tmp_path, message, "--tokenizer", file)
    file.write_bytes(vocabulary()[:-3])
    refused(
        capsys,
        tmp_path,
        "expected a SentencePiece file, found a truncated or damaged one",
        "--tokenizer",
        file,
    )


def refused(capsys, folder, message, *flags):
    run("import", "jpeglm", *flags, "--out", folder / "o", code=2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (folder / "o").exists()


def test_the_file_beside(published, capsys):
    """What the arrays don't tell must be said, and be what is computed here."""
    given = ("--generator", published / "pytorch_model.npz", "--tokenizer", published / "tokenizer.model")
    for text, message in (
        ("[]", "expected a JSON object, found list"),
        ("{", "expected JSON, found"),
        (json.dumps(CONFIG | dict(rope_theta=5e5)), "expected rope_theta 10000.0, found 500000.0"),
        (
            json.dumps(CONFIG | dict(num_attention_heads=3)),
            "a number of heads that divides the width 32, found 3",
        ),
        (json.dumps(CONFIG | dict(rms_norm_eps="x")), "expected a number in rms_norm_eps, found 'x'"),
    ):
        (published / "config.json").write_text(text)
        refused(capsys, published, message, *given)
    (published / "config.json").unlink()
    refused(
        capsys, published, "expected config.json beside it, which tells what arrays don't, found none", *given
    )
    with pytest.raises(UserError, match="--heads: expected 4 as the arrays tell, found 2"):
        arrays = files.read(published / "tokenizer.model").parameters()
        systems.infer(systems.system("jpeglm"), arrays, weights(), heads=2, beside=CONFIG)
    assert jpeglm.told({"model_type": "llama"}) == (32, 1e-6)
