"""The command that prints the benchmarks' tables."""

import sys

from benchmarks.__main__ import main


def test_the_command_prints_the_tables_and_where_they_were_measured(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "accuracy"])
    main()
    printed = capsys.readouterr().out
    assert "**AdamW in float32: largest error over 1,000 parameters**" in printed
    assert "| β₂ | step 1, ours |" in printed
    assert printed.count("\n| 0.9999 |") == 2  # a row of both tables
    assert printed.splitlines()[-1].startswith("Versions: Python")
