import doctest
import re
from pathlib import Path

import pytest

import adamw_jax as aj
from adamw_jax import __version__, testing

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_examples_run_one_after_another(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    names = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    loss = float(re.search(r"the loss is (\S+)", capsys.readouterr().out)[1])
    assert loss < 1e-3
    assert names["tx"].update


def test_the_page_on_precision_prints_what_it_says(capsys):
    page = (ROOT / "docs/precision.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "precision.md", "exec"), {})
    assert capsys.readouterr().out in re.findall(r"```text\n(.*?)```", page, re.DOTALL)


def test_the_page_on_scaling_prints_what_it_says(capsys):
    page = (ROOT / "docs/scaling.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(first, "scaling.md", "exec"), names)
    assert capsys.readouterr().out in re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    exec(compile(second, "scaling.md", "exec"), names)
    assert names["optimizer"].update


def test_the_page_on_ones_own_piece_does_what_it_says(capsys):
    page = (ROOT / "docs/your-own-piece.md").read_text()
    names = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "your-own-piece.md", "exec"), names)
    assert capsys.readouterr().out in re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    for test in [value for name, value in names.items() if name.startswith("test_")]:
        test()
    testing.check(names["soft_clip"], limit=0.5)
    testing.check(names["warm_up"], steps=10)
    testing.check(
        lambda weight: aj.parallel(aj.chain(), aj.momentum(0.9), merge=names["mixture"](weight)),
        weight=0.25,
    )


def test_the_page_on_optax_and_pytorch_leads_a_run_over(capsys, tmp_path, monkeypatch):
    page = (ROOT / "docs/from-optax.md").read_text()
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if "import torch" in block:
            pytest.importorskip("torch").manual_seed(0)
        exec(compile(block, "from-optax.md", "exec"), names)
    printed = capsys.readouterr().out
    losses = re.findall(r"the loss is (\S+)\n", printed)
    assert len(losses) == 2 and all(float(loss) < 0.01 for loss in losses), losses
    assert re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0] in printed


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "docs/index.md", "docs/which.md", "docs/weight-decay.md"),
        *("docs/equations.md", "docs/sweeps.md", "docs/from-optax.md"),
    ],
)
def test_the_interactive_examples_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a figure may be saved
    blocks = re.findall(r"```pycon\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, name, None, 0)
    assert test.examples
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


def test_links_lead_to_files():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "experiments/README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert "://" in target or (document.parent / target).exists(), target


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {__version__}" in citation
