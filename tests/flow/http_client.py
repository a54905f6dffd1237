"""HTTP by hand, and a strict reader of the text format of Prometheus."""

import fcntl
import http.client
import json
import re
import socket
import subprocess
import threading

from flow import PATIENCE, ROOT, Daemon, expect, expect_equal, free_port

# It is large and brings a service: of the package only promtool is unpacked, once for a build folder.
PROMETHEUS_FOLDER = ROOT / "build" / "prometheus"


def promtool():
    """None where the package cannot be had."""
    program = PROMETHEUS_FOLDER / "usr/bin/promtool"
    PROMETHEUS_FOLDER.mkdir(parents=True, exist_ok=True)
    with open(PROMETHEUS_FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            subprocess.run("apt-get download -q prometheus && dpkg --fsys-tarfile prometheus_*.deb |"
                           " tar x ./usr/bin/promtool && rm prometheus_*.deb", shell=True,
                           cwd=PROMETHEUS_FOLDER, capture_output=True)
    return program if program.exists() else None


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)


class Server:
    """flywheeld with an HTTP listener: `scope` stands in it, `listen` in its listen."""

    def __init__(self, flow, scope="", listen="", host="127.0.0.1", text="", **options):
        self.port = free_port()
        self.token = None
        self.daemon = Daemon(flow, text=f'http_listener {{ {scope}\nlisten "{host}:{self.port}" {{ {listen} }} }}\n{text}',
                             **options)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, path, method="GET", headers=None, body=None, connection=None):
        headers = dict(headers or {})
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        own = connection or self.connect()
        own.request(method, path, headers=headers, body=body)
        reply = own.getresponse()
        answer = Answer(reply.status, dict(reply.getheaders()), reply.read())
        if not connection:
            own.close()
        return answer

    def get(self, path, **options):
        answer = self.ask(path, **options)
        expect_equal(answer.status, 200, f"status of {path} ({answer.body[:200]})")
        return answer

    def api(self, path):
        answer = self.get(f"/api/v1/{path}").json()
        expect(answer["ok"], f"{path}: {answer}")
        return answer["result"]

    def metrics(self):
        return Metrics(self.get("/metrics").body.decode())

    def counter(self, name):
        return self.daemon.counters(f"*.{name}")[f"scheduler.{name}"]

    def raw(self, data=b"", host="127.0.0.1"):
        """A connection on which something has been sent."""
        s = socket.create_connection((host, self.port), PATIENCE)
        s.sendall(data)
        return s


class Events:
    """A client that follows /events, on a thread."""

    def __init__(self, server):
        self.connection = server.connect()
        self.events = []
        self.whole = False
        headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
        self.connection.request("GET", "/events", headers=headers)
        self.reply = self.connection.getresponse()
        self.status = self.reply.status
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        """Until the server ends it: `whole` says whether the answer was."""
        fields = {}
        try:
            while line := self.reply.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                else:
                    self.events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                    fields = {}
            self.whole = not fields
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass

    def close(self):
        sock = self.connection.sock or self.reply.fp.raw._sock
        sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(PATIENCE)
        self.connection.close()


NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (-?(?:[0-9.]+(?:e[-+]?[0-9]+)?|Inf|NaN)|\+Inf)$")
LABEL = re.compile(rf'({NAME})="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


class Metrics:
    """The text, read strictly: each family once, with HELP and TYPE before its samples, names that fit the type, no
    sample twice, histograms that add up."""

    def __init__(self, text):
        self.text = text
        self.types = {}
        self.samples = {}
        self.family = None
        expect(text.endswith("\n"), "the last line of the metrics has no end")
        for line in text.splitlines():
            if line.startswith("# "):
                self.comment(line)
            else:
                self.sample(line)
        self.check_histograms()

    def comment(self, line):
        word, name, rest = line[2:].split(" ", 2)
        if word == "HELP":
            expect(name not in self.types and rest, f"HELP comes again, or says nothing: {line}")
            self.family = name
            self.types[name] = None
            return
        expect_equal((word, name, self.types.get(name)), ("TYPE", self.family, None), f"what {line} is")
        expect(rest in ("counter", "gauge", "histogram"), f"type of {line}")
        expect_equal(name.endswith("_total"), rest == "counter", f"ending of {line}")
        self.types[name] = rest

    def sample(self, line):
        match = SAMPLE.match(line)
        expect(match, f"a line that is no sample: {line!r}")
        name, labels, value = match.groups()
        kind = self.types[self.family]
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        expect(name in [self.family + e for e in endings], f"{name} is not of {self.family} ({kind})")
        pairs, at = [], 0
        while labels and at < len(labels):
            label = LABEL.match(labels, at)
            expect(label, f"labels of {line!r}")
            pairs.append((label[1], re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), label[2])))
            at = label.end()
        key = (name, frozenset(pairs))
        expect(key not in self.samples and len(dict(pairs)) == len(pairs), f"twice: {line!r}")
        self.samples[key] = float(value)

    def check_histograms(self):
        for name in (n for n, kind in self.types.items() if kind == "histogram"):
            for (sample, labels), count in list(self.samples.items()):
                if sample != f"{name}_count":
                    continue
                buckets = sorted((float(dict(own)["le"]), value) for (n, own), value in self.samples.items()
                                 if n == f"{name}_bucket" and own - {("le", dict(own)["le"])} == labels)
                counts = [value for _, value in buckets]
                expect(counts == sorted(counts) and buckets[-1] == (float("inf"), count),
                       f"buckets of {name}: {buckets}")
                expect((f"{name}_sum", labels) in self.samples, f"{name} has no sum")

    def value(self, name, **labels):
        """None: there is no such sample."""
        return self.samples.get((name, frozenset(labels.items())))

    def sum(self, name):
        return sum(value for (n, _), value in self.samples.items() if n == name)

    def labels(self, name, label):
        return {dict(labels)[label] for n, labels in self.samples if n == name}
