"""Settings for every test, and what several need."""

import re

import jax
import pytest
from hypothesis import HealthCheck, settings
from jax.experimental.compilation_cache import compilation_cache

from adamw_jax import testing

# Several devices, for the sharding tests; before anything asks for the backend.
jax.config.update("jax_num_cpu_devices", 4)

# Derandomized, so that a failure is the same for everyone; examples share compilations.
settings.register_profile(
    "laws",
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("laws")


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="a case of each of the library's tests")


def is_quick(item):
    """Whether it is not marked as slow and trains no experiment, which takes long to compile."""
    trains = re.search(r"^(from|import) experiments\b", item.path.read_text(), re.MULTILINE)
    return not trains and item.get_closest_marker("slow") is None


def pytest_collection_modifyitems(config, items):
    if not config.getoption("quick"):
        return
    tests = {}
    for item in filter(is_quick, items):
        tests.setdefault(item.nodeid.split("[")[0], []).append(item)
    # Each test takes another of its cases, so that together they see most of a table.
    chosen = {cases[i % len(cases)] for i, cases in enumerate(tests.values())}
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


@pytest.fixture
def compilations():
    with testing.compilations() as events:
        yield events


@pytest.fixture
def strict():
    """Promotes no types and no ranks, so that every conversion must be written out."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Keeps compiled programs, as the command line does: for many runs with the same ones."""
    ours = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }

    def use(values):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    before = {name: jax.config.values[name] for name in ours}
    use(ours)
    yield
    use(before)
