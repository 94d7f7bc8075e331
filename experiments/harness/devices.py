"""JAX's settings for the command line, which a library should not change."""

import os
from pathlib import Path

import jax
import pooch

from experiments.harness.settings import SettingsError


def use_every_core() -> None:
    """Makes a device of each core of the CPU, so that a sweep trains on all of them at once.

    It must be called before JAX starts a backend.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def cache_programs() -> None:
    """Keeps every compiled program on disk, so that a second start compiles nothing.

    A cache that the user has chosen, by JAX_COMPILATION_CACHE_DIR for example, is left as it is.
    The cache has no size limit: with one, a kill at the wrong moment ends all further writes
    (jax-ml/jax#39880).
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(pooch.os_cache("adamw_jax")) / "programs"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def start(platform: str | None) -> None:
    """Starts JAX on a platform, by default on the best one that it finds.

    Raises:
      SettingsError: there is no such device here; the message names what asked for it.
    """
    if platform:
        jax.config.update("jax_platforms", platform)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = f" ({error})" if str(error) else ""
        raise SettingsError(_refusal(platform) + reason) from error


def _refusal(platform: str | None) -> str:
    """Names what asked for the device, and what to do."""
    if platform:
        return (
            f"--platform {platform}: JAX finds no such device here. Without --platform it uses "
            "what there is."
        )
    if os.environ.get("JAX_PLATFORMS"):
        return (
            f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}: JAX finds no such device here. Unset "
            "the variable, or set it to cpu."
        )
    return "JAX finds no device here."
