"""Ctrl-C at any moment of a sweep: one KeyboardInterrupt, and nothing is lost."""

import gc
import os
import random
import signal
import threading
import time

import jax
import pytest
from sweep_program import GRID, differing, go

from adamw_jax.sweep import Layout, Run, product, sweep
from adamw_jax.sweep.interrupts import held, raise_noted

FEW = GRID[:16:5]  # four runs of one program


@pytest.fixture(autouse=True)
def default_handler():
    """Python's own handler, which a test runner may have replaced."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press():
    os.kill(os.getpid(), signal.SIGINT)


def stopped(*steps):
    """How many of the steps were made, while Ctrl-C was held back, before one was stopped."""
    made = []
    with pytest.raises(KeyboardInterrupt) as told, held():
        [made.append(step()) for step in steps]
    return len(made), told.value.__context__


def test_the_first_ctrl_c_waits_for_a_good_moment():
    assert stopped(press, int, raise_noted, int)[0] == 2
    raise_noted()  # it is raised once


def test_the_end_of_the_block_is_a_good_moment():
    assert stopped(press, int) == (2, None)


def test_the_second_ctrl_c_does_not_wait():
    assert stopped(press, int, press, int)[0] == 2


def test_blocks_may_be_nested():
    def inner():
        with held():
            press()

    assert stopped(inner, int)[0] == 0


def test_another_error_is_the_context():
    made, context = stopped(press, lambda: 1 / 0)
    assert made == 1
    assert isinstance(context, ZeroDivisionError)


def test_a_handler_of_ones_own_is_left_alone():
    pressed = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    with held():
        press()
        assert pressed == [signal.SIGINT]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_may_sweep():
    results = []
    thread = threading.Thread(target=lambda: results.extend(go(grid=FEW)))
    thread.start()
    thread.join()
    assert len(results) == len(FEW)


def test_ctrl_c_in_a_callback_of_the_garbage_collector_is_not_lost(capfd):
    """As happens while JAX traces and compiles: what such a callback raises is only printed."""
    pressed = []

    def callback(phase, info):
        if phase == "start" and not pressed:
            pressed.append(info)
            press()
            time.sleep(0)  # where Python looks for signals

    def start(h, key, data):
        gc.collect()
        return h["rate"]

    run = Run(start, lambda state, data: (state, {"loss": state}), 2)
    gc.callbacks.append(callback)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep(run, product(rate=[0.1]), layout=Layout(), progress=False)
    finally:
        gc.callbacks.remove(callback)
    assert pressed and capfd.readouterr().err == ""


def test_ctrl_c_at_any_moment_stops_once_and_loses_nothing(tmp_path, capfd):
    options = {"grid": FEW, "length": 3}
    jax.clear_caches()
    began = time.perf_counter()
    expected = go(**options)
    seconds, draw, stopped, fresh = time.perf_counter() - began, random.Random(0), 0, False
    for _ in range(10):
        jax.clear_caches()  # so that it traces and compiles
        timer, began = threading.Timer(seconds * draw.random(), press), time.perf_counter()
        timer.start()
        try:
            assert differing(go(tmp_path, fresh=fresh, **options), expected) == []
            timer.cancel()
            timer.join()
            seconds = time.perf_counter() - began  # the first sweep of a process takes longer
            fresh = True
        except KeyboardInterrupt:
            stopped, fresh = stopped + 1, False
    assert stopped >= 2
    assert differing(go(tmp_path, **options), expected) == []
    assert capfd.readouterr().err == ""
