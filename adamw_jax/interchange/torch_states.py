"""States from and to PyTorch, which only `to_torch` imports."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import trees
from adamw_jax.interchange import torch_groups
from adamw_jax.interchange.contents import check_fit, contents_of, counted, misfit
from adamw_jax.interchange.encoded import decoded, filled_and_encoded
from adamw_jax.interchange.meaning import LARGEST_GRADIENT, UNCORRECTED_MAXIMUM, quantity_of
from adamw_jax.parameters import parameters

PYTORCH, OURS = "PyTorch's", "this optimizer's"
QUANTITIES = {
    "step": "count",
    "exp_avg": "mu",
    "exp_avg_sq": "nu",
    "square_avg": "nu",
    "exp_inf": LARGEST_GRADIENT,
    "max_exp_avg_sq": UNCORRECTED_MAXIMUM,
}


def from_torch(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    state_dict: Mapping[str, Any],
    layout: Callable[[dict[str, Any]], Any],
    names: Sequence[str] | None = None,
    *,
    count: int | None = None,
    narrow: bool = False,
    check_hyperparameters: bool = True,
) -> Any:
    """The state with which an optimizer of this library goes on where one of PyTorch stopped.

    The function that brings the parameters over brings each moment over as well:

        params = layout(arrays_of(module))
        state = from_torch(adamw(1e-3), params, torch_optimizer.state_dict(), layout, names)

    Args:
      optimizer: of this library.
      params: the parameters, or their shapes.
      state_dict: that of an optimizer in `torch.optim` in the middle of a run. Its groups may
        differ in what the optimizer has masks or groups for.
      layout: makes a tree like `params` from NumPy arrays by the parameter's name in PyTorch,
        by transposing, reshaping, splitting or joining. It is given only what has a state, not
        frozen parameters, for which it may put None, nor buffers.
      names: the parameters' names in PyTorch, in the order in which its optimizer got them,
        such as `[name for name, _ in module.named_parameters()]`; by default those in
        `state_dict`, which has them if the optimizer got them.
      count: the number of steps so far, where PyTorch keeps none (SGD) and `optimizer` needs it.
      narrow: as in `from_optax`. Moments in float64 need it, unless JAX's x64 mode is on.
      check_hyperparameters: whether numbers in the groups must be those of `optimizer`; the
        learning rate there is the last that a scheduler set. Schedules are not compared.

    Returns:
      A state as of `optimizer.init(params)`.

    Raises:
      ValueError: as `from_optax`, or a hyperparameter differs, or PyTorch's NAdam is still
        warming b1 up.
    """
    groups = state_dict["param_groups"]
    if check_hyperparameters:
        torch_groups.check_hyperparameters(optimizer, groups)
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for index, name, group, _ in _parameters(groups, names):
        for entry, tensor in state_dict["state"].get(index, {}).items():
            if entry != "mu_product" and tensor is not None:
                found[_quantity(entry, group)][name] = _array(tensor)

    contents: dict[str, Any] = {}
    if steps := found.pop("count", {}):
        contents["count"] = _one_count(steps)
    contents = counted(contents, count, PYTORCH)
    for group in groups:
        if "momentum_decay" in group and "count" in contents:
            torch_groups.check_warm_up(group, int(contents["count"]))
    for quantity, arrays in found.items():
        known = quantity in (*QUANTITIES.values(), "trace")
        tree = layout(arrays) if known else arrays
        places = [f"{quantity}/{p.path}".rstrip("/") for p in parameters(tree) if p.is_there]
        contents |= zip(places, jax.tree.leaves(tree), strict=True)
    template = jax.eval_shape(optimizer.init, params)
    renamed = quantity_of(optimizer, infinity=True)
    sides = {"given": PYTORCH, "wanted": OURS}
    return filled_and_encoded(template, params, contents, **sides, narrow=narrow, renamed=renamed)


def to_torch(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    state: Any,
    theirs: Any,
    layout: Callable[[Any], dict[str, Any]],
    names: Sequence[str] | None = None,
    *,
    count: int | None = None,
    narrow: bool = False,
    check_hyperparameters: bool = True,
) -> dict[str, Any]:
    """The state with which an optimizer of PyTorch goes on where one of this library stopped.

        torch_optimizer.load_state_dict(
            to_torch(adamw(1e-3), params, state, torch_optimizer, layout, names)
        )

    Args:
      optimizer: of this library.
      params: the parameters, or their shapes.
      state: that of `optimizer`.
      theirs: an optimizer of `torch.optim` over the module's parameters. It is not changed.
      layout: makes arrays by the parameter's name in PyTorch from a tree like `params`, the
        inverse of the function that `from_torch` takes. A moment that `optimizer` does not
        keep, such as that of a frozen parameter, is None.
      names: as in `from_torch`.
      count: the number of steps so far, where `state` has none and PyTorch needs it.
      narrow: whether moments may be rounded to PyTorch's dtype, which is the parameter's.
      check_hyperparameters: as in `from_torch`.

    Returns:
      A dictionary for `load_state_dict`, with the hyperparameters of `theirs`. Parameters that
      require no gradient have no state in it.

    Raises:
      ValueError: as `from_torch`.
    """
    if check_hyperparameters:
        torch_groups.check_hyperparameters(optimizer, theirs.param_groups)
    quantity = quantity_of(optimizer, infinity=True)
    contents = {
        quantity(name): array for name, array in contents_of(decoded(state), params, OURS).items()
    }
    contents = counted(contents, count, OURS)
    arrays = _laid_out(contents, params, layout)
    left, unfit = dict(arrays), defaultdict(list)
    missing: dict[str, None] = {}
    tensors: dict[int, dict[str, Any]] = defaultdict(dict)

    def converted(name, entry, like, group, parameter):
        kind = _quantity(entry, group)
        if kind in ("count", "mu_product"):
            if "count" not in contents:
                return missing.update(count=None)
            value = int(contents["count"])
            if kind == "mu_product":
                torch_groups.check_warm_up(group, value)
                value = torch_groups.product_of_warm_up(group, value)
            return like.new_tensor(value)
        place = f"{kind}/{name}"
        left.pop(place, None)
        if place not in arrays:
            return missing.update({place: None})
        if reason := misfit(arrays[place], parameter.shape, _dtype(like), narrow):
            return unfit[reason].append(place)
        return _tensor(arrays[place], like)

    for index, name, group, parameter in _parameters(theirs.param_groups, names):
        if parameter.requires_grad:
            for entry, like in _kept(theirs, group, parameter).items():
                if like is not None:
                    tensors[index][entry] = converted(name, entry, like, group, parameter)
    check_fit(OURS, PYTORCH, left, missing, unfit)
    return theirs.state_dict() | {"state": dict(tensors)}


def _parameters(
    groups: Sequence[Mapping[str, Any]], names: Sequence[str] | None
) -> Iterator[tuple[Any, str, Mapping[str, Any], Any]]:
    """Each parameter's key in the state, name, group and what stands in the group for it."""
    found = [(group, parameter) for group in groups for parameter in group["params"]]
    known = [name for group in groups for name in group.get("param_names", ())]
    if not known and all(isinstance(parameter, str) for _, parameter in found):
        known = [parameter for _, parameter in found]
    names = known if names is None else list(names)
    if len(names) != len(found):
        raise ValueError(
            f"{len(names)} names for the {len(found)} parameters of PyTorch's optimizer: pass "
            "names in the order in which it got the parameters"
        )
    for ours, theirs in zip(names, known, strict=False):
        if ours != theirs:
            raise ValueError(f"names has {ours} where PyTorch's optimizer has {theirs}")
    for i, (name, (group, parameter)) in enumerate(zip(names, found, strict=True)):
        yield parameter if isinstance(parameter, int | str) else i, name, group, parameter


