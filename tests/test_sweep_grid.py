import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamw_jax.sweep import concatenated, log_space, product, zipped
from adamw_jax.sweep.grid import normalized

values = st.integers(-3, 3) | st.booleans() | st.sampled_from(["a", "b", 0.5, 1.0, None, (1, "a")])
axes = st.dictionaries(st.sampled_from("abcd"), st.lists(values, max_size=4), max_size=3)
grids = st.lists(st.fixed_dictionaries({"a": values, "b": values}), max_size=6)


def exactly(rows):
    """The rows with their types, since 1 equals True and 1.0."""
    return [sorted((name, repr(value)) for name, value in row.items()) for row in rows]


@pytest.mark.parametrize(
    "grid, rows",
    [
        (product(), [{}]),
        (product(a=[]), []),
        (product(a=[1, 2]), [{"a": 1}, {"a": 2}]),
        (product(a=[1, 1]), [{"a": 1}, {"a": 1}]),
        (product([{"a": 1}], [{"b": 2}]), [{"a": 1, "b": 2}]),
        (
            product([{"a": 1}, {"a": 2}], b=range(2)),
            [{"a": 1, "b": 0}, {"a": 1, "b": 1}, {"a": 2, "b": 0}, {"a": 2, "b": 1}],
        ),
        (product(iter([{"a": 1}]), b=iter([2, 3])), [{"a": 1, "b": 2}, {"a": 1, "b": 3}]),
        (zipped(), []),
        (zipped(a=[]), []),
        (zipped(a=[1, 2], b=["x", "y"]), [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        (zipped(a=iter([1]), b=range(1)), [{"a": 1, "b": 0}]),
        (concatenated(), []),
        (concatenated([{"a": 2}, {"a": 1}], [{"a": 2}]), [{"a": 2}, {"a": 1}]),
        (concatenated([{"a": 1, "b": 2}], [{"b": 2, "a": 1}]), [{"a": 1, "b": 2}]),
        (concatenated([{"a": 1}], [{"b": 1}]), [{"a": 1}, {"b": 1}]),
    ],
)
def test_grids_have_these_rows_in_this_order(grid, rows):
    assert isinstance(grid, tuple)
    assert exactly(grid) == exactly(rows)


@given(axes)
def test_a_product_is_that_of_itertools(axes):
    grid = product(**axes)
    assert len(grid) == math.prod(map(len, axes.values()))
    expected = [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]
    assert exactly(grid) == exactly(expected)


@given(axes, st.lists(values, max_size=3))
def test_a_product_with_an_axis_is_one_with_its_grid(axes, more):
    assert exactly(product(**axes, z=more)) == exactly(product(product(**axes), product(z=more)))


@given(st.lists(st.tuples(values, values), max_size=5))
def test_zipped_rows_are_the_pairs(pairs):
    grid = zipped(a=[a for a, _ in pairs], b=[b for _, b in pairs])
    assert exactly(grid) == exactly({"a": a, "b": b} for a, b in pairs)


@given(grids, grids, grids)
def test_concatenation_is_idempotent_and_associative_and_keeps_the_first_of_equals(a, b, c):
    together = concatenated(a, b, c)
    rows = exactly(together)
    assert rows == list(map(list, dict.fromkeys(tuple(row) for row in exactly(a + b + c))))
    assert rows == exactly(concatenated(together)) == exactly(concatenated(together, together))
    assert rows == exactly(concatenated(concatenated(a, b), c))
    assert rows == exactly(concatenated(a, concatenated(b, c)))


DISTINCT = [1, True, 1.0, "1", (1,), (True,), (1.0,), ((1,),), None, "None"]


@pytest.mark.parametrize("one, other", list(itertools.combinations(DISTINCT, 2)), ids=repr)
def test_values_of_other_types_are_other_runs(one, other):
    rows = [{"a": one}, {"a": other}]
    assert exactly(concatenated(rows)) == exactly(rows)
    assert len(normalized(rows)) == 2


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), np.float32(0.5), jnp.float32(0.5)])
def test_concatenation_sees_that_scalars_of_any_library_are_the_same_run(value):
    # As `normalized` does, which refuses what is left twice.
    assert len(concatenated([{"a": 0.5}], [{"a": value}])) == 1


