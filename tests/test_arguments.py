"""What a constructor says of a wrong argument names it as the caller did."""

import inspect

import jax.numpy as jnp
import pytest
from test_contract import NO_TRANSFORMATIONS

import adamw_jax as aj

EXPORTED = {
    name: value
    for name in aj.__all__
    if inspect.isfunction(value := getattr(aj, name)) and name not in NO_TRANSFORMATIONS
}
NUMBERS = {"learning_rate": 0.1, "decay_per_step": 0.1, "optimizer": aj.chain(), "eps": 1e-8}
NUMBERS |= {"b": 0.9, "b1": 0.9, "b2": 0.9, "weight_decay": 0.1, "l2": 0.1, "first_cycle": 4}


def arguments(kinds):
    """Every exported constructor with each of its arguments of these kinds."""
    return [
        pytest.param(name, argument, id=f"{name}-{argument}")
        for name, make in EXPORTED.items()
        for argument, parameter in inspect.signature(make).parameters.items()
        if kinds(argument, parameter) and argument not in ("optimizer", "mask", "parts")
    ]


def refusal(name, argument, value):
    """What the constructor says of a value."""
    required = {
        other: NUMBERS[other]
        for other, parameter in inspect.signature(EXPORTED[name]).parameters.items()
        if parameter.default is parameter.empty and other != argument
    }
    with pytest.raises(ValueError) as error:
        EXPORTED[name](**{**required, argument: value})
    return str(error.value)


def is_number(argument, parameter):
    flag_or_dtype = isinstance(parameter.default, bool) or argument.endswith("dtype")
    variadic = parameter.kind is parameter.VAR_POSITIONAL
    return not flag_or_dtype and not variadic and argument not in ("merge", "groups")


@pytest.mark.parametrize("name, argument", arguments(is_number))
def test_a_number_out_of_range_is_refused_under_the_callers_name(name, argument):
    said = refusal(name, argument, float("nan"))
    assert said.startswith(f"{argument} must be ")
    if "[0, 1)" in said:  # a decay rate, whatever it is called
        for outside in 1.0, 1.5, -0.1, jnp.ones(2):
            assert refusal(name, argument, outside).startswith(f"{argument} must be a ")


@pytest.mark.parametrize("name, argument", arguments(lambda _, p: isinstance(p.default, bool)))
def test_a_flag_that_is_no_bool_is_refused_under_the_callers_name(name, argument):
    assert refusal(name, argument, "false").startswith(f"{argument} must be True or False")


@pytest.mark.parametrize("name, argument", arguments(lambda name, _: name.endswith("dtype")))
def test_a_dtype_that_is_none_is_refused_under_the_callers_name(name, argument):
    assert refusal(name, argument, "int8").startswith(f"{argument} must be ")
