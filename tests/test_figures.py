"""Figures of the documentation are those of benchmarks/results/, to as many digits as it shows."""

import re

import pytest
from figures import NUMBER, TEXT, agree, percent, results, rows

from benchmarks import over_tokenizers, timing, tokenizers

DIGITS, KERNELS, SAMPLING = results("digits"), results("kernels"), results("sampling_cpu")


def quality(found):
    return [
        *percent(found["label_accuracy"]),
        found["frechet_distance_classifier"],
        *percent(found["precision"], found["recall"]),
    ]


@pytest.mark.parametrize("name", ["VAR", "LlamaGen", "RAR", "MAR"])
def test_digits(name):
    found = DIGITS[name.lower()]
    use = percent(found["codebook_use"]) if "codebook_use" in found else []
    trained = [found["generator_train_seconds"], found["generator_steps"]]
    (row,) = rows("On the digits", 9)[name]
    agree(row, [*trained, *quality(found), found["psnr_db"], *use, found["images_per_second"]])


def test_other_digits():
    """All that were measured are shown."""
    shown = {name: row for name, (row,) in rows("On the digits", 6).items() if name}
    named = {re.sub("-(?=transformer|mar|lm)|,.*", "", name.lower()): row for name, row in shown.items()}
    measured = {k: v for k, v in DIGITS["on_a_shared_core"].items() if k != "note"}
    assert named.keys() == measured.keys()
    for name, row in named.items():
        agree(row, [*quality(measured[name]), measured[name]["psnr_db"]])


COMPILED = {
    "LlamaGen-B": "llamagen:b sample batch=1 h100",
    "LlamaGen-B, 384 pixels": "llamagen:b sample batch=8 h100 data.image_size=384",
    "RAR-B": "rar:b sample batch=1 h100",
    "RAR-XL": "rar:xl sample batch=64 h100",
    "VAR-d16": "var:d16 sample batch=1 h100",
    "VAR-d30": "var:d30 sample batch=64 h100",
    "MAR-B": "mar:b sample batch=1 h100",
    "MAR-L": "mar:l sample batch=64 h100",
}
NAMES = ("VAR-d16", "MAR-B")


def test_compiled():
    """Sampling as it is compiled, and what is published beside it."""
    now, before = (results(name)["programs"] for name in ("compiled", "compiled_before"))
    shown = {name: row for name, (row,) in rows("On accelerators that aren't at hand", 7).items() if name}
    assert shown.keys() == COMPILED.keys()
    for name, label in COMPILED.items():
        found, values = now[label], []
        for key in ("launches", "mbytes"):
            values += [x[label][key] / 1e3 for x in (now, before) if label in x]
        rate = found["batch"] / found["predicted_seconds"]["one_after_another"]
        published = list(found["published"].values()) if shown[name][-1] else []
        agree(shown[name], [found["batch"], *values, found["floor"]["mbytes"] / 1e3, rate, *published])


def test_what_moves():
    """The bytes by the part of the model that they come from, and the floor with the rows'."""
    now = results("compiled")["programs"]
    own = [now[COMPILED[name]] for name in NAMES]
    text = re.search(r"rows once \(.*?\) the floor of (.*?) times\.", TEXT, flags=re.DOTALL)[1]
    text = re.sub("|".join(NAMES), "", text)
    least = [one["floor"]["mbytes_with_activations"] for one in own]
    times = [one["mbytes"] / floor for one, floor in zip(own, least, strict=True)]
    agree([text], [*(x / 1e3 for x in least), *times])
    shown = {
        name: row for name, (row,) in rows("On accelerators that aren't at hand", 1 + 2 * len(NAMES)).items()
    }
    del shown["of which"]
    assert shown.keys() == {part for one in own for part in one["by_part"]}
    for part, row in shown.items():
        found = [one["by_part"][part] for one in own if part in one["by_part"]]
        agree(row, [x for one in found for x in (one["launches"], one["mbytes"] / 1e3)])


