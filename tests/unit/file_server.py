"""A local web server, with or without TLS, that misbehaves as told; used by the tests of downloading."""

import contextlib
import datetime
import hashlib
import ipaddress
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_certificate(folder):
    """A self-signed certificate for 127.0.0.1: one PEM file for clients, one with the key for the server."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(public)
    (folder / "server.pem").write_bytes(public + private)
    return folder / "ca.pem", folder / "server.pem"


class FileServer:
    """Serves `files` (path -> bytes). `script[path]` is a list of steps, each used for one request of that path.

    `log` holds (path, Range header, status, body bytes sent) of every request.
    """

    def __init__(self, certificate=None):
        self.files, self.script, self.log = {}, {}, []
        server = self

        class Handler(_Handler):
            state = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.base = f"{scheme}://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()

    def add(self, path, content, *steps):
        """Serve `content` at `path` after `steps`; returns the URL."""
        self.files[path], self.script[path] = content, list(steps)
        return self.base + path


class _Handler(BaseHTTPRequestHandler):
    state: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        steps = self.state.script.get(self.path)
        step = steps.pop(0) if steps else serve()
        self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):  # the client may hang up
            step(self, self.state.files[self.path])

    def answer(self, status, headers, body, sent=None):
        """Send a whole answer, or only the first `sent` bytes of its body."""
        part = body if sent is None else body[:sent]
        self.state.log.append((self.path, self.headers.get("Range"), status, len(part)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(part)


def tag(content):
    return f'"{hashlib.md5(content).hexdigest()}"'


def serve(sent=None, ranges=True, heed_if_range=True, etag=True, length=True, content=None, pause=0.0):
    """Serve the file properly but for what is switched off: `sent` cuts, `content` is served in its place."""

    def step(handler, stored):
        body = stored if content is None else content
        threading.Event().wait(pause)
        headers = {"ETag": tag(body)} if etag else {}
        status, start = 200, 0
        asked = handler.headers.get("Range") if ranges else None
        fresh = not heed_if_range or handler.headers.get("If-Range", tag(body)) == tag(body)
        if asked and fresh:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                return handler.answer(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"}, b"")
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if length:
            headers["Content-Length"] = str(len(body) - start)
        return handler.answer(status, headers, body[start:], sent)

    return step


def fail(status, **headers):
    """Answer with an error."""
    return lambda handler, _: handler.answer(status, {"Content-Length": "0", **headers}, b"")


def redirect(url):
    """Send the client elsewhere."""
    return lambda handler, _: handler.answer(302, {"Location": url, "Content-Length": "0"}, b"")


def page(content_type="text/html; charset=utf-8"):
    """Answer with a web page and status 200."""
    body = b"\n<!DOCTYPE html><html><body>Please sign in</body></html>"
    return lambda handler, _: handler.answer(
        200, {"Content-Type": content_type, "Content-Length": str(len(body))}, body
    )


def other_range(shift):
    """Answer a range request with a piece that begins elsewhere."""

    def step(handler, body):
        start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-")) + shift
        headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}", "Content-Length": len(body) - start}
        handler.answer(206, headers, body[start:])

    return step
