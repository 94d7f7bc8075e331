"""A sweep that is kept in an object store: kills, faults of the network, two drivers, secrets."""

import contextlib
import itertools
import json
import os
import pickle
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import pytest
from object_campaign import killed_again_and_again
from object_store import FAULTS, SECRETS, client, objects, serving, well
from sweep_directories import (
    FEW,
    compiling_once,  # noqa: F401  a fixture
    whole_sweeps,  # noqa: F401  a fixture
)
from sweep_program import HALVING, begin, differing, go
from test_sweep_processes import ended, together

from adamw_jax import sweep
from adamw_jax.sweep import connection, lease
from adamw_jax.sweep.bucket import Bucket
from adamw_jax.sweep.folder import opened

KEPT = [".lease-0", "results.parquet", "sweep.json"]
numbers = itertools.count()


@pytest.fixture(scope="module")
def server():
    with serving() as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def short_lease(server, monkeypatch):
    """A lease that runs out soon, and a network without faults."""
    monkeypatch.setattr(lease, "LASTS", 0.6)
    server.fault = well


@pytest.fixture
def url():
    return f"s3://bucket/folder/{next(numbers)}"


def table(url):
    return objects(url)["results.parquet"]


@contextlib.contextmanager
def after_a_kill():
    """A lease that was not released is waited for, which is said."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "process .* may be writing into")
        yield


# What is kept


@pytest.mark.parametrize("halving", [None, HALVING], ids=["plain", "halving"])
def test_an_object_store_keeps_what_a_directory_keeps(halving, url, whole):
    results = go(url, grid=FEW, halving=halving)
    assert differing(results, whole(grid=FEW, halving=halving)) == []
    assert differing(table(url), results) == []
    assert list(objects(url)) == KEPT
    before = objects(url)
    again = go(url, grid=FEW, halving=halving)
    assert [r.seconds for r in again] == [r.seconds for r in results]
    assert objects(url) | {".lease-0": before[".lease-0"]} == before


def test_a_sweep_may_be_copied_to_a_store_and_back(url, whole, tmp_path):
    stopped(tmp_path / "first", halving=HALVING)
    for path in (tmp_path / "first").rglob("*.*"):
        Bucket(url).create(str(path.relative_to(tmp_path / "first")), path.read_bytes())
    begun = objects(url)
    stopped(url, halving=HALVING, after=5)
    assert begun.keys() < objects(url).keys()
    for name, content in objects(url).items():
        path = tmp_path / "second" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    go(tmp_path / "second", halving=HALVING)
    assert differing(tmp_path / "second", whole(halving=HALVING)) == []


def test_a_cache_is_found_by_its_grid(url):
    first = go(cache=url, grid=FEW)
    go(cache=url, grid=FEW[:3])
    later = go(cache=url, grid=FEW, identity={"data": "other"})
    assert len({name.partition("/")[0] for name in objects(url)}) == 3
    assert sweep.kept(url, FEW[:2]) is None
    found = sweep.kept(url, FEW, {})
    assert [r.seconds for r in found] == [r.seconds for r in first]
    assert differing(found, later) == []
    assert [r.seconds for r in go(cache=url, grid=FEW)] == [r.seconds for r in first]


def test_another_sweep_is_refused_and_a_fresh_one_is_done_again(url):
    first = go(url, grid=FEW)
    before = objects(url)
    with pytest.raises(sweep.StoreError, match=f"{url} holds the results of another sweep"):
        go(url, grid=FEW[:3])
    assert objects(url) | {".lease-0": before[".lease-0"]} == before
    again = go(url, grid=FEW, fresh=True)
    assert differing(again, first) == []
    assert [r.seconds for r in again] != [r.seconds for r in first]


def stopped(output, after=30, **options):
    """Breaks a sweep off between two chunks."""
    left = itertools.count(after, -1)

    def listen(progress):
        if progress.doing == "training" and next(left) == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(output, progress=listen, **options)


def test_a_damaged_part_is_named_and_done_again(url, whole):
    stopped(url)
    name = next(name for name in objects(url) if name.startswith("parts/"))
    key = f"{url.removeprefix('s3://bucket/')}/{name}"
    client("s3").put_object(Bucket="bucket", Key=key, Body=b"a note")
    with pytest.raises(sweep.StoreError, match=f"{url}/{name} is damaged .*delete it"):
        go(url)
    client("s3").delete_object(Bucket="bucket", Key=key)
    go(url)
    assert differing(table(url), whole()) == []


def test_a_part_of_another_sweep_is_not_taken_for_this_one_s(url):
    """A process that was stopped for long may write one after all."""
    stopped(url)
    other = f"{url}-other"
    stopped(other, identity={"data": "other"})
    name, part = next(item for item in objects(other).items() if item[0].startswith("parts/"))
    Bucket(url).create(name, part)
    with pytest.raises(sweep.StoreError, match=f"{url}/{name} is damaged .it is another sweep's"):
        go(url)


@pytest.mark.parametrize("calls", [10, 35])
def test_chunks_that_two_processes_have_written_count_once(calls, url, whole):
    """As they do if one of them was stopped in the midst of writing and then replaced."""
    stopped(url, after=calls, halving=HALVING)
    stopped(f"{url}-other", after=calls, halving=HALVING)
    both = objects(url)
    for name, content in objects(f"{url}-other").items():
        if name not in both:
            Bucket(url).create(name, content)
    assert len(objects(url)) > len(both) + 4
    go(url, halving=HALVING)
    assert differing(table(url), whole(halving=HALVING)) == []
    assert list(objects(url)) == KEPT


# Faults


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_network_does_to_requests_does_nothing_to_results(fault, server, url, whole):
    count = itertools.count()
    server.fault = lambda method, path: None if next(count) % 4 else fault
    begun = len(server.seen)
    go(url, grid=FEW, halving=HALVING)
    assert [seen[2] for seen in server.seen[begun:]].count(fault) > 5
    server.fault = well
    assert differing(table(url), whole(grid=FEW, halving=HALVING)) == []
    assert list(objects(url)) == KEPT


@pytest.mark.parametrize("last", ["lost before", "lost after"])
def test_a_network_that_is_gone_at_any_moment_breaks_nothing(last, server, url, whole, monkeypatch):
    """As a kill does, seen from the store, before or after a request has gone through."""
    monkeypatch.setattr(connection, "RETRIES", 0)
    monkeypatch.setattr(connection, "FIRST_RETRIES", 0)
    monkeypatch.setattr(lease, "LASTS", 0.3)
    moments = itertools.count(1 if last == "lost after" else 0, 12)
    for moment in moments:
        place, left = f"{url}/{moment}", itertools.count(moment, -1)

        def dead(method, path, left=left):
            now = next(left)
            return None if now > 0 else last if now == 0 else "lost before"

        server.fault = dead
        told = ""
        try:
            go(place, grid=FEW, halving=HALVING)
        except sweep.StoreError as error:
            told = str(error)
        server.fault = well
        if not told:
            break
        assert "cannot be reached at 127.0.0.1" in told
        with after_a_kill():
            go(place, grid=FEW, halving=HALVING)
        assert differing(table(place), whole(grid=FEW, halving=HALVING)) == [], moment
        assert list(objects(place)) == KEPT, moment
    assert moment > 50  # it was gone at all


def test_a_server_that_does_not_answer_is_told_in_time(server, url, monkeypatch):
    monkeypatch.setattr(connection, "QUICK", 0.3)
    monkeypatch.setattr(connection, "FIRST_RETRIES", 1)
    server.fault = lambda method, path: 5.0
    begun = time.monotonic()
    with pytest.raises(sweep.StoreError, match=f"{url}.* cannot be reached .* no answer in time"):
        go(url, grid=FEW)
    assert time.monotonic() - begun < 10


# Several drivers


def test_a_second_sweep_is_refused_while_the_first_goes_on(url, whole):
    told = []

    def again(progress):
        with after_a_kill(), pytest.raises(sweep.StoreError, match=r"another process is writing"):
            go(url, grid=FEW)
        told.append(progress.doing)

    go(url, grid=FEW, progress=again)
    assert "training" in told
    assert differing(table(url), whole(grid=FEW)) == []


def test_who_lost_the_lease_while_it_was_stopped_changes_nothing(url):
    """It is stopped after it has looked at the lease, before the write itself."""
    first, second = Bucket(url), Bucket(url)
    with contextlib.ExitStack() as later:
        with first.locked(0):
            first.replace("sweep.json", b"first")
            first.lease.ended.set()  # it renews the lease no more
            check = first.lease.check

            def stopped_after_the_check():
                check()
                with after_a_kill():
                    later.enter_context(second.locked(0))
                second.replace("sweep.json", b"second")
                second.create("results.parquet", b"second")

            first.lease.check = stopped_after_the_check
            with pytest.raises(sweep.StoreError, match="was written by another process"):
                first.replace("sweep.json", b"first again")
            first.lease.check = check
            assert objects(url)["sweep.json"] == b"second"
            with pytest.raises(sweep.StoreError, match="has taken over"):
                first.replace("results.parquet", b"first")
            assert not first.lease._write(first.lease.mine)  # as its next renewal does
        assert objects(url)["results.parquet"] == b"second"
        assert json.loads(objects(url)[".lease-0"])["token"] == second.lease.mine.token
    assert json.loads(objects(url)[".lease-0"])["token"] is None


def test_a_lease_whose_renewals_lose_their_answers_is_still_held(server, url, monkeypatch):
    monkeypatch.setattr(connection, "RETRIES", 0)
    monkeypatch.setattr(connection, "FIRST_RETRIES", 0)
    begun = len(server.seen)
    folder = Bucket(url)
    with folder.locked(0):
        server.fault = lambda method, path: "lost after" if method == "PUT" else None
        time.sleep(1.5)
        server.fault = well
        folder.create("name", b"content")
    assert [seen[2] for seen in server.seen[begun:]].count("lost after") > 3
    assert json.loads(objects(url)[".lease-0"])["token"] is None
    assert objects(url)["name"] == b"content"


def test_a_store_that_ignores_conditions_is_refused(server, url):
    server.fault = lambda method, path: "deaf"
    with pytest.raises(sweep.StoreError, match="ignores the conditions of writes"):
        go(url, grid=FEW)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
def test_of_two_processes_at_once_one_does_the_work(url, cache, whole):
    options = "--layout", 1, 1, "--pause", 0.02, "--lease", 3
    started = [begin(url, *options, cache=cache) for _ in range(2)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert [code for _, code in ends].count(0) >= 1
    for error, code in ends:
        assert code == 0 or "StoreError: another process is writing into" in error
    assert differing(table(url), whole()) == []


@pytest.mark.slow
def test_several_processes_of_one_sweep_share_an_object_store(url, cache, whole):
    options = "--layout", 2, 1, "--halving"
    for code, error in ended(together(2, url, *options, cache=cache)):
        assert code == 0, error
    assert differing(table(url), whole(layout=(2, 1), halving=HALVING)) == []
    assert list(objects(url)) == [".lease-0", ".lease-1", *KEPT[1:]]


@pytest.mark.slow
def test_a_process_that_was_stopped_and_replaced_says_so_and_changes_nothing(url, cache, whole):
    process = begin(url, "--layout", 1, 1, "--pause", 0.02, "--lease", 1, cache=cache)
    while not any(name.startswith("parts/") for name in objects(url)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    with pytest.warns(UserWarning, match=f"process {process.pid} on .* waiting up to 1 seconds"):
        go(url)
    before = objects(url)
    process.send_signal(signal.SIGCONT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"StoreError: process {os.getpid()} on" in error and "has taken over" in error
    assert objects(url) == before
    assert differing(table(url), whole()) == []


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_as_the_uninterrupted(
    server, url, cache, whole
):
    draw = random.Random(0)
    server.fault = lambda method, path: draw.choice(FAULTS) if draw.random() < 0.05 else None
    hit = killed_again_and_again(server, url, draw, 3, cache, "--layout", 1, 1, "--halving")
    server.fault = well
    assert max(hit) > 3  # not only before the first chunk
    assert differing(table(url), whole(halving=HALVING)) == []
    assert list(objects(url)) == KEPT


# What is told, and what is not


def permitted(on_objects, on_bucket):
    """The policy that the documentation names, or less."""
    statements = [
        {"Effect": "Allow", "Action": on_bucket, "Resource": "arn:aws:s3:::bucket"},
        {"Effect": "Allow", "Action": on_objects, "Resource": "arn:aws:s3:::bucket/folder/*"},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


# For the deletion of several objects at once, moto looks at what is permitted on the bucket.
POLICIES = {
    "right": permitted(
        ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], ["s3:ListBucket", "s3:DeleteObject"]
    ),
    "no deletion": permitted(["s3:GetObject", "s3:PutObject"], ["s3:ListBucket"]),
    "no listing": permitted(["s3:GetObject", "s3:PutObject"], ["s3:GetBucketLocation"]),
    "nothing": permitted(["s3:GetObjectTagging"], ["s3:GetBucketLocation"]),
}


@pytest.fixture
def guarded(server):
    """A store that looks at credentials; gives right ones and several wrong ones."""
    iam, keys = client("iam"), {}
    for name, policy in POLICIES.items():
        user = name.replace(" ", "-")
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="own", PolicyDocument=policy)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        keys[name] = key["AccessKeyId"], key["SecretAccessKey"]
    server.require_credentials(True)
    try:
        yield keys | {
            "wrong secret": (keys["right"][0], SECRETS["AWS_SECRET_ACCESS_KEY"]),
            "unknown": (SECRETS["AWS_ACCESS_KEY_ID"], SECRETS["AWS_SECRET_ACCESS_KEY"]),
        }
    finally:
        server.require_credentials(False)


def test_wrong_credentials_are_told_without_the_secret(guarded, url, monkeypatch):
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    for case, credentials in guarded.items():
        for name, value in zip(SECRETS, credentials, strict=False):
            monkeypatch.setenv(name, value)
        if case == "right":
            go(f"{url}/{case}", grid=FEW)
            continue
        with pytest.raises(sweep.StoreError, match=f"denies access to {url}.* check AWS_A") as told:
            go(f"{url}/{case}", grid=FEW)
        shown = "".join(traceback.format_exception(told.value))
        assert not [secret for secret in credentials if secret in shown], case


@pytest.mark.parametrize("fault", ["denied before", "refused before"])
def test_what_a_server_repeats_of_a_request_is_not_shown(fault, server, url, monkeypatch):
    monkeypatch.setattr(connection, "FIRST_RETRIES", 0)
    server.fault = lambda method, path: fault
    with pytest.raises(sweep.StoreError, match="SignatureDoesNotMatch|SlowDown") as told:
        go(url, grid=FEW)
    shown = "".join(traceback.format_exception(told.value))
    assert not [secret for secret in SECRETS.values() if secret in shown]


def test_missing_credentials_are_told(server, url, monkeypatch):
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(connection, "FIRST_RETRIES", 1)
    for missing in ["AWS_SECRET_ACCESS_KEY"], ["AWS_ACCESS_KEY_ID"], SECRETS:
        with monkeypatch.context() as patch:
            for name in missing:
                patch.delenv(name)
            told = "no credentials .* set AWS_ACCESS_KEY_ID, AWS_SEC"
            with pytest.raises(sweep.StoreError, match=told):
                go(url, grid=FEW)


def test_what_is_not_there_is_told(url, monkeypatch):
    with pytest.raises(sweep.StoreError, match="there is no bucket 'nowhere': make it first"):
        go("s3://nowhere/sweep", grid=FEW)
    with pytest.raises(sweep.StoreError, match="there is no bucket 'nowhere': make it first"):
        sweep.kept("s3://nowhere/sweep", FEW)
    assert sweep.kept(url, FEW) is None
    monkeypatch.setattr(connection, "FIRST_RETRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(sweep.StoreError, match=r"at 127\.0\.0\.1:1: the connection was refused"):
        go(url, grid=FEW)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://name.invalid")
    with pytest.raises(sweep.StoreError, match="name.invalid: the server's name is not known"):
        go(url, grid=FEW)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:1")
    with pytest.raises(ValueError, match="AWS_ENDPOINT_URL is an address that begins with https"):
        go(url, grid=FEW)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("ftp://bucket/sweep", "begins with s3://, gs://, az://; got one that begins with ftp://"),
        ("s3://", "an address of results is s3://bucket/prefix"),
        ("s3://key:secret@bucket/sweep", "without user, query or fragment$"),
        (Path("s3://bucket/sweep"), "given as a string, not as a Path"),
    ],
)
def test_an_address_that_cannot_be_is_told(place, told):
    for arguments in {"output": place}, {"cache": place}:
        with pytest.raises(ValueError, match=told):
            go(grid=FEW, **arguments)
    with pytest.raises(ValueError, match=told):
        sweep.kept(place, FEW)


def test_without_obstore_it_is_named(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ImportError, match=r"needs obstore: pip install 'adamw_jax\[objects\]'"):
        go(url, grid=FEW)


def test_no_secret_is_written_or_shown(server, url, cache):
    draw = random.Random(0)
    server.fault = lambda method, path: draw.choice(FAULTS) if draw.random() < 0.1 else None
    process = begin(url, "--layout", 1, 1, "--halving", "--lease", 1, cache=cache)
    shown = [*process.communicate(timeout=120)]
    assert process.returncode == 0, shown
    server.fault = well
    process = begin("s3://nowhere/sweep", "--layout", 1, 1, cache=cache)
    shown += process.communicate(timeout=120)
    assert process.returncode == 1
    assert "there is no bucket 'nowhere'" in shown[-1]
    kept = b"\n".join(objects(url).values())
    for secret in SECRETS.values():
        assert secret not in "".join(shown)
        assert secret.encode() not in kept
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(opened(url))