def test_sentences_of_compiled():
    now = results("compiled")["programs"]
    decoders = [x["predicted_seconds"]["one_after_another"] * 1e3 for k, x in now.items() if " decode " in k]
    text = re.search(r"decoder of pictures \((.*?) ms", TEXT)[1]
    agree([text], [min(decoders), max(decoders)])
    text = re.search(r"launches decide: (.*?)\.", TEXT, flags=re.DOTALL)[1]
    steps = [now[COMPILED[name]]["loop"]["launches"] for name in ("LlamaGen-B", "RAR-B")]
    agree([re.search(r"^\d+", text)[0], re.search(r", (\d+) for", text)[1]], steps)


def test_picture_sizes():
    minutes = [x["cpu_minutes"] for x in results("picture_sizes_cpu")["systems"].values()]
    text = re.search(r"Both stages of the latter two take (.*?) minutes.*?, (\d+) of them", TEXT, re.DOTALL)
    agree(list(text.groups()), [min(minutes), max(minutes), len(minutes)])


@pytest.mark.parametrize("policy", ["none", "products", "blocks"])
def test_remat(policy):
    """As loops, whose memory and FLOPs are shown, and unrolled."""
    found, values = results("remat")["programs"], []
    label = "{} h100 training.scan_layers={} training.remat={}"
    for name in ("llamagen:l train batch=64", "var:d16 train batch=32"):
        loop, flat = (found[label.format(name, scanned, policy)] for scanned in (True, False))
        values += [loop["temporary_mbytes"] / 1e3, loop["gflop"] / 1e3]
        values += percent(loop["useful"]["mfu"], flat["useful"]["mfu"])
    row = re.search(rf"^\| `{policy}`[^|]*\|(.*)", TEXT, flags=re.MULTILINE)[1]
    agree([row], values)


def test_unrolled_training():
    text = re.search(r"RAR-L and MAR-L unrolled are predicted at (.*?), before", TEXT, flags=re.DOTALL)[1]
    found = results("compiled_train")["programs"]
    names = (f"{name}:l train batch=64 h100 training.scan_layers=False" for name in ("rar", "mar"))
    agree([text], percent(*(found[name]["useful"]["mfu"] for name in names)))


def test_pods():
    """Training on many chips, now and before activations were kept split by the batch."""
    pods, values = results("compiled_pods"), []
    text = re.search(r"As compiled for v5e slices.*?\)\.", TEXT, flags=re.DOTALL)[0]
    for name, sizes in (("var:d30", [1024, 256, 16]), ("mar:b", [64, 16, 4])):
        values += sizes
        for found in (pods["programs"], pods["before"]):
            (one,) = (x for label, x in found.items() if label.startswith(name))
            values += [one["predicted_seconds"]["one_after_another"], *percent(one["useful"]["mfu"])]
            values += [one["collective_mbytes"] / 1e3]
    agree([re.sub(r"v5e|VAR-d30|[\w/]*\.(json|py)", "", text)], values)


def test_training_on_four_chips():
    text = re.search(r"On the four chips.*?v6e's", TEXT, flags=re.DOTALL)[0]
    found = results("compiled_train")["programs"]
    steps = (("var:d16", 32), ("llamagen:l", 64), ("rar:l", 64), ("mar:l", 64))
    shares = [
        found[f"{name} train batch={batch} {target}"]["useful"]["mfu"]
        for target in ("v5p:2x2x1", "v6e:2x2")
        for name, batch in steps
    ]
    agree([re.sub(r"VAR-d16|v5p|v6e", "", text)], [32, 64, *percent(*shares)])


def test_every_system_compiled():
    """One picture of each system, for an H100 and for TPUs."""
    found, tpu = (results(name)["programs"] for name in ("compiled_systems", "compiled_tpu"))
    shown = {
        name.strip("`"): row
        for name, (row,) in rows("On accelerators that aren't at hand", 8).items()
        if name.startswith("`")
    }
    assert {f"{name} sample batch=1 h100" for name in shown} == found.keys()
    for name, row in shown.items():
        one = found[f"{name} sample batch=1 h100"]
        others = [tpu.get(f"{name} sample batch=1 {chip}") for chip in ("v5e:2x2", "v6e:2x2", "v5p:2x2x1")]
        assert [bool(cell) for cell in row[-3:]] == [x is not None for x in others]
        times = [
            x["predicted_seconds"][kind] * 1e3
            for x in (one, *others)
            for kind in ("overlapped", "one_after_another")
            if x
        ]
        agree(row, [one["launches"] / 1e3, one["mbytes"] / 1e3, one["floor"]["mbytes"] / 1e3, *times])


