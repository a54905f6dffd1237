"""Large messages: in plain text, signed (DKIM, RSA of 2048 bits), by TLS in and out, and all of it."""

import json
import subprocess

from bench.figures import Figure
from bench.flywheel import Flywheel, RELAY
from bench.load import Sink
from bench.process import BenchError
from bench.relay import through

SIZE = 100 * 1024
PLAIN = "plain"
# What a run is called in a figure: is it signed, is it encrypted?
RUNS = {"plain": (False, False), "signed": (True, False), "encrypted": (False, True), "both": (True, True)}


# What is bare of each, by fwmicro; a body by TLS is decrypted once and encrypted once.
BARE = {"RSA": ("dkim.rsa-bare", 1), "AES": ("seal.aes-256-gcm-100k", 2)}
SHARES = (("signed", "RSA"), ("encrypted", "AES"), ("both", "RSA"), ("both", "AES"))


def bare_us(bench):
    """us/message that nobody can do without; nothing when fwmicro was not built."""
    program = bench.build / "fwmicro"
    if not program.exists():
        bench.note_once("no shares of RSA and AES: fwmicro was not built")
        return {}
    done = subprocess.run([program, "--json", "--quick", "--runs", "3", "--dir", bench.work, "dkim", "seal"],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"fwmicro failed: {done.stderr}")
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines()) if "name" in row}
    return {kind: sorted(rows[name]["runs"])[1] * times / 1000 for kind, (name, times) in BARE.items()}


def make(path, *words):
    """Runs openssl to make a file that is not there yet."""
    if not path.exists():
        done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"openssl {words[0]}: {done.stderr}")


class Secured:
    """The load tools and flywheel share the cores: each of them encrypts."""

    name = "secured-100k"
    about = "relay 100 KiB, 20 sessions: plain, signed by RSA, encrypted by TLS in and out, both"
    size, sessions, messages = SIZE, 20, 6000
    options = ["--domains", 100, "--from", "sender@signed.example"]

    def run_pair(self, bench):
        runs = {name: self.relay(bench, name, *how) for name, how in RUNS.items()}
        for name, run in runs.items():
            beside = {} if name == PLAIN else {PLAIN: runs[PLAIN]}
            yield Figure(self.name, f"{name}.rate", f"{name}: rate, end to end", "messages/s", run.rate,
                         {key: other.rate for key, other in beside.items()})
            yield Figure(self.name, f"{name}.cpu", f"{name}: CPU", "us/message", run.mta_us,
                         {key: other.mta_us for key, other in beside.items()})
        bare = bare_us(bench)
        for name, kind in SHARES if bare else ():
            yield Figure(self.name, f"{name}.{kind.lower()}", f"{name}: {kind}, bare", "us/message", bare[kind],
                         {"CPU": runs[name].mta_us})

    def relay(self, bench, name, signed, encrypted):
        key, certificate = bench.work / "dkim.pem", bench.work / "tls.pem"
        make(key, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(key))
        make(certificate, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
             "/CN=bench.example", "-keyout", str(certificate), "-out", str(certificate) + ".crt")
        text = RELAY
        if signed:
            text += f'\ndkim "signed.example" {{ selector = "bench"  key = "{key}" }}'
        if encrypted:
            text += f'\ntls_certificate = "{certificate}.crt"\ntls_key = "{certificate}"\ntls = required'
        shape = Shape(self, ["--starttls"] if encrypted else [])
        tls = ["--cert", f"{certificate}.crt", "--key", certificate] if encrypted else []
        with Sink(bench, options=tls) as sink, Flywheel(bench, "secured", sink.port, text=text) as mta:
            return through(bench, shape, bench.count(self.messages, quick=self.messages // 20), sink,
                           mta.start(), f"flywheel {name}")


class Shape:
    """What through() needs to know of the mail."""

    def __init__(self, case, options):
        self.name, self.size, self.sessions = case.name, case.size, case.sessions
        self.options = case.options + options


CASES = [Secured()]
