"""What becomes of failures: a line and an exit code for the machine's and the user's, a traceback for a bug."""

import concurrent.futures
import errno
import importlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vargen import paths
from vargen.cli import failures, machine, main, sample
from vargen.errors import Stopped, UserError


def ended(monkeypatch, capsys, raises):
    """Exit code and stderr of a command in which `raises` runs."""
    monkeypatch.setattr(sample, "run", lambda args: raises())
    code = main.main(["sample", "--workdir", "w"])
    return code, capsys.readouterr().err


def throw(error):
    def raises():
        raise error

    return raises


def os_error(number, *names):
    return OSError(number, os.strerror(number), *names)


LINES = {
    "no such file": (os_error(errno.ENOENT, "a/b"), ["a/b: No such file"]),
    "a file where a folder should be": (os_error(errno.ENOTDIR, "a/b"), ["a/b: Not a directory"]),
    "a folder where a file should be": (os_error(errno.EISDIR, "a"), ["a: Is a directory"]),
    "open files": (os_error(errno.EMFILE, "a"), ["a: Too many open files", "ulimit -n"]),
    "links": (os_error(errno.ELOOP, "a"), ["a: Too many levels of symbolic links"]),
    "long name": (os_error(errno.ENAMETOOLONG, "a" * 5000), ["aaa", "File name too long"]),
    "read-only": (os_error(errno.EROFS, "a"), ["a: Read-only file system"]),
    "denied": (os_error(errno.EACCES, b"a\xff"), ["a\\udcff: Permission denied"]),
    "full": (os_error(errno.ENOSPC, "a"), ["a: No space left on device", "start the same command again"]),
    "line in a name": (os_error(errno.ENOENT, "a\n\x1b[31mb"), ["a\\n\\x1b[31mb: No such file"]),
    "refused": (os_error(errno.ECONNREFUSED), ["Connection refused"]),
    "reset": (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), ["reset by peer"]),
    "another pipe": (BrokenPipeError(errno.EPIPE, "Broken pipe"), ["Broken pipe"]),
    "timeout": (TimeoutError(), ["TimeoutError"]),
    "memory": (MemoryError(), ["memory: expected more"]),
    "memory of the system": (os_error(errno.ENOMEM), ["memory: expected more"]),
    "a large array": (ValueError("array is too big; `arr.size` is larger"), ["memory: expected arrays that fit"]),
    "threads": (RuntimeError("can't start new thread"), ["threads: expected more"]),
    "home": (RuntimeError("Could not determine home directory."), ["HOME"]),
    "package": (ModuleNotFoundError("No module named 'torch'", name="torch"), ["vargen[torch]"]),
    "library": (ImportError("libcuda.so.1: cannot open shared object file", name="x"), ["libcuda.so.1"]),
    "backend": (RuntimeError("Unable to initialize backend 'tpu': none"), ["backend: expected", "'tpu'"]),
    "user": (UserError("a\nb:  expected\x07 c"), ["a b:  expected\\x07 c"]),
    "long": (UserError("x" * 10**6), ["x ... x"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_what_can_be_mended_is_one_line(name, monkeypatch, capsys):
    error, words = LINES[name]
    code, said = ended(monkeypatch, capsys, throw(error))
    assert (code, said.count("\n")) == (2, 1), said
    assert len(said) < 3000
    for word in ["vargen sample: ", *words]:
        assert word in said


def test_memory_of_a_device(monkeypatch, capsys):
    import jax

    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\n allocating 8 bytes")
    code, said = ended(monkeypatch, capsys, throw(error))
    assert (code, said.count("\n")) == (2, 1)
    assert "device memory" in said and "allocating 8 bytes" in said


def test_names_of_half_written_files_are_those_that_the_user_knows(tmp_path):
    wanted = tmp_path / "model.npz"
    inside = paths._partial(wanted) / "inner"
    assert machine.shown(str(paths._partial(wanted))) == str(wanted)
    assert machine.failure(os_error(errno.EIO, str(inside))).startswith(f"{wanted}/inner: ")


def test_a_full_disk_names_the_file(tmp_path, monkeypatch, capsys):
    def raises():
        with paths.replacing(tmp_path / "model.npz"):
            raise os_error(errno.ENOSPC)

    code, said = ended(monkeypatch, capsys, raises)
    assert code == 2 and f"{tmp_path}/model.npz: No space left" in said
    assert not list(tmp_path.iterdir())


def a_future():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(throw(UserError("picture.png: broken"))).result()


def replaced():
    try:
        raise UserError("picture.png: broken")
    except UserError:
        raise RuntimeError("a reader failed")  # noqa: B904


def wrapped():
    try:
        raise UserError("picture.png: broken")
    except UserError as error:
        raise ValueError("a checkpointer failed") from error


WRAPPED = {
    "future": a_future,
    "context": replaced,
    "cause": wrapped,
    "group": throw(ExceptionGroup("two", [RuntimeError("a"), UserError("picture.png: broken")])),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_users_mistake_that_a_library_wrapped(name, monkeypatch, capsys):
    code, said = ended(monkeypatch, capsys, WRAPPED[name])
    assert (code, said) == (2, "vargen sample: picture.png: broken\n")


def test_a_message_that_names_the_command_itself(monkeypatch, capsys):
    said = "expected --workdir, found none"
    assert ended(monkeypatch, capsys, throw(UserError(f"sample: {said}"))) == (2, f"vargen sample: {said}\n")
    other = ended(monkeypatch, capsys, throw(UserError(f"train: {said}")))
    assert other == (2, f"vargen sample: train: {said}\n")


def mistaken():
    try:
        raise UserError("picture.png: broken")
    except UserError as error:
        raise KeyError("x") from error


def looked_for():
    try:
        open("/nonexistent")
    except OSError:
        raise RuntimeError("state is broken")  # noqa: B904


def ours():
    exec(  # as if the code were vargen's
        "try: raise UserError('picture.png: broken')\nexcept UserError as e: raise RuntimeError('x') from e",
        dict(__name__="vargen.some", UserError=UserError),
    )


BUGS = dict(
    plain=throw(TypeError("x")),
    from_user=mistaken,
    looked_for=looked_for,
    ours=ours,
    import_=throw(ModuleNotFoundError("x", name="vargen.x")),
)


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_keeps_its_traceback_and_says_where_to_report_it(name, monkeypatch, capsys):
    code, said = ended(monkeypatch, capsys, BUGS[name])
    assert code == 1
    assert "Traceback" in said
    assert said.splitlines()[-1] == f"vargen sample: {failures.BUG}"
    assert "vargen env" in failures.BUG


def lost_in_a_library():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        raise ImportError("cannot import name x")  # noqa: B904


SIGNALS = {
    "Ctrl-C": (throw(KeyboardInterrupt()), 130, "interrupted"),
    "SIGTERM": (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "stopped by SIGTERM"),
    "SIGHUP": (lambda: os.kill(os.getpid(), signal.SIGHUP), 129, "stopped by SIGHUP"),
    "saved": (throw(Stopped(signal.SIGTERM)), 143, "stopped by SIGTERM; what was done is saved"),
    "lost": (lost_in_a_library, 130, "interrupted"),
    "group": (throw(BaseExceptionGroup("x", [KeyboardInterrupt()])), 130, "interrupted"),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_signals(name, monkeypatch, capsys, request):
    # As under nohup, and in jobs in the background, where they are nobody's to catch.
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) == signal.SIG_IGN:
            request.addfinalizer(lambda number=number: signal.signal(number, signal.SIG_IGN))
            signal.signal(number, usual)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook
    raises, number, line = SIGNALS[name]
    code, said = ended(monkeypatch, capsys, raises)
    assert (code, said) == (number, f"vargen sample: {line}\n")
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook)


@pytest.mark.parametrize("late", [0.0, 0.1])
def test_ctrl_c_in_a_callback_of_the_garbage_collector_is_not_lost(monkeypatch, capsys, late):
    """Nor where the machine is so busy that it comes again while Python still reports the first."""
    import gc

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever came before in this process
    usual = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (usual(thread), time.sleep(late))[0])

    def callback(phase, info):
        gc.callbacks.remove(callback)
        os.kill(os.getpid(), signal.SIGINT)

    def raises():
        gc.callbacks.append(callback)
        gc.collect()
        time.sleep(5)

    try:
        assert ended(monkeypatch, capsys, raises) == (130, "vargen sample: interrupted\n")
    finally:
        signal.signal(signal.SIGINT, before)


def test_exits_of_libraries(monkeypatch, capsys):
    assert ended(monkeypatch, capsys, throw(SystemExit(3))) == (3, "")
    assert ended(monkeypatch, capsys, throw(SystemExit("no"))) == (1, "vargen sample: no\n")


# shell command, exit code, what stderr holds
SHELL = {
    "head": ("{vargen} sample --help | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}", (0, 141), ""),
    "no reader, unbuffered": (
        "(sleep 0.5; PYTHONUNBUFFERED=1 {vargen} --help) | true; exit ${{PIPESTATUS[0]}}",
        (141,),
        "",
    ),
    "no reader": (
        "(sleep 0.5; env -u PYTHONUNBUFFERED {vargen} sample --help) | true; exit ${{PIPESTATUS[0]}}",
        (141,),
        "",
    ),
    "closed": ("{vargen} sample --help >&-", (0,), ""),
    "all closed": ("{vargen} smaple >&- 2>&- <&-", (2,), ""),
    "full": (
        "env -u PYTHONUNBUFFERED {vargen} sample --help >/dev/full",
        (2,),
        "standard output: No space left on device",
    ),
    "full, unbuffered": (
        "PYTHONUNBUFFERED=1 {vargen} sample --help >/dev/full",
        (2,),
        "No space left on device",
    ),
    "not UTF-8": (
        "LC_ALL=C PYTHONIOENCODING=ascii {vargen} env --workdir $'/nowhere\\xff\\u732b\\e[31m'",
        (2,),
        "/nowhere\\udcff\\u732b\\x1b[31m",
    ),
}


@pytest.mark.parametrize("name", SHELL)
def test_streams(name):
    command, codes, words = SHELL[name]
    done = subprocess.run(
        ["bash", "-c", command.format(vargen=f"{sys.executable} -m vargen")], capture_output=True, text=True
    )
    assert done.returncode in codes, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == (1 if words else 0), done.stderr


@pytest.mark.parametrize(
    "variable, value, words",
    [("JAX_PLATFORMS", "cuda", "backend: expected cuda"), ("JAX_ENABLE_X64", "maybe", "environment: ")],
)
def test_settings_of_jax(variable, value, words, tmp_path):
    if variable == "JAX_PLATFORMS" and os.path.exists("/proc/driver/nvidia"):
        pytest.skip("there is one")
    done = subprocess.run(
        [sys.executable, "-m", "vargen", "train", "--config", "configs/var.py:digits", "--workdir", tmp_path / "w"],
        env=dict(os.environ, **{variable: value}),
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr
    assert not (tmp_path / "w").exists()


def test_a_signal_waits_for_an_import(tmp_path, monkeypatch):
    """Inside it many an error is swallowed, and one in jaxlib would reach C++ and abort the process."""
    kill = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1); done = True"
    (tmp_path / "swallowing.py").write_text(
        f"import os, signal, time\ntry:\n    {kill}\nexcept BaseException:\n    done = False\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = failures.Outcome("vargen")
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever came before in this process
    try:
        with pytest.raises(Stopped), failures.signals(outcome):
            importlib.import_module("swallowing")

            time.sleep(5)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sys.modules["swallowing"].done and outcome.signalled == signal.SIGTERM


@pytest.mark.parametrize("after", [0.1, 1.0])
def test_ctrl_c_twice_is_one_line(after, tmp_path):
    # What the installed command is, and a sign that Python has started, before which nobody can answer.
    code = "from vargen.__main__ import main; import sys; print(flush=True); sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "train", "--config", "configs/var.py:digits", "--workdir", tmp_path / "w"],
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which jobs in the background ignore
    )  # fmt: skip
    try:
        process.stdout.readline()
        time.sleep(after)
        for _ in range(2):
            time.sleep(0.02)
            process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert said.endswith(": interrupted\n") and said.count("\n") == 1