@pytest.mark.parametrize(
    "low, high, count, expected",
    [
        (1e-4, 1, 5, [1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
        (1e-2, 1e-1, 2, [0.01, 0.1]),
        (1, 8, 4, [1.0, 2.0, 4.0, 8.0]),
        (1, 1e-3, 4, [1.0, 0.1, 0.01, 0.001]),
        (1e-300, 1e300, 3, [1e-300, 1.0, 1e300]),
    ],
)
def test_log_space_is_round(low, high, count, expected):
    found = log_space(low, high, count)
    assert found == expected
    assert {type(value) for value in found} == {float}


@given(st.floats(1e-12, 1e12), st.floats(1e-12, 1e12), st.integers(2, 30))
def test_log_space_has_equal_ratios_from_low_to_high(low, high, count):
    found = np.log(log_space(low, high, count))
    assert len(found) == count
    np.testing.assert_allclose(found, np.linspace(np.log(low), np.log(high), count), atol=1e-10)


@pytest.mark.parametrize(
    "low, high, count",
    [
        (0, 1, 3), (-1, 1, 3), (1, 0, 3), (1, math.inf, 3), (math.nan, 1, 3), (1, math.nan, 3),
        (1, 2, 1), (1, 2, 0), (1, 2, -3),
    ],
)  # fmt: skip
def test_log_space_refuses(low, high, count):
    with pytest.raises(ValueError, match="positive, finite bounds and at least 2 values") as info:
        log_space(low, high, count)
    assert f"{low=}, {high=}, {count=}" in str(info.value)


@pytest.mark.parametrize(
    "grid, rows",
    [
        ([{}], [{"seed": 0}]),
        ([{"a": 1}], [{"seed": 0, "a": 1}]),
        ([{"seed": 2**32 - 1}], [{"seed": 2**32 - 1}]),
        ([{"a": 1, "b": 2}, {"b": 3, "a": 4}], [{"seed": 0, "a": 1, "b": 2},
                                                {"seed": 0, "a": 4, "b": 3}]),
        ([{"a": math.inf}, {"a": -math.inf}], [{"seed": 0, "a": math.inf},
                                               {"seed": 0, "a": -math.inf}]),
        ([{"a": None, "b": (1, ("x", None, True))}], [{"seed": 0, "a": None,
                                                       "b": (1, ("x", None, True))}]),
    ],
)  # fmt: skip
def test_normalized_rows_have_a_seed(grid, rows):
    assert exactly(normalized(grid)) == exactly(rows)


@pytest.mark.parametrize(
    "value, plain",
    [
        (np.int64(3), 3), (np.uint8(3), 3), (np.float64(0.1), 0.1), (np.bool_(True), True),
        (np.float32(0.1), float(np.float32(0.1))), (np.str_("x"), "x"), (np.array(3), 3),
        (np.array(2.5), 2.5), (jnp.int32(3), 3), (jnp.float32(0.5), 0.5), (jnp.bool(True), True),
        (jnp.bfloat16(0.5), 0.5),
    ],
    ids=repr,
)  # fmt: skip
def test_normalized_scalars_are_those_of_python(value, plain):
    (row,) = normalized([{"a": value}])
    assert exactly([row]) == exactly([{"seed": 0, "a": plain}])


@pytest.mark.parametrize("seed", [np.int64(3), np.uint32(3), jnp.int32(3), np.array(3)], ids=repr)
def test_a_seed_may_be_a_scalar_of_any_library(seed):
    assert exactly(normalized([{"seed": seed}])) == exactly([{"seed": 3}])


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "1", None, (1,), np.float32(1)], ids=repr)
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=r"row 1 has .*") as info:
        normalized([{"seed": 0}, {"seed": seed}])
    assert str(info.value).startswith("a seed is an integer in [0, 2**32); row 1 has ")


@pytest.mark.parametrize(
    "value",
    [
        [1], {"x": 1}, {1}, np.ones(2), np.ones(1), jnp.ones((1, 1)), 1j, np.complex64(1), object(),
        float, b"x", (1, [2]), (1, (2, np.ones(2))), jax.random.key(0), np.datetime64("2020"),
    ],
    ids=lambda value: f"{type(value).__name__}",
)  # fmt: skip
def test_what_is_no_setting_is_refused_by_name(value):
    with pytest.raises(ValueError, match="a setting is a number.*'wrong'"):
        normalized([{"right": 1, "wrong": value}])


@pytest.mark.parametrize(
    "value", [math.nan, np.float32("nan"), jnp.float32("nan"), (1.0, math.nan)], ids=repr
)
def test_nan_is_refused_by_name(value):
    # It equals nothing, so that no two sweeps would be the same one.
    with pytest.raises(ValueError, match="'wrong'.*NaN"):
        normalized([{"right": 1, "wrong": value}])


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: product([{"a": 1}], a=[2]), "the setting 'a' is in two factors"),
        (lambda: product([{"b": 1, "a": 1}], [{"c": 1, "b": 1}]), "the setting 'b' is in two"),
        (lambda: zipped(a=[1], b=[1, 2]), "they have a 1, b 2 values"),
        (lambda: zipped(a=[], b=[1]), "they have a 0, b 1 values"),
        (lambda: normalized([]), "the grid has no rows"),
        (lambda: normalized(product(a=[])), "the grid has no rows"),
        (lambda: normalized([{"a": 1}, {"b": 1}]), "row 1 has other settings.* in a, b"),
        (lambda: normalized([{"a": 1}, {"a": 2}, {}]), "row 2 has other settings.* in a"),
        (lambda: normalized([{"a": 1}, {"a": 2}, {"a": 1}]), "rows 0 and 2 are the same run.*'a'"),
        (lambda: normalized([{}, {"seed": 0}]), "rows 0 and 1 are the same run"),
        (lambda: normalized([{"a": 0.5}, {"a": np.float32(0.5)}]), "rows 0 and 1 are the same"),
    ],
)
def test_what_is_no_grid_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@given(grids)
def test_a_concatenation_is_always_a_grid(rows):
    together = concatenated(rows)
    if rows:
        assert exactly(normalized(together)) == exactly({"seed": 0, **row} for row in together)


@pytest.mark.parametrize("make", [product, zipped])
@pytest.mark.parametrize("axis", ["sgd", 3, None])
def test_an_axis_is_a_list(make, axis):
    with pytest.raises(ValueError, match=f"axis 'a' takes a list of values; got {axis!r}"):
        make(a=axis)
