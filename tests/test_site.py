"""The documentation builds: every link leads somewhere, every public symbol has its entry."""

import ast
import html.parser
import importlib.util
import os
import pathlib
import subprocess
import sys
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def public():
    """The full names of what modules outside the commands define without an underscore."""
    for path in sorted((ROOT / "vargen").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] == "cli" or parts[-1] == "__main__":
            continue
        module = ".".join(parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{module}.{node.name}"


class Page(html.parser.HTMLParser):
    """A page's links and the names of its places."""

    def __init__(self, path):
        super().__init__()
        self.links, self.places = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key in ("href", "src"):
                self.links.append(value or "")
            elif key in ("id", "name"):
                self.places.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("MkDocs isn't installed: pip install -e .[docs]")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=dict(os.environ, NO_MKDOCS_2_WARNING="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_every_link_leads_somewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 30
    broken = []
    for path, page in pages.items():
        for link in page.links:
            where = urllib.parse.urlsplit(link)
            if where.scheme or where.netloc:
                continue
            target = path if not where.path else path.parent / urllib.parse.unquote(where.path)
            target = (target / "index.html" if target.is_dir() else target).resolve()
            if not target.exists() or (where.fragment and target in pages and not (
                {where.fragment, urllib.parse.unquote(where.fragment)} & pages[target].places
            )):  # fmt: skip
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


@pytest.mark.slow
def test_every_public_symbol_has_its_entry(site):
    entries = {place for path in (site / "api").rglob("*.html") for place in Page(path).places}
    names = {*public(), "vargen.Model", "vargen.load"}
    assert len(names) > 500 and not names - entries