def test_first_call():
    text = re.search(r"tracing and compiling take (.*?) s on the same cores", TEXT, flags=re.DOTALL)[1]
    found, values = results("first_call")["systems"], {}
    for name, of in found.items():
        for target, times in of.items():
            for when, parts in times.items():
                values[name, target, when] = sum(x["wall"] for x in parts.values())
    first, cached, h100 = (
        [v for (_, *key), v in values.items() if key == kind]
        for kind in (["cpu", "first"], ["cpu", "cached"], ["h100", "first"])
    )
    numbers = re.sub(r"-d16|H100", "", text)
    agree([numbers], [*first, min(cached), max(cached), *h100])


def test_eight_bits():
    text = re.search(r"Fréchet distance of[^;]*; of the likeliest[^.]*\.", TEXT, flags=re.DOTALL)[0]
    full, int8, float8 = (results("eight_bits")["weights"][name] for name in ("full", "int8", "float8"))
    distances = [x["frechet_distance_classifier"] for x in (int8, float8, full)]
    assert full["label_accuracy"] == int8["label_accuracy"] == float8["label_accuracy"]
    shared = [*percent(full["label_accuracy"]), full["bits_per_code"]]
    numbers = re.sub(r"int8|float8|bfloat16", "", text)
    agree([numbers], [*distances, *shared, *percent(int8["equal_codes"], float8["equal_codes"])])


def test_passes_of_hmar():
    text = re.search(r"HMAR in other numbers of passes.*?\n\n", TEXT, flags=re.DOTALL)[0]
    found = {k: v for k, v in DIGITS["hmar_seeds"].items() if k != "note"}
    means = [[sum(seed[i] for seed in seeds) / len(seeds) for i in (1, 3)] for seeds in found.values()]
    agree([text], [*(distance for distance, _ in means), *percent(*(recall for _, recall in means))])


def test_mixers():
    shown, measured = rows("Mixers and kernels", 7), results("mixers_digits")
    for name, found in {"`gla`": measured["gla"], "`mamba`": measured["mamba"]}.items():
        (row,) = shown[name]
        agree(row, [found["generator_steps"], *quality(found), found["images_per_second"]])
    found = DIGITS["llamagen"]
    (row,) = shown["attention (the LlamaGen of the table above)"]
    agree(row, [found["generator_steps"], *quality(found), found["images_per_second"]])


def test_sampling():
    names = {"VAR-d16": "var", "LlamaGen-B": "llamagen", "MAR-B, 16 steps": "mar", "RAR-B": "rar"}
    shown = rows("Speed", 8)
    for name, system in names.items():
        measured = SAMPLING[system]["batches"]
        for row, (batch, found) in zip(shown[name], measured.items(), strict=True):
            ours, theirs = found["vargen"], found["authors"]
            seconds = [ours["seconds_per_image"], theirs["seconds_per_image"], found["ratio_to_authors"]]
            memory = [
                found["memory"][side]["peak_bytes"] / 1e9 for side in ("vargen", "vargen_cached", "authors")
            ]
            agree(row, [int(batch), *seconds, found["ours_to_floor"], ours["first"], *memory])


def test_tokenizers():
    """The table as the benchmark writes it, of every row that it has."""
    found = results("tokenizers")
    assert found["rows"].keys() == tokenizers.ROWS.keys()
    assert tokenizers.table(found["rows"]) in TEXT


def test_over_tokenizers():
    """The table as the benchmark writes it, of rows that there are, each recognised far above chance."""
    found = results("over_tokenizers")
    assert over_tokenizers.tables(found["rows"]) in TEXT
    assert found["rows"].keys() <= over_tokenizers.rows().keys()
    for name, row in found["rows"].items():
        assert row["config"] == over_tokenizers.rows()[name]
        assert row["label_accuracy"] > found["chance"] + 0.3


def test_attention():
    names = {
        "VAR 256: 680 slots, 10 steps": "var_256",
        "VAR 512: 2240 slots": "var_512",
        "raster 1024": "llamagen_1024",
        "MAR: 320, bidirectional": "mar",
        "an order for every example, 1024": "random_1024",
        "causal 4096": "causal_4096",
    }
    shown = rows("Kernels", 4)
    for name, shape in names.items():
        both = [KERNELS["attention"][shape][p] for p in ("forward", "forward_backward")]
        times = [each["ours_over"][rival] for rival in ("dense", "torch_sdpa_mask") for each in both]
        (row,) = shown[name]
        agree(row, times + [each["temporaries_over_ours"]["dense"] for each in both])


def test_precision():
    shown, measured = rows("bfloat16", 5), results("precision_cpu")
    names = {"VAR-d16": "var_d16", "LlamaGen-B": "llamagen_b", "RAR-B": "rar_b", "MAR-B": "mar_b"}
    names |= {f"{s} on the digits, trained": f"{s.lower()}_digits" for s in ("VAR", "RAR")}
    for name, key in names.items():
        found = measured[key]
        values = percent(
            found["rms_error_over_rms"], *[found.get("likeliest_code_the_same", ())] * (key != "mar_b")
        )
        if key != "mar_b":
            same = found["greedy_tokens_before_the_first_other"]
            values += [same] if same == found["slots"] else [same, found["slots"]]
        (row,) = shown[name]
        agree(row, [*values, found["decoder_mean_error_in_grey_levels"]])


