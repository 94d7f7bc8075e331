"""Lists and runs the experiments."""

import argparse
import ast
import importlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import jax
import msgspec
from rich.console import Console

from adamw_jax.sweep import StoreError
from experiments.harness import devices, interrupts, page, report, settings
from experiments.harness.context import Context
from experiments.harness.data import DataError

# The module of each experiment, beside this one.
EXPERIMENTS = {
    "batches": "batches",
    "surfaces": "surfaces",
    "bias-correction": "bias_correction",
    "decay": "decay",
    "comparison": "comparison.question",
    "study": "study.question",
    "landscape": "landscape",
    "vae": "vae",
    "grokking": "grokking",
    "timescale": "timescale.question",
    "scaling": "scaling.question",
    "precision": "precision.question",
    "members": "members.question",
}


def run_process(arguments: list[str]) -> int:
    """Prepares the process and runs the command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show α shows a question mark. Each line is printed at once.
        stream.reconfigure(errors="replace", line_buffering=True)  # pyright: ignore
    devices.use_every_core()
    devices.cache_programs()
    return main(arguments)


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_overview())
        else:
            _run(*arguments)
        sys.stdout.flush()
    except (settings.SettingsError, DataError, StoreError) as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("out of memory; smaller settings need less")
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _fail(f"out of memory on the device; smaller settings need less ({error})")
    except OSError as error:
        if error.filename is None:  # then it is standard output, since errors name their files
            # Otherwise writing the rest of the buffer would fail again when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"{error.filename or 'standard output'}: {error.strerror}")
    return 0


def module_of(name: str) -> ModuleType:
    """Imports the module of an experiment, which has its `Settings` and `run`."""
    return importlib.import_module(f"experiments.{EXPERIMENTS[name]}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise settings.SettingsError(message)

    def print_help(self, file: object = None) -> None:
        print(self.format_help(), end="")  # argparse's own method ignores a full disk


def _run(name: str, *arguments: str) -> None:
    """Runs an experiment and writes its report."""
    if name not in EXPERIMENTS:
        raise settings.SettingsError(
            f"no experiment is called {settings.shown(name)}{settings.nearest(name, EXPERIMENTS)}"
        )
    module = module_of(name)
    config, options = _read(name, module, arguments)
    devices.start(options.platform)
    output = options.output or Path("outputs") / (options.config or Path(name)).stem
    output.mkdir(parents=True, exist_ok=True)  # if it cannot be made, say so now
    facts = {
        **report.facts("python -m experiments " + shlex.join([name, *arguments])),
        "Settings": ", ".join(f"{k} = {v}" for k, v in msgspec.structs.asdict(config).items()),
    }
    where = f"on {facts['Device']}"
    if options.kept:
        where = f"from the runs kept in {options.kept}"
        facts["Runs"] = f"kept in {options.kept}; the device above only drew this page"
    console = Console(highlight=False)
    console.print(f"{name} {where}", markup=False, soft_wrap=True)
    started = time.perf_counter()
    context = Context(console, output, options.data_dir, options.fresh, options.kept)
    result = module.run(config, context)
    if options.kept and not context.reused:
        raise settings.SettingsError(f"--kept {options.kept}: {name} keeps no runs")
    path = page.write(result, output, facts, module.__doc__ or "").resolve()
    with interrupts.keeping(lambda: f"the report is complete: {path}"):
        if context.reused and not options.kept:
            console.print("Kept runs are used again (--fresh repeats them).")
        report.show(result, console, options.only or report.PARTS)
        seconds = f"{time.perf_counter() - started:.0f}"
        closing = f"\n{seconds} s. The page, with all plots and tables: {path}"
        console.print(closing, markup=False, soft_wrap=True)


def _read(
    name: str, module: ModuleType, arguments: Sequence[str]
) -> tuple[settings.Settings, argparse.Namespace]:
    """The settings, from the config files and the command line, and the common options."""
    default = settings.CONFIGS / f"{name}.toml"
    defaults = settings.read(default)
    parser = _parser(name, module)
    common = vars(parser.parse_args([]))
    settings.add_options(parser, module.Settings, defaults)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [settings.option(key) for key in (*common, *settings.keys(module.Settings))]
        raise settings.SettingsError(
            f"unknown argument {settings.shown(unknown[0])}{settings.nearest(unknown[0], known)}"
        )
    given = {key: value for key, value in vars(options).items() if key not in common}
    sources = {str(default): (defaults, False)}
    if options.config:
        sources[str(options.config)] = (settings.read(options.config), False)
    return settings.build(module.Settings, {**sources, "command line": (given, True)}), options


def _parser(name: str, module: ModuleType) -> _Parser:
    """A parser for the options that all experiments have."""
    parser = _Parser(
        prog=f"python -m experiments {name}",
        description=(module.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help=f"TOML file that overrides {name}.toml")
    parser.add_argument("--output", type=Path, help="directory of results [outputs/<config>]")
    parser.add_argument(
        "--platform", choices=["cpu", "gpu", "tpu"], help="device to run on [what JAX finds]"
    )
    parser.add_argument("--data-dir", type=Path, help="directory of data sets [$ADAMW_JAX_DATA]")
    parser.add_argument(
        "--only", choices=report.PARTS, nargs=1, help="print only this part of the report [both]"
    )
    finished = parser.add_mutually_exclusive_group()
    finished.add_argument("--fresh", action="store_true", help="do finished runs again")
    finished.add_argument(
        "--kept", type=Path, help="report the runs that this directory keeps, and do none"
    )
    return parser


def _overview() -> str:
    """Usage, and each experiment with the first line of its module's docstring."""
    lines = []
    for name, module in EXPERIMENTS.items():
        path = Path(__file__).parent / f"{module.replace('.', '/')}.py"
        docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        lines.append(f"  {name:16} {docstring.partition(chr(10))[0]}")
    return "\n".join(
        [
            "usage: python -m experiments NAME [options]\n",
            "Experiments:",
            *lines,
            "\npython -m experiments NAME --help explains one and lists its settings. Their values",
            "are in configs/NAME.toml; an option of the same name overrides each.",
        ]
    )


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
