"""What MkDocs makes besides the pages: the API, each system, each command; and files of the repository."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess
import sys

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
LINK = re.compile(r"\]\(\.\./([^)#\s]+)")  # out of docs/, as a reader of the repository follows it
HIDDEN = ("cli",)  # commands have a page of their own


def on_config(config):
    """The API's pages follow those of mkdocs.yml."""
    sys.path.insert(0, str(ROOT))
    config.nav.append({"API": [{name: f"api/{name}.md"} for name in packages()]})
    return config


def on_files(files, config):
    """Pages that nobody wrote, and copies of what pages link to outside docs/."""
    for name, modules in packages().items():
        text = f"# {name}\n\n" + "\n\n".join(map(entry, modules)) + "\n"
        files.append(File.generated(config, f"api/{name}.md", content=text))
    files.append(File.generated(config, "commands.md", content=commands()))
    for page in list(files.documentation_pages()):
        for target in LINK.findall(page.content_string if page.src_uri.endswith(".md") else ""):
            copy = f"repository/{target}"
            if files.get_file_from_path(copy) is None:
                files.append(File.generated(config, copy, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links into the repository lead to the copies; a page's marker is replaced by what systems.py tells."""
    markdown = markdown.replace(
        "<!-- every system -->", systems() if page.file.src_uri == "systems.md" else ""
    )
    return LINK.sub(r"](repository/\1", markdown)


def packages() -> dict[str, list[str]]:
    """The modules of each package of vargen, by its name; those of no package are `vargen`'s."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "vargen").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] in HIDDEN or (parts[-1].startswith("_") and parts[-1] != "__init__"):
            continue
        package = ".".join(parts[:-1])
        found.setdefault(package, []).append(package if parts[-1] == "__init__" else ".".join(parts))
    return {name: sorted(modules) for name, modules in found.items()}


def entry(module: str) -> str:
    """A module's entry: what it defines, and not again what it imports; of `vargen` itself what users import."""
    path = ROOT / module.replace(".", "/")
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
    own = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        own += [target.id for target in targets if isinstance(target, ast.Name)]
    shown = ["Model", "load"] if module == "vargen" else [name for name in own if not name.startswith("_")]
    return f"::: {module}\n    options:\n      members: {shown or 'false'}"


def systems() -> str:
    """A section for each system: what it is, its sizes and parts, what was checked and measured."""
    from vargen import systems as told
    from vargen.cli import list as listing

    sections = []
    for name in told.names():
        s = told.read(name)
        lines = [
            f"### {s.title}",
            f"[{s.what[:1].upper()}{s.what[1:]}]({s.url}). `--config {name}:SIZE` with SIZE one of",
        ]
        lines[-1] += " " + ", ".join(f"`{size}`" for size in s.sizes) + "."
        lines += [note for note in s.notes if note]
        if s.measured:
            lines.append(f"On the digits: {listing.figures(s.measured)}.")
        sections.append("\n\n".join(lines))
    return "\n\n".join(sections)


def commands() -> str:
    """What `vargen COMMAND --help` prints, for each."""
    from vargen.cli import main

    environment = dict(os.environ, COLUMNS="100", PYTHONPATH=str(ROOT))
    lines = ["# Commands", "`vargen COMMAND --help` says the same."]
    for name in main.COMMANDS:
        run = [sys.executable, "-m", "vargen", name, "--help"]
        said = subprocess.run(
            run, capture_output=True, text=True, check=True, env=environment, cwd=ROOT
        ).stdout
        lines += [f"## vargen {name}", f"```text\n{said.rstrip()}\n```"]
    return "\n\n".join(lines) + "\n"
