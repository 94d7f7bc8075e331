"""The site that `make docs` builds: what it covers, where its links lead, what it loads."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib.pyplot as plt
import pytest
from test_course import LESSONS, cells, run
from test_family_table import TABLE, make

import adamw_jax
from adamw_jax import course, interchange, kernels, sweep, testing

ROOT = Path(__file__).parent.parent


def public_names():
    for module in adamw_jax, course, interchange, kernels, sweep:
        yield from (f"{module.__name__}.{name}" for name in module.__all__)
    for name, function in inspect.getmembers(testing, inspect.isfunction):
        if function.__module__ == testing.__name__ and not name.startswith("_"):
            yield f"{testing.__name__}.{name}"


def documented_names():
    for page in ROOT.glob("docs/api/*.rst"):
        text = page.read_text()
        (module,) = re.findall(r"^\.\. currentmodule:: (\S+)$", text, re.MULTILINE)
        kinds = "(?:autoclass|autodata|autoexception|autofunction|describe)"
        names = re.findall(rf"^\.\. {kinds}:: (\S+)$", text, re.MULTILINE)
        yield from (f"{module}.{name}" for name in names)


def test_every_public_name_is_on_one_page_of_the_reference():
    assert Counter(documented_names()) == Counter(public_names())


@pytest.mark.parametrize("name", TABLE)
def test_every_optimizers_equations_can_be_shown_without_scripts(name):
    latex = adamw_jax.equations(make(name))._repr_latex_().strip("$")
    mathml = pytest.importorskip("math_core").LatexToMathML()
    assert mathml.convert_with_local_state(latex, displaystyle=True).startswith("<math")


class Page(HTMLParser):
    """The anchors of a page, its links, and the addresses of what it loads."""

    def __init__(self, file):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.update(values[key] for key in ("id", "name") if key in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values["rel"] not in ("canonical", "next", "prev"):
            self.loads.append(values["href"])
        self.loads += [values[key] for key in ("src", "srcset", "poster", "data") if key in values]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Builds the site without executing the lessons, whose cells another test executes."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-q", "-c", "docs", "-D", "nb_execution_mode=off"]
    command = [sys.executable, "-m", "sphinx", *options, "-d", folder / "doctrees", ".", folder]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {file: Page(file) for file in site.rglob("*.html")}


@pytest.mark.slow
def test_every_link_within_the_site_leads_somewhere(pages):
    assert len(pages) > 30
    for file, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            assert target.is_file(), (file, link)
            if address.fragment:
                assert unquote(address.fragment) in pages[target].anchors, (file, link)


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(pages, site):
    for file, page in pages.items():
        for address in page.loads:
            assert address.startswith("data:") or not urlsplit(address).netloc, (file, address)
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", style.read_text()), style


@pytest.mark.slow
def test_the_archive_has_the_lessons_as_notebooks_that_run(site, tmp_path, monkeypatch):
    shutil.unpack_archive(site / "docs/course/notebooks.zip", tmp_path)
    made = sorted(tmp_path.glob("course/*.ipynb"))
    assert [file.stem for file in made] == [lesson.stem for lesson in LESSONS]
    for file, lesson in zip(made, LESSONS, strict=True):
        code = [c for c in json.loads(file.read_text())["cells"] if c["cell_type"] == "code"]
        assert ["".join(cell["source"]) + "\n" for cell in code] == cells(lesson)
    monkeypatch.chdir(tmp_path / "course")
    plt.switch_backend("Agg")
    names = {}
    for cell in cells(LESSONS[-1]):  # which reads the kept runs
        run(cell, names)
    plt.close("all")
