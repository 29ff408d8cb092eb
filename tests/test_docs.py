"""What the documentation says in code is run; what it lists is what there is."""

import ast
import doctest
import pathlib
import re
import shlex

import pytest

from vargen import axes, config, schema, systems
from vargen.cli import main
from vargen.interop.names import SYSTEMS
from vargen.samplers.policies import POLICIES

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
# No systems.
OTHERS = "clips", "mixers", "registers", "tokenizers", *(x for x in CONFIGS if x.startswith("published_"))
SHOWING = ["evaluation.md", pytest.param("step_through.md", marks=pytest.mark.slow)]  # with lines that run


@pytest.mark.parametrize("page", SHOWING)
def test_lines_that_run(page):
    failed, run = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)
    assert run > 10 and not failed


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{page}" for page in PAGES)])
def test_paths(page):
    """Links into the repository, and paths in words, lead to what there is."""
    text = (ROOT / page).read_text()
    named = [(ROOT / page).parent / link for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]
    named += [
        ROOT / path for path in re.findall(r"`((?:vargen|tests|benchmarks|configs|docs)/[\w./]*)`", text)
    ]
    assert not [
        path for path in named if not path.exists() and path != ROOT / "docs/commands.md"
    ]  # hooks.py's


def test_published():
    """Figures that are published stand as the configs have them."""
    text = (ROOT / "docs/evaluation.md").read_text()
    found = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, flags=re.MULTILINE))
    assert {*found} == {name for name in CONFIGS if name not in ("jpeglm", "orthus", *OTHERS)}
    for name, figures in found.items():
        words = " ".join(ast.get_docstring(ast.parse((ROOT / f"configs/{name}.py").read_text())).split())
        assert figures in words, name


def page(name):
    return (ROOT / f"docs/{name}.md").read_text()


def test_systems():
    """The table is what `vargen list --markdown` prints, every config in it; importers have their way of importing."""
    assert systems.names() == sorted({*CONFIGS} - {*OTHERS})
    assert systems.table() in page("systems"), "vargen list --markdown prints the table"
    rows = page("checkpoints")
    importers = set(re.findall(r"^\|.*\| `vargen import (\w+)`", rows, flags=re.MULTILINE))
    assert importers == {*SYSTEMS}


def test_parts():
    """All that is registered is named where the axes are."""
    names = {name for place in axes.QUESTIONS for name in axes.PARTS[place]}
    names |= {*schema.GUIDANCE_SCHEDULES, *POLICIES}
    assert not names - set(re.findall(r"`(\w+)`", page("parts") + page("mixers").partition("## Kernels")[0]))


WORD = r'[^"#;]'


def commands():
    """Every `vargen COMMAND ...` of a line of code, with the page that has it."""
    names = "|".join(main.COMMANDS)
    pages = [
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{page}" for page in PAGES),
        *(f"configs/{name}.py" for name in CONFIGS),
    ]
    for page in pages:
        text = (ROOT / page).read_text()
        text = text.split('"""')[1] if page.endswith(".py") else text
        for line in re.sub(r"\\+\n\s+", "", text).splitlines():
            found = re.match(
                rf"    (?! )(?!>>>)[^#]*?\b(vargen (?:{names})\b{WORD}*(?:\"{WORD}*\")?{WORD}*)", line
            )
            if found:
                yield page, found[1]


@pytest.mark.parametrize("page", sorted({page for page, _ in commands()}))
def test_commands(page):
    """Commands, flags, configs and their fields are ones that there are."""
    parser = main.parser()
    for where, command in commands():
        if where == page:
            rest, overrides = main.split_overrides(shlex.split(command)[1:])
            if "--help-config" in rest:  # prints, and exits
                rest = ["env", "--config", rest[-1]]
            named = vars(parser.parse_args(rest))
            name = named.get("config") or "var:digits"
            config.override(config.load(name if ".py" not in name else str(ROOT / name)), overrides)
