"""Certificates for tests, made by the openssl command, and Python's own TLS to meet flywheel's."""

import shutil
import ssl
import subprocess

from flow import PATIENCE, Skip, expect


class Certificates:
    """A root (ca.pem) in a folder of the test's own, and what it signs. One key is everybody's."""

    def __init__(self, flow):
        if not shutil.which("openssl"):
            raise Skip("the openssl command is not installed")
        self.folder = flow.path / "certificates"
        self.folder.mkdir()
        self.key = self.folder / "key.pem"
        self.ca = self.folder / "ca.pem"
        self.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.key)
        self.openssl("req", "-x509", "-key", self.key, "-out", self.ca, "-days", "30", "-subj", "/CN=root.test")

    def openssl(self, *arguments, input=b""):
        done = subprocess.run(["openssl", *map(str, arguments)], input=input, capture_output=True, cwd=self.folder,
                              timeout=PATIENCE)
        expect(done.returncode == 0, f"openssl {arguments[0]}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def make(self, name, days=30, signed=True):
        """A certificate for a host name; days below 1: it is over."""
        path = self.folder / f"{name}-{days}-{signed}.pem"
        request = self.openssl("req", "-new", "-key", self.key, "-subj", f"/CN={name}", "-addext",
                               f"subjectAltName=DNS:{name}")
        signer = ("-CA", self.ca, "-CAkey", self.key) if signed else ("-key", self.key)
        self.openssl("x509", "-req", *signer, "-copy_extensions", "copyall", "-days", days, "-out", path, input=request)
        return path

    def server(self, name="localhost", days=30, signed=True):
        """A server's context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.make(name, days, signed), self.key)
        return context

    def client(self, certificate=None):
        """A client's context, which trusts the root."""
        context = ssl.create_default_context(cafile=self.ca)
        if certificate:
            context.load_cert_chain(certificate, self.key)
        return context
