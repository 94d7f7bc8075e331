"""The process of the command line: `python -m experiments`."""

import sys

from experiments.harness import interrupts

if __name__ == "__main__":
    interrupts.end_process()  # before the imports, which take seconds
    from experiments import command_line

    try:
        sys.exit(command_line.run_process(sys.argv[1:]))
    finally:
        interrupts.ignore()