def _quantity(entry: str, group: Mapping[str, Any]) -> str:
    """What an entry of PyTorch's state is."""
    if entry != "momentum_buffer":
        return QUANTITIES.get(entry, entry)
    dampening = float(group.get("dampening", 0))
    if dampening and dampening != group["momentum"]:
        return f"momentum_buffer with dampening={dampening}"
    # With (1 − b1) g in the place of g, the sum is an average.
    return "mu" if dampening else "trace"


def _one_count(steps: Mapping[str, Any]) -> np.int32:
    fewest, most = (choose(steps, key=lambda name: steps[name]) for choose in (min, max))
    if steps[fewest] != steps[most]:
        raise ValueError(
            f"PyTorch's state counts {int(steps[most])} steps of {most} and {int(steps[fewest])} "
            f"of {fewest}, and a whole optimizer has one count"
        )
    return np.int32(steps[most])


def _laid_out(contents: Mapping[str, Any], params: Any, layout: Any) -> dict[str, Any]:
    """The moments by what they are and the parameter's name in PyTorch."""
    places = [p.path for p in parameters(params)]
    structure = jax.tree.structure(params, is_leaf=trees.is_none)
    arrays = {}
    for kind in {name.partition("/")[0]: None for name in contents if name != "count"}:
        leaves = [contents.get(f"{kind}/{place}".rstrip("/")) for place in places]
        for name, array in layout(structure.unflatten(leaves)).items():
            if array is not None:
                arrays[f"{kind}/{name}"] = array
    return arrays


def _kept(optimizer: Any, group: Mapping[str, Any], parameter: Any) -> dict[str, Any]:
    """What an optimizer keeps for a parameter, which it shows when it takes a step on a copy."""
    probe = copy.copy(optimizer)
    stand_in = parameter.detach().new_zeros([1] * parameter.ndim).requires_grad_()
    stand_in.grad = stand_in.detach().clone()
    probe.state, probe.param_groups = defaultdict(dict), [{**group, "params": [stand_in]}]
    probe.step()
    return probe.state[stand_in]


def _array(tensor: Any) -> np.ndarray:
    """A copy of a tensor. NumPy has no bfloat16 of its own."""
    tensor, dtype = tensor.detach().cpu(), _dtype(tensor)
    array = tensor.float().numpy() if dtype == jnp.bfloat16 else tensor.numpy()
    return array.astype(dtype, copy=True)


def _tensor(array: Any, like: Any) -> Any:
    import torch  # where an optimizer of PyTorch is, it is

    wide = np.asarray(array, np.float32) if array.dtype == jnp.bfloat16 else np.asarray(array)
    return torch.from_numpy(wide.copy()).to(like)


def _dtype(tensor: Any) -> np.dtype:
    return np.dtype(str(tensor.dtype).removeprefix("torch."))
