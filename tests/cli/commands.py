"""Commands at tiny sizes, in this process or in others."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import simulated

ROOT = pathlib.Path(__file__).parents[2]

TINY = """
model.layers=2 model.width=32 mixer.heads=2 tokenizer.encoder.width=16 tokenizer.encoder.blocks=1
evaluation.samples=40 evaluation.batch_size=40 tokenizer_training.steps=4 tokenizer_training.save_every=4
tokenizer_training.batch_size=16 tokenizer_training.warmup_steps=2 tokenizer_training.log_every=1
training.steps=4 training.save_every=4 training.batch_size=16 training.warmup_steps=2 training.log_every=1
training.augmented_copies=1
""".split()
OPTIONS = {
    "diffusion": ["order.steps=3", "head.sample_steps=4", "head.width=16", "head.depth=1"],
    "epsilon": ["head.sample_steps=2"],
    "velocity": ["head.sample_steps=2"],
    "segments": [
        "evaluation.samples=8",
        "evaluation.batch_size=8",
        "training.codes=False",
        "head.heads.picture.sample_steps=4",
    ],
}


def tiny(system: str) -> list[str]:
    """The overrides that make a digits config tiny."""
    from vargen import config

    c = config.load(ROOT / "configs" / f"{system}.py")
    fields = [f for f in TINY if "encoder" in c.tokenizer or not f.startswith("tokenizer.encoder")]
    return [f"--config.{field}" for field in fields + OPTIONS.get(c.head.name, [])]


def start(*arguments: object, devices: int = 1, **environment: str) -> subprocess.Popen:
    """`vargen ARGUMENTS` in a process of its own, with so many simulated devices."""
    return subprocess.Popen(
        [sys.executable, "-m", "vargen", *map(str, arguments)],
        env=dict(os.environ, XLA_FLAGS=simulated.flags(devices), JAX_PLATFORMS="cpu", **environment),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: object, devices: int = 1, code: int = 0) -> str:
    """Runs it to its end; what it printed on both streams."""
    process = start(*arguments, devices=devices)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, (process.returncode, out, err)
    return out + err


def together(*arguments: object, processes: int = 2, devices: int = 2, code: int = 0) -> list[str]:
    """Runs it as several processes of one run; what each printed."""
    where = ["--coordinator", f"localhost:{free_port()}", "--num-processes", processes, "--process-id"]
    running = [start(*arguments, *where, i, devices=devices) for i in range(processes)]
    outputs = ["".join(p.communicate(timeout=600)) for p in running]
    assert [p.returncode for p in running] == [code] * processes, outputs
    return outputs


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def rows(workdir: pathlib.Path, stage: str) -> list[dict]:
    """The records of a stage."""
    return [json.loads(line) for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
