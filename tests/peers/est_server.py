"""An EST server (RFC 7030) out of Python's http.server and ssl and the openssl program.

It shares no code with the gateway. Who is not known by a certificate of its authority must log in by HTTP Basic. What it
does is said on standard output, a JSON object to a line.
"""

import argparse
import base64
import datetime
import http.server
import json
import os
import ssl
import subprocess
import sys
import tempfile

CONFIG = """
[ca]
default_ca = plant
[plant]
dir = {place}
database = {place}/index.txt
serial = {place}/serial
new_certs_dir = {place}
default_md = sha256
unique_subject = no
policy = any
copy_extensions = copy
[any]
commonName = supplied
organizationName = optional
"""


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def openssl(*arguments, given=None):
    done = subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=False)
    if done.returncode != 0:
        raise ValueError(done.stderr.decode(errors="replace"))
    return done.stdout


class Authority:
    """Signs requests by `openssl ca`, and wraps what it signed by `openssl crl2pkcs7`."""

    def __init__(self, options):
        self.options = options
        self.place = tempfile.mkdtemp(prefix="est-")
        self.config = self.file("ca.conf", CONFIG.format(place=self.place).encode())
        self.file("index.txt", b"")
        self.file("serial", b"1000\n")

    def file(self, name, content):
        path = os.path.join(self.place, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def sign(self, request, ages):
        """A certificate that began and ends so many days from now."""
        today = datetime.datetime.now(datetime.timezone.utc)
        begin, end = (
            (today + datetime.timedelta(days=days)).strftime("%y%m%d%H%M%SZ") for days in ages
        )
        asked = self.file("asked.pem", openssl("req", "-inform", "DER", "-verify", given=request))
        issued = os.path.join(self.place, "issued.pem")
        openssl(
            "ca", "-batch", "-notext", "-config", self.config, "-in", asked, "-out", issued,
            "-cert", self.options.ca, "-keyfile", self.options.ca_key, "-startdate", begin, "-enddate", end,
        )
        return issued

    def wrapped(self, path):
        der = openssl("crl2pkcs7", "-nocrl", "-certfile", path, "-outform", "DER")
        return base64.encodebytes(der)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if body:
            self.send_header("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
            self.send_header("Content-Transfer-Encoding", "base64")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def client(self):
        """The common name in the client's certificate."""
        certificate = self.connection.getpeercert() or {}
        names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        return names[0] if names else None

    def has_login(self):
        options = self.server.authority.options
        pair = base64.b64encode(f"{options.user}:{options.password}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {pair}"

    def do_GET(self):
        if self.path != "/.well-known/est/cacerts":
            return self.answer(404)
        authority = self.server.authority
        return self.answer(200, authority.wrapped(authority.options.ca))

    def do_POST(self):
        operation = self.path.removeprefix("/.well-known/est/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if operation not in ("simpleenroll", "simplereenroll"):
            return self.answer(404)
        client = self.client()
        if operation == "simplereenroll" and client is None or operation == "simpleenroll" and not self.has_login():
            say("refused", operation=operation)
            return self.answer(401, WWW_Authenticate='Basic realm="est"')
        if self.headers["Content-Type"] != "application/pkcs10":
            return self.answer(415)
        authority = self.server.authority
        if operation == "simplereenroll" and authority.options.later > 0:
            authority.options.later -= 1
            say("later", operation=operation)
            return self.answer(202, Retry_After="1")
        ages = (-100, authority.options.first_ends) if operation == "simpleenroll" else (-1, 90)
        issued = authority.sign(base64.b64decode(body), ages)
        key = openssl("x509", "-in", issued, "-noout", "-pubkey").decode()
        say("issued", operation=operation, client=client, key=key)
        return self.answer(200, authority.wrapped(issued))


def main():
    parser = argparse.ArgumentParser()
    for name in ("--ca", "--ca-key", "--certificate", "--key", "--user", "--password"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--later", type=int, default=0, help="renewals that are put off by 202 and Retry-After")
    parser.add_argument("--first-ends", type=int, default=20, help="days until a first certificate ends")
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(options.ca)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.authority = Authority(options)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    say("ready")
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
