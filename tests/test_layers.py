"""The house stands from the ground up: no room imports one above it, and nothing imports in a circle."""

import ast
import graphlib
import importlib.util
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A room is a folder of vargen or a file on its ground floor. It may import the rooms of lower rows, none of its own row
# or above, and of those in ONLY no others.
LAYERS = (
    ("errors",),
    (
        "bundled",
        "clips",
        "content",
        "draws",
        "fits",
        "gaussian",
        "kernels",
        "limits",
        "malloc",
        "paths",
        "progress",
        "spelling",
        "tiles",
    ),
    ("flops", "layers", "seeds", "sharding", "slots", "static"),
    ("hub", "layout", "orders", "parts", "schema", "segments", "weights_file", "words"),
    ("classes", "data", "mixers", "weights"),
    ("tokenizers",),
    ("feeds", "heads", "inputs", "report", "stage"),
    ("conditioning", "samplers"),
    ("axes", "evaluation", "generator"),
    ("config", "models"),
    ("combinations", "fine_tuning", "model", "systems", "training"),
    ("across", "interop", "loading"),
    ("cli",),
    ("__main__",),
)
ONLY = dict(kernels={"limits", "errors"}, orders={"limits", "errors", "slots"})
# Rooms of the numerical core, and the packages that they may load when they are imported.
CORE = (
    "clips content conditioning draws feeds fits flops gaussian generator heads kernels layers layout mixers models "
    "orders samplers slots stage static tokenizers"
).split()
PACKAGES = {"jax", "flax", "optax", "einops", "numpy"}


def modules():
    """Every module of vargen by its name -> its file."""
    files = (ROOT / "vargen").rglob("*.py")
    found = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in found.items()}


def imports(name, file, *, at_once=False):
    """The modules that a module imports, in functions too but where `at_once`; not those for the type checker alone."""
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    found, nodes = set(), [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found |= {
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names
            }
        elif not (at_once and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
            nodes += ast.iter_child_nodes(node)
    return found


MODULES = modules()
# `vargen` itself has a version, and the names of users, which it imports when they are asked for.
GRAPH = {
    name: imports(name, file) & MODULES.keys() - {"vargen"}
    for name, file in MODULES.items()
    if name != "vargen"
}


def room(name):
    return name.split(".")[1]


def test_arrows_are_seen():
    assert "vargen.errors" in GRAPH["vargen.paths"]
    assert "vargen.training.checkpoints" in GRAPH["vargen.loading"]  # in a function
    assert "vargen.model" not in GRAPH["vargen.cli.common"]  # for the type checker alone
    assert len(GRAPH) > 100 and sum(map(len, GRAPH.values())) > 300


def test_nothing_imports_in_a_circle():
    try:
        graphlib.TopologicalSorter(GRAPH).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_every_room_has_its_place():
    rooms = [name for row in LAYERS for name in row]
    assert sorted(rooms) == sorted({room(name) for name in GRAPH})


def test_nothing_imports_anything_above_it():
    height = {name: i for i, row in enumerate(LAYERS) for name in row}
    for name, imported in GRAPH.items():
        for other in sorted(imported):
            below = height[room(other)] < height[room(name)] and room(other) in ONLY.get(room(name), height)
            assert room(other) == room(name) or below, f"{name} imports {other}"


def test_the_core_loads_the_core_packages_alone():
    for name in (name for name in GRAPH if room(name) in CORE):
        loaded = {other.partition(".")[0] for other in imports(name, MODULES[name], at_once=True)}
        others = loaded - PACKAGES - {"vargen"} - sys.stdlib_module_names
        assert not others, f"{name} imports {others}"


def test_numpy_or_jax_is_chosen_in_one_place():
    """`static`, and what kernels have in its place."""
    for name in (name for name in GRAPH if room(name) in CORE and not name.endswith(".static")):
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
            either = isinstance(node, ast.IfExp) and {ast.unparse(node.body), ast.unparse(node.orelse)}
            assert either != {"np", "jnp"}, f"{name}: line {node.lineno}: expected static.module"
            asked = isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
            if asked and room(name) in ("feeds", "heads", "kernels", "mixers"):
                wanted = ast.unparse(node.args[1])
                assert "ndarray" not in wanted, f"{name}: line {node.lineno}: expected static.known"
