"""Every file that a run has written, truncated, changed or gone: the same command again ends where it would have."""

import shutil

import pytest
import trials

STAGES = ("tokenizer", "generator")


def truncated(file):
    file.write_bytes(file.read_bytes()[:-1])


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def missing(file):
    file.unlink()


DAMAGES = (truncated, flipped, missing)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("damage")
    server = trials.Server("damage", folder)
    yield trials.undisturbed(server, "var", folder, 1, 1)
    server.close()


def damaged(stage, whole):
    """A workdir for every file of the stage's last checkpoint, or of the codes, and every damage to it."""
    source = whole.workdir / stage
    if stage in STAGES:
        steps = list((source / "checkpoints").iterdir())
        source = max(steps, key=lambda p: int(p.name))
    files = [
        p.relative_to(whole.workdir) for p in sorted(source.rglob("*")) if p.is_file() and p.stat().st_size
    ]
    for number, file in enumerate(files):
        for damage in DAMAGES:
            copy = whole.workdir.parent / f"{stage}.{number}.{damage.__name__}"
            shutil.copytree(whole.workdir, copy)
            if stage == "codes":  # which nobody reads once the generator is trained
                shutil.rmtree(copy / "generator")
            damage(copy / file)
            yield f"{damage.__name__} {file}", copy


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*STAGES, "codes"])
def test_damaged_files(stage, whole):
    expected = trials.parameters([(whole.workdir, s) for s in STAGES])
    wrong, workdirs = [], []
    for what, workdir in damaged(stage, whole):
        run = trials.Lineage(whole.server, whole.system, workdir, 1, 1, 0)
        (pid,) = run.launch(1)
        if code := whole.server.wait(pid):
            wrong.append(f"{what}: exit code {code}: {trials._tail(run)}")
            continue
        if trials.losses(workdir) != trials.losses(whole.workdir):
            wrong.append(f"{what}: other losses")
        workdirs.append((what, workdir))
    found = trials.parameters([(workdir, s) for _, workdir in workdirs for s in STAGES])
    for i, (what, _) in enumerate(workdirs):
        if found[2 * i : 2 * i + 2] != expected:
            wrong.append(f"{what}: other parameters")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
    assert len(workdirs) >= (9 if stage == "codes" else 90)
