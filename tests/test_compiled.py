"""Programs compiled for accelerators that aren't there: the counting itself, and what the counts may not grow above."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from systems import some_slow

from benchmarks import activations, compiled, hlo, hlo_names, targets
from vargen import bundled, config
from vargen.kernels import dispatch
from vargen.sharding import make_mesh

M, K, TRIPS = 16, 1024, 5


def program(function, devices, *shapes):
    """A function compiled for the first device; shapes are of bfloat16 but where they say so."""
    sharding = NamedSharding(make_mesh(devices=devices[:1]), PartitionSpec())
    shapes = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding) for s in shapes]
    text = targets.compiled(jax.jit(function).lower(*shapes)).as_text()
    return hlo.Program(text, targets.sheet("h100"))


def products(weights_dtype, x, w):
    def body(_, x):
        return jnp.tanh(x @ w.astype(weights_dtype))

    return jax.lax.fori_loop(0, TRIPS, body, x)


def test_a_loop_of_products(gpu_devices):
    """FLOPs by the definition, trips applied; a weight of bfloat16 is read once a trip."""
    x, w = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((M, K), (K, K)))
    found = program(lambda x, w: products(jnp.bfloat16, x, w), gpu_devices, x, w)
    loop = found.main_loop()
    assert (loop.trips, loop.times) == (TRIPS, TRIPS)
    assert loop.body.flops == 2 * M * K * K and found.total.flops == TRIPS * loop.body.flops
    assert 2 * K * K < loop.body.bytes < 4 * K * K
    # The loop's counter and the activation's pieces move, none of what stays does.
    assert loop.body.unchanged == [0.0, 0.0]
    assert loop.body.seconds >= loop.body.launches * targets.sheet("h100").launch


def test_weights_behind_bitcasts_are_read():
    """A fusion's product of a weight that another fusion in it only casts: both operands and the output."""
    text = """
%cast (w: bf16[64,32]) -> bf16[64,32] {
  %w = bf16[64,32]{1,0} parameter(0)
  ROOT %same = bf16[64,32]{1,0} bitcast(%w)
}

%fused (x: bf16[2,64], w: bf16[64,32]) -> bf16[2,32] {
  %x = bf16[2,64]{1,0} parameter(0)
  %w.1 = bf16[64,32]{1,0} parameter(1)
  %own = bf16[64,32]{1,0} fusion(%w.1), kind=kLoop, calls=%cast
  ROOT %y = bf16[2,32]{1,0} dot(%x, %own), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (x: bf16[2,64], w: bf16[64,32]) -> bf16[2,32] {
  %x.1 = bf16[2,64]{1,0} parameter(0)
  %w.2 = bf16[64,32]{1,0} parameter(1)
  ROOT %z = bf16[2,32]{1,0} fusion(%x.1, %w.2), kind=kOutput, calls=%fused
}
"""
    assert hlo.Program(text).total.bytes == 2 * (2 * 64 + 64 * 32 + 2 * 32)


def test_launches_by_part():
    """By the scope that they come from, a loop's with its trips, and a kernel's bytes and FLOPs by its scope."""
    text = """
%body (p: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %p = (s32[], bf16[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[8]{0} get-tuple-element(%p), index=1
  %y = bf16[8]{0} custom-call(%x), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="SCOPE"}
  ROOT %t = (s32[], bf16[8]{0}) tuple(%i, %y)
}

%condition (p: (s32[], bf16[8])) -> pred[] {
  %p.1 = (s32[], bf16[8]{0}) parameter(0)
  ROOT %c = pred[] constant(true)
}

ENTRY %main (a: (s32[], bf16[8])) -> bf16[8] {
  %a = (s32[], bf16[8]{0}) parameter(0)
  %w = (s32[], bf16[8]{0}) while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %x.1 = bf16[8]{0} get-tuple-element(%w), index=1
  ROOT %z = bf16[8]{0} negate(%x.1), metadata={op_name="decode/Block/norm_1/neg"}
}
"""
    scope = "decode/Block/feed_forward/product_of_60_flops_moving_100_bytes/pallas_call"
    program = hlo.Program(text.replace("SCOPE", scope))
    assert program.total.flops == 180
    found = hlo_names.by_part(program)
    assert {part: tuple(x.values()) for part, x in found.items()} == {
        "feed-forward": (3, 300e-6),
        "norms and residuals": (1, 32e-6),
    }


def test_rows_that_products_move():
    """By the sizes of all kernels: a row in and out of each, the first three of one input, residuals, and attention's
    own."""
    c, _, generator = compiled.built("var:digits")
    params = jax.eval_shape(generator.init, jax.random.key(0))
    kernels = {
        name: params["blocks"]["mixer"][name]["kernel"].shape[1:] for name in ("query", "key", "value")
    }
    both = sum(sum(shape) for shape in kernels.values()) - 2 * c.model.width
    attention = sum(shape[1] for shape in kernels.values()) + kernels["query"][1]
    after = [params["blocks"]["mixer"]["out"], *params["blocks"]["feed_forward"].values()]
    both += sum(sum(layer["kernel"].shape[1:]) for layer in after) + 2 * c.model.width  # two residuals
    head = sum(params["head"]["out"]["kernel"].shape)
    expected = 2 * 2 * 3 * generator.sequence.grid.size * (c.model.layers * (both + attention) + head)
    assert activations.sampling(generator, 3, compiled.paper(c)) == expected


