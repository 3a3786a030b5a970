"""Registries for tests: Debian's docker-registry, and one that lies."""
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time

from harness import WORK, Skip, environ, folder


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Registry:
    """docker-registry on a free port; with @users {name: password} and @tls (certificate, key)."""

    def __init__(self, users=None, tls=None):
        if not shutil.which("docker-registry"):
            raise Skip("no docker-registry (Debian package)")
        self.port = free_port()
        self.host = f"localhost:{self.port}"
        place = folder(f"registry-{self.port}")
        text = f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {place}/data\nhttp:\n  addr: 127.0.0.1:{self.port}\n"
        if tls:
            text += f"  tls:\n    certificate: {tls[0]}\n    key: {tls[1]}\n"
        if users:
            with open(f"{place}/htpasswd", "w") as f:
                for name, password in users.items():
                    f.write(subprocess.run(["htpasswd", "-nbB", name, password], capture_output=True, text=True,
                                           check=True).stdout.strip() + "\n")
            text += f"auth:\n  htpasswd:\n    realm: test\n    path: {place}/htpasswd\n"
        with open(f"{place}/config.yml", "w") as f:
            f.write(text)
        self.log = open(f"{place}/log", "w")
        self.process = subprocess.Popen(["docker-registry", "serve", f"{place}/config.yml"], stdout=self.log,
                                        stderr=subprocess.STDOUT, env=environ())
        for _ in range(500):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("docker-registry does not start: " + open(f"{place}/log").read()[-500:])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()


def certificate():
    """A certificate authority's own certificate for localhost and its key."""
    place = folder("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{place}/key.pem", "-out", f"{place}/cert.pem"],
                   check=True, stderr=subprocess.DEVNULL)
    return f"{place}/cert.pem", f"{place}/key.pem"


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Liar:
    """
    A registry of one image that answers as @behave(request, path, what) says: None for the truth, or a
    tuple (status, headers, body, cut): @cut bytes of the body are sent, then the connection is dropped.
    """

    def __init__(self, manifest, blobs, behave=None, manifest_type="application/vnd.oci.image.manifest.v1+json"):
        liar = self
        self.requests = []
        self.behave = behave or (lambda handler, path, truth: None)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                liar.requests.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
                path, truth, kind = self.path.split("?")[0], None, "application/octet-stream"
                if path == "/v2/":
                    truth = b"{}"
                elif "/manifests/" in path:
                    truth, kind = manifest, manifest_type
                elif "/blobs/" in path or "/elsewhere/" in path:
                    truth = blobs.get(path.rsplit("/", 1)[1])
                lie = liar.behave(self, path, truth)
                if lie:
                    self.answer(*lie)
                elif truth is None:
                    self.answer(404, {}, b'{"errors": [{"message": "unknown"}]}')
                else:
                    start = 0
                    if self.headers.get("Range"):
                        start = int(self.headers["Range"].split("=")[1].split("-")[0])
                    self.answer(206 if start else 200, {"Content-Type": kind, **(
                        {"Content-Range": f"bytes {start}-{len(truth) - 1}/{len(truth)}"} if start else {})}, truth[start:])

            do_HEAD = do_POST = do_GET

            def do_PUT(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def answer(self, status, headers, body, cut=None):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if cut is None else body[:cut])
                if cut is not None:
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass	# a client that has heard enough hangs up

        self.server = Server(("127.0.0.1", 0), Handler)
        self.host = f"localhost:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def fetched(self, digest):
        """Requests for one blob: list of (range, authorization)."""
        return [(r, a) for path, r, a in self.requests if path.endswith(digest)]
