"""A server that speaks S3, on this machine, and a proxy before it that makes faults."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3

from adamw_jax.sweep.bucket import Bucket

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIA0IDENTITY0OF0TESTS",
    "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see",
    "AWS_SESSION_TOKEN": "a-token-that-nobody-may-see",
}
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
FAULTS = ["lost before", "lost after", "refused before", "refused after", "twice", "cut", 0.2]
CONDITIONS = ("if-match", "if-none-match")


@contextmanager
def serving():
    """Starts moto and the proxy, and sets the environment of this process and its children."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    moto = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = dict(os.environ)
    with Proxy(port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            proxy.wait()
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                del os.environ[name]
            os.environ.update(SECRETS, AWS_ENDPOINT_URL=proxy.url, AWS_REGION="us-east-1")
            client("s3").create_bucket(Bucket="bucket")
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
            os.environ.clear()
            os.environ.update(before)
            moto.kill()
            moto.wait()


def client(service):
    return boto3.client(service, region_name="us-east-1")


def objects(url):
    """All objects below an address: their contents by name."""
    bucket = Bucket(url)
    return {name: bucket.read(name) for name in sorted(each["path"] for each in bucket._listed())}


class Proxy(ThreadingHTTPServer):
    """Forwards requests, one at a time.

    moto looks at a condition and writes in two steps, where S3 does both in one.

    Attributes:
      fault: a function from a request's method and path to what goes wrong with it: "lost before"
        and "lost after" close the connection before or after the request went through; "refused
        before" and "refused after" answer 503; "denied before" answers 403 and repeats the
        request's headers, as Amazon does where a signature is wrong; "twice" lets it through
        twice; "cut" ends the answer in its middle; "deaf" leaves its conditions out; a number
        delays it by so many seconds; None lets it through.
      seen: all requests so far: method, path and what went wrong.
    """

    daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), Handler)
        self.port, self.fault, self.seen = port, well, []
        self.one_at_a_time = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def wait(self):
        """Waits until there is a server."""
        until = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < until, "the server did not start"
                time.sleep(0.1)

    def require_credentials(self, required):
        """Whether the server looks at who signed a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", "/moto-api/reset-auth", b"0" if required else b"inf")
        assert connection.getresponse().status == 200
        connection.close()

    def handle_error(self, request, client_address):
        """Says nothing: a client that was killed has closed its connection."""


def well(method, path):
    """Lets all requests through."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is sent at once, not in two pieces that wait for each other

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault(self.command, self.path)
        self.server.seen.append((self.command, self.path, fault))
        if isinstance(fault, float):
            time.sleep(fault)
        when, _, place = str(fault).partition(" ")
        if place != "before":
            with self.server.one_at_a_time:
                for _ in range(2 if fault == "twice" else 1):
                    status, headers, content = self.forward(body, deaf=fault == "deaf")
        if when == "lost":
            self.close_connection = True
        elif when == "refused":
            self.reply(503, {}, SLOW_DOWN)
        elif when == "denied":
            told = f"<Code>SignatureDoesNotMatch</Code><CanonicalRequest>{self.headers}"
            self.reply(403, {}, f"<Error>{told}</CanonicalRequest></Error>".encode())
        else:
            self.reply(status, headers, content, cut=fault == "cut")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def forward(self, body, deaf):
        headers = {k: v for k, v in self.headers.items() if not (deaf and k.lower() in CONDITIONS)}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def reply(self, status, headers, content, cut=False):
        own = {"content-length", "transfer-encoding", "connection"}
        length = headers.get("Content-Length", 0) if self.command == "HEAD" else len(content)
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in own:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut
