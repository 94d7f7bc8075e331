"""The table of docs/family.md against the code."""

import inspect
import operator
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import optax.contrib  # so that it is there
import pytest

import adamw_jax as aj
from adamw_jax import optimizers, relatives, second_generation
from adamw_jax.core import Description

DOCUMENT = Path(__file__).parent.parent / "docs/family.md"
LINES = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
CELLS = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in LINES]
HEAD, TABLE = CELLS[0], {cells[0].strip("`"): cells for cells in CELLS[2:]}

# What the members need beside a learning rate.
ARGUMENTS = {
    "adamwr": (1e-3, 10),
    "decayed_per_step": (aj.chain(), 1e-4),
    "temporal_average": (0.999,),
}
ADAMS = "`momentum`, `bias_correction`, `second_moment`, `rms_ratio`"
COMPOSITIONS = optimizers, relatives, second_generation
EVERYWHERE = {"chain", "parallel", "scale_by_learning_rate"}

every_row = pytest.mark.parametrize("name", TABLE)


def cell(name, column):
    text = TABLE[name][HEAD.index(column)].replace("\\|", "|").replace("<br>", " ")
    return text.replace("\N{NO-BREAK SPACE}", " ")


def make(name):
    return getattr(aj, name)(*ARGUMENTS.get(name, (1e-3,)))


def pieces(value):
    if not isinstance(value, Description):
        return {}
    parts = [*value.args, *value.kwargs.values()]
    # A dictionary keeps the order and every name once.
    return {value.name: None} | {name: None for part in parts for name in pieces(part)}


def test_every_optimizer_has_a_row():
    modules = [module.__name__ for module in COMPOSITIONS]
    exports = {name: getattr(aj, name) for name in aj.__all__}
    members = {
        name
        for name, value in exports.items()
        if inspect.isfunction(value) and value.__module__ in modules
    }
    assert members | {"temporal_average"} == set(TABLE)


@every_row
def test_it_is_made_of_the_pieces_that_the_table_names(name):
    listed = re.findall(r"`(\w+)`", cell(name, "made of").replace("Adam’s", ADAMS))
    made_of = {piece for piece in pieces(make(name).description) if piece not in EVERYWHERE}
    assert set(listed) == made_of and len(listed) == len(made_of)


@every_row
def test_equation_and_source_are_those_of_the_docstring(name):
    docstring = " ".join(inspect.getdoc(getattr(aj, name)).split())
    assert cell(name, "equation") in docstring
    assert "Source: " in docstring and cell(name, "source") in docstring


@every_row
def test_the_state_takes_as_many_bytes(name):
    matrix = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    state = jax.eval_shape(make(name).init, matrix)
    taken = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state) if x.ndim)
    assert taken == pytest.approx(matrix.size * float(cell(name, "bytes")))


def names(text):
    """The names and keywords of `function(keyword=…)` in a cell."""
    return re.findall(r"`([\w.]+)(?:\((\w+)=.*?\))?`", text)


@every_row
def test_the_names_in_optax_are_there(name):
    for function, keyword in names(cell(name, "Optax")):
        parameters = inspect.signature(operator.attrgetter(function)(optax)).parameters
        assert not keyword or keyword in parameters


@every_row
def test_the_names_in_pytorch_are_there(name):
    torch = pytest.importorskip("torch")
    averaged = torch.optim.swa_utils.AveragedModel
    for function, keyword in names(cell(name, "PyTorch")):
        if function in inspect.signature(getattr(aj, name)).parameters:
            continue  # our own argument, named beside theirs
        peer = averaged if function == "AveragedModel" else getattr(torch.optim, function)
        assert not keyword or keyword in inspect.signature(peer).parameters


@pytest.mark.parametrize("module", COMPOSITIONS, ids=lambda module: module.__name__)
def test_no_composition_is_longer_than_a_dozen_lines(module):
    for _, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__:
            lines = inspect.getsource(function).split('"""')[-1].splitlines()
            body = [line for line in lines if line.strip() and not line.strip().startswith("#")]
            assert len(body) <= 12, function.__name__
