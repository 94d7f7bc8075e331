"""Requests to an object store by obstore: how long, how often, and what their errors say."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError
from obstore.store import from_url

from adamw_jax.sweep.lease import Conflict, Version
from adamw_jax.sweep.refusals import explained

# Seconds that a request may take: one without much content, and one with a file.
QUICK, PATIENT = 10, 300
# Lost connections and errors of the server are tried again for a minute, ever more rarely; at
# the beginning for a few seconds, since an address or credentials may be wrong.
FIRST_RETRIES, RETRIES = 4, 12
BACKOFF = {
    "init_backoff": timedelta(seconds=0.1),
    "base": 4,
    "max_backoff": timedelta(seconds=10),
}


def connected(url: str, seconds: float, retries: int | None = None) -> Any:
    """A client of obstore.

    Args:
      url: the address below which it works.
      seconds: how long a request may take.
      retries: how often one is tried again; by default `RETRIES`.

    Raises:
      ValueError: the environment names a server without saying how to speak to it.
    """
    options = {"timeout": timedelta(seconds=seconds), "connect_timeout": "5s"}
    endpoints = {
        name: value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT")
    }
    for name, endpoint in endpoints.items():
        if url.startswith("s3://") and endpoint and "://" not in endpoint:  # obstore would panic
            raise ValueError(f"{name} is an address that begins with https:// or http://")
    if any(endpoint.startswith("http://") for endpoint in endpoints.values()):
        options["allow_http"] = True
    settings: Any = {
        "client_options": options,
        "retry_config": {
            "max_retries": RETRIES if retries is None else retries,
            "retry_timeout": timedelta(seconds=60),
            "backoff": BACKOFF,
        },
    }
    with told(url):
        return from_url(url, **settings)


def got(client: Any, name: str) -> tuple[bytes, Version]:
    """An object's content, and its version."""
    found = obstore.get(client, name)
    return bytes(found.bytes()), version_of(found.meta)


def listed(client: Any, group: str | None) -> list[Any]:
    """What a store says of all objects, or of those whose names begin with `group` and a slash."""
    return [each for page in obstore.list(client, group) for each in page]


def answered(request: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Makes a request again where obstore does not: if its answer came too late or broke off.

    obstore cannot know whether such a request took place; ours may all take place twice.
    """
    for _ in range(2):
        try:
            return request(*args, **options)
        except GenericError as error:
            if not re.search("kind: (Timeout|Interrupted)", str(error)):
                raise
    return request(*args, **options)


def version_of(found: Any) -> Version:
    """The version in what a store says of an object: Amazon's is an ETag, Google's a number."""
    return {key: found[key] for key in ("e_tag", "version") if found.get(key)}


@contextmanager
def told(path: str) -> Iterator[None]:
    """Turns the errors of obstore, whose texts may show credentials, into ours."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise Conflict(path) from None
    except (BaseError, FileNotFoundError) as error:
        raise explained(error, path) from None
