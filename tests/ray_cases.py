"""What holds on a Ray cluster; `test_sweep_ray` runs these tests, in namespaces of their own."""

import importlib
import os
import random
import signal
import threading
import time
import warnings
from pathlib import Path

import jax
import pytest
import ray
import ray_campaign
import ray_cluster
import ray_program
import sweep_program

from adamw_jax import sweep
from adamw_jax.sweep import crew

# A busy machine may take long to start a worker.
pytestmark = pytest.mark.filterwarnings("ignore:no worker has begun")


@pytest.fixture(scope="session")
def cluster():
    """Two nodes beside the head, and this process connected to it."""
    made = ray_cluster.Cluster(2)
    os.environ |= ray_cluster.ENVIRONMENT | {
        "RAY_ADDRESS": f"{ray_cluster.HEAD}:{ray_cluster.PORT}"
    }
    yield made
    made.end()


def eventually(true, seconds=120):
    """Whether something becomes true within so many seconds."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


@pytest.fixture
def executor(cluster):
    """As many workers as there is room for; none are left behind."""
    yield sweep.Ray()
    assert not ray.is_initialized()
    assert eventually(lambda: not cluster.workers())


@pytest.fixture
def connected(cluster):
    """This process, connected to the cluster: executors leave it so, without workers."""
    ray.init()
    yield
    assert eventually(lambda: not cluster.workers())
    assert ray.is_initialized()
    ray.shutdown()


def test_a_worker_stays_and_has_as_many_threads_as_cores(connected):
    def work(task):
        jax.numpy.ones(task).sum().block_until_ready()
        names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
        return os.getpid(), jax.default_backend(), sum("XLAEigen" in name for name in names)

    assert eventually(lambda: sweep.Ray().workers == 2)
    with sweep.Ray(workers=1).start(work) as does:
        first = dict(does(iter([1, 2, 3, 4])))
        again = dict(does(iter([5])))
    (told,) = {*first.values(), *again.values()}
    assert told[1:] == ("cpu", 1)


def test_an_error_ends_all_workers(cluster, connected):
    with (
        pytest.raises(ValueError, match="sleep length must be non-negative") as told,
        sweep.Ray().start(time.sleep) as does,
    ):
        list(does(iter([1000, -1])))
    # While somebody looks at the error, and so at all that its traceback holds.
    assert told and eventually(lambda: not cluster.workers())


def test_no_room_for_a_worker_is_told_of(cluster, monkeypatch):
    monkeypatch.setattr(crew, "PATIENCE", 1.0)
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(
            UserWarning, match="no worker has begun for 1 seconds. .* ask for less, or add"
        ),
        sweep.Ray(resources={"quantum": 1}).start(abs) as does,
    ):
        list(does(iter([1])))


def test_a_worker_whose_gpu_jax_does_not_see_trains_nothing(cluster):
    before = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", "cpu")
    try:
        with (
            pytest.raises(RuntimeError, match=r"JAX sees no accelerator on 10\.9\.0\."),
            sweep.Ray(gpus=1).start(abs) as does,
        ):
            list(does(iter([1])))
    finally:
        jax.config.update("jax_platforms", before)


def exit_at_once():
    os._exit(1)


class Deadly:
    """Work that ends whoever takes a copy of it."""

    def __reduce__(self):
        return exit_at_once, ()


def test_workers_that_cannot_begin_are_not_started_for_ever(executor, monkeypatch):
    monkeypatch.setattr(crew, "STARTS", 2)
    with (
        pytest.raises(RuntimeError, match="workers die before they can begin"),
        executor.start(Deadly()) as does,
    ):
        list(does(iter([1])))


def test_a_broken_connection_costs_one_task_and_no_worker(executor):
    def work(task):
        time.sleep(2)
        return os.getpid()

    seen, later = [], threading.Timer(1, ray_cluster.break_connections)
    with executor.start(work) as does:
        for task, outcome in does(iter(range(4))):
            seen.append((task, outcome))
            if len(seen) == 1:
                later.start()
    later.join()
    lost = [outcome for _, outcome in seen if isinstance(outcome, sweep.Lost)]
    if not lost:
        pytest.skip("this kernel does not let one break connections")
    assert {task for task, _ in seen} == set(range(4))
    assert set(lost) == {sweep.Lost("the connection to its worker broke", blame=False)}
    assert len({outcome for _, outcome in seen if outcome not in lost}) <= 2


def test_a_node_without_the_modules_of_the_run_is_told_of(executor, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def work(task):\n    return task\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("only_here")
    with (
        pytest.raises(Exception, match="No module named 'only_here'") as told,
        executor.start(module.work) as does,
    ):
        list(does(iter([1])))
    assert "Every node needs the packages and modules" in told.value.__notes__[0]


def test_a_poisoned_chunk_is_given_up_and_costs_no_other(executor, tmp_path):
    rows = sweep.product(learning_rate=[0.01, ray_program.POISON, 0.1], warm=[0, 1])
    rows = [{"nesterov": False, **row} for row in rows]
    log = tmp_path / "log"
    with pytest.raises(sweep.LostRunsError) as told:
        sweep.sweep(
            ray_program.trapped,
            rows,
            sweep_program.data(),
            layout=sweep.Layout(2),
            on=ray_program.Logged(executor, log),
            tries=2,
            progress=False,
        )
    assert told.value.runs == [2, 3]
    assert "workers that trained them have ended 2 times: on 10.9.0." in str(told.value)
    assert "its worker process has died" in str(told.value)
    assert [result.run for result in told.value.results] == [0, 1, 4, 5]
    lost = [line for line in log.read_text().splitlines() if "lost" in line]
    assert len(lost) == 2 and all(
        "runs from 2 to 3 in rung 0: lost blame=True" in line for line in lost
    )


def test_an_error_of_the_program_is_raised_here(executor):
    rows = [{"nesterov": False, "learning_rate": ray_program.ERROR, "warm": 0}]
    with pytest.raises(jax.errors.JaxRuntimeError, match="no such thing as this learning rate"):
        sweep.sweep(ray_program.trapped, rows, sweep_program.data(), on=executor, progress=False)


def test_ctrl_c_leaves_no_worker(cluster, tmp_path):
    program = ray_campaign.Driver(tmp_path / "ray", "--runs", 64, "--steps", 30000)
    log = tmp_path / "ray.log"
    assert eventually(lambda: log.exists() and log.read_text().count("runs") > 1)
    program.process.send_signal(signal.SIGINT)
    assert program.finish(60) == 130
    assert eventually(lambda: not cluster.workers())


def test_whatever_dies_the_table_is_that_of_one_process(cluster, tmp_path):
    kinds = ["worker", "raylet", "driver", "cut", "node"]
    options = "--runs", 64, "--halving", "--steps", 30000
    alone = ray_campaign.Driver(tmp_path / "alone", *options, here=True)
    output, draw = tmp_path / "ray", random.Random(0)
    # The pause after each chunk lets all strikes fall before the end on a fast machine, too.
    seen = ray_campaign.campaign(cluster, output, kinds, (0.3, 1), draw, *options, "--pause", 0.6)
    assert seen["exit code"] == 0, output.with_suffix(".txt").read_text()
    assert set(seen["struck"]) == set(kinds)
    assert alone.finish(300) == 0
    assert sweep_program.differing(output, tmp_path / "alone") == []
