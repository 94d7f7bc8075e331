"""Lists and runs the experiments: `python -m experiments`."""

import argparse
import importlib
import os
import shlex
import sys
import time
from pathlib import Path
from typing import NoReturn

import jax
import msgspec
from rich.console import Console

from adamw_jax.sweep import StoreError
from experiments.harness import report, settings
from experiments.harness.context import Context, Interrupted
from experiments.harness.data import DataError
from experiments.harness.sweeps import cache_programs, use_every_core

EXPERIMENTS = {
    "batches": "full batch or minibatches: cost per step, progress",
    "surfaces": "momentum on y = x², adaptive steps on 10x² + y²",
    "bias-correction": "Adam's first fifty steps with and without bias correction",
    "decay": "how much a parameter shrinks under Adam+L2, AdamW",
    "comparison": "Adam, Adam+L2 and AdamW on real data",
    "study": "why AdamW did not beat Adam: three guesses put to the test",
    "landscape": "test error over learning rate and decay: are the two separable?",
    "vae": "bias correction in a variational autoencoder, over β₁, β₂ and α",
    "grokking": "modular addition: when does the network generalise?",
}


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    console = Console(highlight=False)
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print(_overview(), markup=False)
        return 0
    name, *rest = arguments
    if name not in EXPERIMENTS:
        return _fail(f"no experiment is called {name!r}{settings.nearest(name, EXPERIMENTS)}")
    module = importlib.import_module(module_of(name))
    try:
        return _run(name, module, rest, console)
    except (settings.SettingsError, DataError, StoreError) as error:
        return _fail(str(error))
    except Interrupted as error:
        _fail(str(error))
        return 130
    except KeyboardInterrupt:
        _fail("stopped; nothing was written")
        return 130
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}")


def module_of(name: str) -> str:
    """The module of an experiment: a file, or the question of a package."""
    module = f"experiments.{name.replace('-', '_')}"
    return f"{module}.question" if name in ("comparison", "study") else module


class _Parser(argparse.ArgumentParser):
    """Refuses in the words of every other error."""

    def error(self, message: str) -> NoReturn:
        raise settings.SettingsError(message)


def _run(name: str, module, arguments: list[str], console: Console) -> int:
    default = settings.CONFIGS / f"{name}.toml"
    defaults = settings.read(default)
    parser = _Parser(
        prog=f"python -m experiments {name}",
        description=(module.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help=f"TOML file of settings, over {default.name}")
    parser.add_argument("--output", type=Path, help="where the results go [outputs/<config>]")
    parser.add_argument("--platform", choices=["cpu", "gpu", "tpu"], help="[what JAX finds]")
    parser.add_argument("--data-dir", type=Path, help="where data sets lie [$ADAMW_JAX_DATA]")
    parser.add_argument("--fresh", action="store_true", help="do not reuse finished runs")
    common = vars(parser.parse_args([]))
    settings.add_options(parser, module.Settings, defaults)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [settings.option(key) for key in (*common, *settings.keys(module.Settings))]
        raise settings.SettingsError(
            f"unknown argument {unknown[0]!r}{settings.nearest(unknown[0], known)}"
        )
    given = {key: value for key, value in vars(options).items() if key not in common}
    sources = {str(default): (defaults, False)}
    if options.config:
        sources[str(options.config)] = (settings.read(options.config), False)
    chosen = settings.build(module.Settings, {**sources, "command line": (given, True)})

    _choose(options.platform)
    output = options.output or Path("outputs") / (options.config or default).stem
    output.mkdir(parents=True, exist_ok=True)  # found out now, if it cannot be
    about = {
        **report.facts("python -m experiments " + shlex.join([name, *arguments])),
        "Settings": ", ".join(f"{k} = {v}" for k, v in msgspec.structs.asdict(chosen).items()),
    }
    console.print(f"{name} on {about['Device']}", markup=False)
    started = time.perf_counter()
    result = module.run(chosen, Context(console, output, options.data_dir, options.fresh))
    page = report.write(result, output, about, module.__doc__ or "")
    report.show(result, console)
    console.print(
        f"\n{time.perf_counter() - started:.0f} s. Report: {page.resolve()}",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _choose(platform: str | None) -> None:
    if platform:
        jax.config.update("jax_platforms", platform)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise settings.SettingsError(
            f"JAX finds no {platform or 'device'} here. Without --platform it runs on what there "
            f"is. ({error})"
        ) from error


def _overview() -> str:
    lines = "\n".join(f"  {name:16} {summary}" for name, summary in EXPERIMENTS.items())
    return (
        f"usage: python -m experiments NAME [options]\n\nExperiments:\n{lines}\n\n"
        "python -m experiments NAME --help shows the settings of one. They stand in\n"
        "configs/NAME.toml; an option of the same name overrides each."
    )


def _fail(message: str) -> int:
    Console(stderr=True, highlight=False).print(f"error: {message}", markup=False, soft_wrap=True)
    return 2


if __name__ == "__main__":
    use_every_core()
    cache_programs()
    status = main(sys.argv[1:])
    if status == 130:
        # Interrupted while it compiles, JAX crashes in the interpreter's own ending.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
