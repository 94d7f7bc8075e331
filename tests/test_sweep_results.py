"""Results in columns, and the table that is read block by block."""

import copy
import itertools
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_program import GRID, HALVING, differing, go

from adamw_jax.sweep import Result, kept, standing, to_table
from adamw_jax.sweep.results import Block, Results


def result(run, first, values, status="finished", seconds=1.0):
    advance = np.arange(first, first + len(values), dtype=np.int32)
    metrics = {"loss": np.array(values, np.float32)}
    return Result(run, {"seed": run}, advance, metrics, status, 2, "cpu", seconds, seconds)


def plain(results):
    """The results, with arrays as lists."""
    return [
        r._replace(
            advance=r.advance.tolist(), metrics={k: v.tolist() for k, v in r.metrics.items()}
        )
        for r in results
    ]


RUNS = st.lists(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=1), min_size=1),
                min_size=1, max_size=6)  # fmt: skip


@given(RUNS, st.randoms(use_true_random=False))
def test_parts_are_joined_run_by_run_whatever_their_order(runs, draw):
    parts: dict[int, list[Result]] = {}
    for run, pieces in enumerate(runs):
        first = 1
        for number, values in enumerate(pieces):
            parts.setdefault(number, []).append(result(run, first, values, f"after {number}"))
            first += len(values)
    for part in parts.values():
        draw.shuffle(part)
    blocks = [Block.of(part) for part in parts.values()]
    joined = Block.joined(blocks).results()
    for run, (pieces, found) in enumerate(zip(runs, joined, strict=True)):
        values = np.array(list(itertools.chain(*pieces)), np.float32)
        assert found.run == run and found.settings == {"seed": run}
        assert found.advance.tolist() == list(range(1, len(values) + 1))
        assert found.metrics["loss"].tobytes() == values.tobytes()
        assert found.status == f"after {len(pieces) - 1}"
        assert found.seconds == len(pieces) and found.compile_seconds == 1


@given(RUNS, st.data())
def test_some_of_a_block_are_those_results(runs, data):
    results = [result(run, 1, pieces[0]) for run, pieces in enumerate(runs)]
    chosen = data.draw(st.lists(st.sampled_from(range(len(runs))), min_size=1, unique=True))
    taken = Block.of(results).taken(np.array(chosen)).results()
    assert plain(taken) == plain([results[i] for i in chosen])


def test_results_are_a_sequence_in_the_order_of_the_runs():
    all_of = [result(run, 1, [run, 2 * run]) for run in range(7)]
    blocks = [Block.of([all_of[i] for i in some]) for some in ([0, 2, 4, 6], [1, 3, 5])]
    results = Results(blocks.__getitem__, [block.run for block in blocks])
    assert len(results) == 7 and plain(results) == plain(all_of)
    assert plain([results[-1], results[3]]) == plain([all_of[-1], all_of[3]])
    assert plain(results[1:6:2]) == plain(all_of[1:6:2])
    for index in 7, -8:
        with pytest.raises(IndexError):
            results[index]
    assert repr(results) == "<the results of 7 runs>"
    for other in pickle.loads(pickle.dumps(results)), copy.deepcopy(results):
        assert isinstance(other, list) and plain(other) == plain(all_of)


@pytest.mark.parametrize("halving", [None, HALVING], ids=["plain", "halving"])
def test_a_table_in_many_blocks_is_the_same_table(halving, monkeypatch, tmp_path):
    options = {"halving": halving, "layout": (2, 1)}
    whole = go(tmp_path / "whole", **options)
    monkeypatch.setattr(standing, "ADVANCES", 20)
    results = go(tmp_path / "blocks", **options)
    assert pq.ParquetFile(tmp_path / "whole" / "results.parquet").num_row_groups == 1
    assert pq.ParquetFile(tmp_path / "blocks" / "results.parquet").num_row_groups > 8
    assert differing(tmp_path / "blocks", tmp_path / "whole") == []
    assert differing(results, list(whole)) == []
    assert differing(go(tmp_path / "blocks", **options), go(**options)) == []


def test_a_table_whose_groups_end_in_the_midst_of_a_run_is_read(tmp_path):
    first = go(cache=tmp_path, grid=GRID[:4])
    (path,) = tmp_path.glob("*/results.parquet")
    table = pq.read_table(path)
    content = pa.BufferOutputStream()
    pq.write_table(table, content, row_group_size=5)  # six advances make a run
    path.write_bytes(content.getvalue())
    manifest = path.with_name("sweep.json")
    manifest.unlink()
    with pytest.warns(UserWarning, match="is written anew"):
        again = go(cache=tmp_path, grid=GRID[:4])
    assert differing(again, first) == differing(kept(tmp_path, GRID[:4]), first) == []


def test_a_table_is_made_of_blocks_as_of_a_list():
    results = go(grid=GRID[:12:3])  # none with NaN, which is not equal to itself
    assert to_table(results).equals(to_table(list(results)))
