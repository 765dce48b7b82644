"""A real S3 endpoint on loopback (moto behind werkzeug) that counts requests and can be told to refuse some."""

import collections
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Refusal = Callable[[str, str, dict[str, list[str]]], bool]
"""(method, path, query) -> whether the request is answered with 403."""

ACCESS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
"""What a client's environment must hold."""


@dataclass
class S3Server:
    """A running endpoint with one bucket, `mill`."""

    port: int = 0
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    """Requests by kind: "LIST", "PUT part", "PUT", "GET", "HEAD", "DELETE", "POST"."""
    pages: set[tuple[str, ...]] = field(default_factory=set)
    """Prefix and continuation of every answer of a listing; a busy machine's client asks twice for some."""
    refuse: Refusal | None = None

    def place(self, path: str) -> str:
        """The address of a folder in the bucket."""
        return f"s3://mill/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def fill(self, paths: Iterable[str]) -> None:
        """Put an empty JSON object at each path, past the door and the counting."""
        from moto.core.models import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        for path in paths:
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("mill", path, b"{}")

    def answer(self, app: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Count one request, and refuse it or hand it on."""
        method, query = environ["REQUEST_METHOD"], urllib.parse.parse_qs(environ.get("QUERY_STRING", ""), True)
        kind = method
        if method == "GET" and "list-type" in query:
            kind = "LIST"
            self.pages.add((*query.get("prefix", ()), *query.get("continuation-token", ())))
        elif method == "PUT" and "partNumber" in query:
            kind = "PUT part"
        self.counts[kind] += 1
        if self.refuse is not None and self.refuse(method, environ["PATH_INFO"], query):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            start_response("403 FORBIDDEN", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        return app(environ, start_response)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Serve until the context ends; the bucket is empty."""
    import logging

    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3Server()
    app = DomainDispatcherApplication(create_backend_app)
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket("mill", "us-east-1")
    served = make_server("127.0.0.1", 0, lambda environ, start: server.answer(app, environ, start), threaded=True)
    server.port = served.server_port
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        served.shutdown()
        thread.join()
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
