# ruff: noqa: E501 (a table: a row stands on a line)
"""Config files and files of codes."""

from beginnings import SAMPLE
from runner import Row

PROGRAMS = {  # config files, by what they hold
    "raises": ("def get_config():\n    raise RuntimeError('no')\n", ("line 2", "RuntimeError: no")),
    "imports": ("import nowhere_at_all\n", ("line 1", "nowhere_at_all")),
    "nothing": ("def get_config():\n    pass\n", ("NoneType",)),
    "recurses": ("def get_config():\n    return get_config()\n", ("line 2", "RecursionError")),
    "exits": ("import sys\nsys.exit(0)\n", ("line 2", "exits")),
    "syntax": ("def get_config(:\n", ("line 1",)),
    "lacks": ("from vargen import config\ndef get_config():\n    return config.config()\n", ("tokenizer",)),
    "empty": ("", ("get_config()",)),
}
JSONS = {
    "cut": ('{"seed": 1', ("line 1",)),
    "list": ("[]", ("object",)),
    "types": ('{"training": {"steps": "x"}}', ("training.steps",)),
    "empty": ("", ("JSON",)),
    "bare": ("{}", ("config",)),
}
FILES = [
    Row(
        f"train --config {{tmp}}/{name}.py --workdir {{tmp}}/w",
        (f"{name}.py", *words) if name != "lacks" else words,
    )
    for name, (_, words) in PROGRAMS.items()
]
FILES += [
    Row(f"train --config {{tmp}}/{name}.json --workdir {{tmp}}/w", words)
    for name, (_, words) in JSONS.items()
]
FILES += [
    Row("train --config {tmp}/pipe.py --workdir {tmp}/w", ("pipe.py", "no plain file")),
    Row("train --config {tmp}/latin.py --workdir {tmp}/w", ("latin.py", "UTF-8")),
    Row("train --config {tmp}/text.txt --workdir {tmp}/w", (".txt",)),
    *(Row(f"{SAMPLE} --codes {{tmp}}/{name}", words) for name, words in (
        ("none.npy", ("none.npy", "found none")),
        ("codes_float.npy", ("codes_float.npy", "float64")),
        ("codes_large.npy", ("128",)),
        ("codes_negative.npy", ("-1",)),
        ("codes_short.npy", ("shape",)),
        ("codes_none.npy", ("shape",)),
        ("codes_object.npy", ("codes_object.npy",)),
        ("codes_text.npy", ("codes_text.npy",)),
        ("codes_cut.npy", ("codes_cut.npy",)),
        ("codes.npz", (".npy",)),
        ("pipe.py", ("no plain file",)),
        ("text.txt", (".npy",)),
        ("", ("directory",)),
    )),
]  # fmt: skip