@pytest.mark.parametrize(
    "name, known", [("maskgit", True), ("mar", True), ("rqtransformer", False), ("arpg", False)]
)
def test_whose_rows_are_known(name, known):
    """Those of all heads that are claimed."""
    c, _, generator = compiled.built(f"{name}:digits")
    assert activations.knows(generator) == known
    if known:
        moved = activations.sampling(generator, 1, compiled.paper(c))
        assert activations.sampling(generator, 2, compiled.paper(c)) == 2 * moved > 0


@pytest.mark.parametrize(
    "name, side, options, taps",
    [
        # Taps on pixels, a dimension: of 3 over n pixels 3 n - 2; of n / 2 strides three each, but 2 of the last.
        ("same", 16, "size=3x3 pad=1_1x1_1", (3 * 16 - 2) ** 2),
        ("strided", 8, "size=3x3 stride=2x2 pad=0_1x0_1", (3 * 8 - 1) ** 2),
        ("valid", 14, "size=3x3", (3 * 14) ** 2),
        ("transposed", 32, "size=2x2 pad=1_1x1_1 lhs_dilate=2x2", 32**2),
    ],
)
def test_convolutions_count_pixels(name, side, options, taps):
    """By the definition: padding, and zeros between pixels, are multiplied by nobody."""
    text = f"""
%main (x: f32[2,16,16,8], k: f32[3,3,8,4]) -> f32[2,{side},{side},4] {{
  %x = f32[2,16,16,8]{{3,2,1,0}} parameter(0)
  %k = f32[{",".join(options[5:8].split("x"))},8,4]{{3,2,1,0}} parameter(1)
  ROOT %y = f32[2,{side},{side},4]{{3,2,1,0}} convolution(%x, %k), window={{{options}}}, dim_labels=b01f_01io->b01f
}}
"""
    assert hlo.Program(text.replace("%main", "ENTRY %main")).total.flops == 2 * 2 * 8 * 4 * taps


def test_what_does_not_change_is_found(gpu_devices):
    """A weight kept in float32 is converted in every trip: 4 bytes are read and 2 written of each number."""
    x, w = jax.ShapeDtypeStruct((M, K), jnp.bfloat16), jax.ShapeDtypeStruct((K, K), jnp.float32)
    body = program(lambda x, w: products(jnp.bfloat16, x, w), gpu_devices, x, w).main_loop().body
    assert body.unchanged == [1.0, 6.0 * K * K]
    assert body.by_kind["move"] == body.unchanged


def test_slices_count_as_slices(gpu_devices):
    """A row written into a buffer in a loop, and one read of a table: rows, not the buffers."""

    def run(buffer, table):
        def body(i, buffer):
            row = jax.lax.dynamic_slice_in_dim(table, i, 1) * 2
            return jax.lax.dynamic_update_slice_in_dim(buffer, row, i, 0)

        return jax.lax.fori_loop(0, TRIPS, body, buffer)

    shape = jax.ShapeDtypeStruct((1000, K), jnp.float32)
    body = program(run, gpu_devices, shape, shape).main_loop().body
    assert body.bytes < 20 * 4 * K


def test_floors_are_the_same_whatever_is_compiled_for():
    """Kernels hide what they look at: with one in its place a floor would count all of a cache."""
    args = "var:digits", 9, (), "h100"
    expected = compiled.floor_of_sampling(*args)
    compiled.least.cache_clear()
    with dispatch.lowered_for(("gpu",)):
        assert compiled.floor_of_sampling(*args) == expected


def test_every_system_is_compiled():
    """By a size that is published."""
    published = "published_drawn", "published_levels", "published_registers", "published_tokenizers"
    others = "clips", "mixers", *published, "registers", "tokenizers"
    assert {*compiled.SIZES, *others} == set(bundled.names())
    for name, (size, *_) in compiled.SIZES.items():
        system, _, chosen = size.partition(":")
        assert system == name and not chosen.startswith(("digits", "pictures", "shapes"))
        config.load(size)


# Launches and megabytes of one trip of the loop that moves most, as they were counted with jax 0.10.2: a change may
# make them fewer. `python -m benchmarks.compiled NAME --batch 2 --text FOLDER` writes the program out for a look.
SAMPLING = {"llamagen:digits": (38, 2.054), "rar:digits": (34, 2.026)}


@pytest.mark.parametrize("name", some_slow(SAMPLING, ("rar:digits",)))
def test_a_step_of_decoding_does_not_grow(name, gpu_devices):
    """By 5 %; and nothing in it could stand before the loop."""
    c, tokenizer, generator = compiled.built(name)
    lowered = compiled.sampler(c, tokenizer, generator, 2, gpu_devices)
    found = compiled.counted(lowered, "h100")["loop"]
    launches, mbytes = SAMPLING[name]
    assert found["launches"] <= 1.05 * launches, found
    assert found["mbytes"] <= 1.05 * mbytes, found
    assert found["unchanged"]["mbytes"] < 0.01 * mbytes, found
    # Of a layer: norm and projections in, attention, projection out and residual, and both halves of the network.
    assert found["by_kind"]["kernel"]["launches"] == 5 * c.model.layers