def sentences():
    """Words of the pages with a group for each of its numbers, and what was measured."""
    quick, pictures, shapes = results("quickstart"), results("pictures")["metrics"], results("orthus_shapes")
    shapes, levels = shapes["metrics"], DIGITS["flexvar_levels"]["label_accuracy"]
    yield "took N min N s on two cores", divmod(quick["wall_seconds"], 60)
    yield "N % of its samples are taken", percent(quick["label_accuracy"])
    yield "a PSNR of N dB, all of the codebook", [quick["psnr_db"]]
    yield "took N minutes on one core", [pictures["train_seconds"] / 60]
    use = percent(pictures["codebook_use"], pictures["precision"], pictures["real_precision"])
    yield (
        "N dB, N % of the codebook in use, precision N % where other .* have N %",
        [pictures["psnr_db"], *use],
    )
    yield "gets N % of held-out real digits", percent(DIGITS["var"]["real_label_accuracy"])
    fashion = results("ranking_fashion")["real"]
    yield (
        r"classifier that gets N % of held-out pictures right \(training pictures in the samples' place: N\)",
        [*percent(fashion["real_label_accuracy"]), fashion["real_frechet_distance_classifier"]],
    )
    ranking = results("ranking_fashion")
    updates = [ranking["systems"][name]["updates"] for name in ("arpg", "himar")]
    yield "ARPG's N beside Hi-MAR's N, nearly", updates
    updates = [ranking["tokenizer_updates"][name] for name in ("flexvar", "var")]
    yield "which makes N updates where VAR's makes N", updates
    yield "in place of samples: N\\)", [DIGITS["var"]["real_frechet_distance_classifier"]]
    for shown in ("1,4", "1,2,3,4x6", "1,2,3,6x4", "1,2,3,4,6"):
        yield rf"N % [^%]*?\(`(?:--levels )?{shown}`\)", percent(levels[shown])
    held_out = {int(step): loss for step, loss in DIGITS["held_out_loss"]["jpeglm"].items()}
    words = r"Of JPEG-LM's samples N % are whole files: .* held-out loss is least at N of the N steps"
    whole = percent(DIGITS["on_a_shared_core"]["jpeglm"]["valid"])
    yield words, [*whole, min(held_out, key=held_out.__getitem__), max(held_out)]
    chances = percent(shapes["pictures_right"], shapes["pictures_chance_right"])
    parts = percent(*(shapes[f"pictures_{p}"] for p in ("place", "shape", "colour")))
    words = r"N % of pictures are exactly .* say \(chance N %; N % of places, N % of shapes, N % of colours\)"
    yield words, chances + parts
    words = r"N % of texts exactly what the picture shows \(chance N %\)"
    yield words, percent(shapes["words_right"], shapes["words_chance_right"])
    (jacobi,) = (model for name, model in results("jacobi_cpu").items() if name != "environment")
    times = sorted(
        found["seconds_over_scheduled"]
        for batch in jacobi["batches"].values()
        for temperature in batch.values()
        for name, found in temperature.items()
        if name != "scheduled"
    )
    assert len(times) == 12
    words = "of twelve settings, on a LlamaGen of N updates, eleven took N to N times as long and one N times"
    yield words, [jacobi["training_steps"], times[1], times[-1], times[0]]
    ratios = [s["ratio_of_medians"] for s in results("grammar_cpu")["systems"].values()]
    yield "took N to N times as long \\(\\[grammar", [min(ratios), max(ratios)]
    step, start = results("train_step_cpu"), results("startup")
    sizes = [step["parameters"] / 1e6, step["slots"], step["batch"]]
    words = r"small VAR \(N M parameters, N slots, batch N\) takes on one core N times .* alone, at N GFLOP/s"
    assert step["environment"]["cores"] == 1
    yield words, [*sizes, step["cpu_ratio_to_products"], step["gflops_per_cpu_second"]]
    warm = [start["import_vargen"]["warm"], start["help"]["warm"]]
    yield "`import vargen` takes N s, `vargen --help` N s", warm
    faults = results("faults")
    counts = [faults["seconds"] / 60, faults["failures"], faults["while_saving"], faults["on_two_processes"]]
    yield (
        "`make test-faults`, N minutes.*? failed N times, N of them while saving and N on two processes",
        counts,
    )
    passes, plain = ("forward", "forward_backward"), "sequential"
    forward, both = (
        sorted(c[p]["ours_over"][plain] for c in KERNELS["linear"].values() if plain in c[p]["ours_over"])
        for p in passes
    )
    words = (
        "`linear_attention` is N to N times faster than the plain recurrence, and forward alone N to N times"
    )
    yield words, [both[0], both[-1], forward[0], forward[-1]]
    scans = [c[p]["ours_over"]["lax_associative_scan"] for c in KERNELS["scan"].values() for p in passes]
    yield "`linear_scan` is N to N times faster than `lax.associative_scan`", [min(scans), max(scans)]
    tpu, kinds = KERNELS["tpu"], ("temporary", "argument", "output")
    memory = [
        sum(tpu[shape][passes[1]][side][f"{kind}_mib"] for kind in kinds)
        for shape in ("var_256", "causal_4096")
        for side in ("ours", "dense")
    ]
    batch = tpu["var_256"]["sizes"]["batch"]
    words = (
        "over N examples needs N MiB where the dense mask needs N, and 4096 causal slots N MiB instead of N"
    )
    yield words, [batch, *memory]


@pytest.mark.parametrize("words, values", sentences(), ids=lambda x: x[:40] if isinstance(x, str) else "")
def test_sentences(words, values):
    text = " ".join(TEXT.split())
    match = re.search(re.sub(r"\bN\b", lambda _: f"({NUMBER})", words), text)
    assert match, "the pages say it in other words"
    agree(match.groups(), values)


@pytest.mark.parametrize(
    ("cpuinfo", "flags", "expected"),
    [
        (["flags\t\t: fpu avx avx2 avx512f"], "", "AVX-512"),
        (["flags\t\t: avx2", "vmx flags\t: avx512f"], "--xla_x=1", "AVX2"),
        (["Features\t: fp asimd"], "", "NEON"),
        (["flags: avx512f"], "--xla_cpu_max_isa=AVX2 --xla_x=1", "AVX-512, XLA's code at most AVX2"),
        ([], "", "unknown"),
    ],
)
def test_results_state_the_instruction_set(cpuinfo, flags, expected):
    assert timing.instruction_set(cpuinfo, flags) == expected
