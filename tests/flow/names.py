"""Name servers for tests: nsd on a loopback port, with zones that are signed, badly signed, or fail."""

import re
import socket
import subprocess
import threading

from flow import Failure, Skip, die_with_us, free_port, wait_until


def tool(name, *arguments, folder):
    done = subprocess.run([name, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Failure(f"{name}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


class Zone:
    """Records of one zone, as text. `state`: plain, signed, bogus (signatures that have expired, but the
    parent vouches for the key), or broken (the server fails when it is asked)."""

    def __init__(self, name, records="", state="signed"):
        self.name = name
        self.records = records
        self.state = state

    def text(self):
        return (f"$ORIGIN {self.name}.\n$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 300\n@ NS ns\n"
                f"ns A 127.0.0.1\n{self.records}\n")


class NameServer:
    """nsd with some zones, the parents first in `zones`; self.anchor is a file with the first zone's key."""

    def __init__(self, flow, *zones):
        self.flow = flow
        self.port = free_port()
        self.folder = flow.path / f"nsd-{self.port}"
        self.folder.mkdir()
        self.anchor = self.folder / "anchor"
        files = self.write(zones)
        lines = [f"server:\n ip-address: 127.0.0.1@{self.port}\n username: \"\"\n chroot: \"\"\n database: \"\"\n"
                 f" zonesdir: \"{self.folder}\"\n pidfile: \"{self.folder}/pid\"\n logfile: \"{self.folder}/log\"\n"
                 f" xfrdfile: \"{self.folder}/xfrd\"\n zonelistfile: \"{self.folder}/list\"\n"
                 f" xfrdir: \"{self.folder}\"\n server-count: 1\nremote-control:\n control-enable: no\n"]
        lines += [f"zone:\n name: \"{name}\"\n zonefile: \"{file}\"\n" for name, file in files.items()]
        (self.folder / "nsd.conf").write_text("".join(lines))
        self.start()

    def write(self, zones):
        """Zone files, the children's first: a parent has the digest of their keys. By name of the zone."""
        files, delegations = {}, {zone.name: "" for zone in zones}
        for zone in reversed(zones):
            file = self.folder / f"{zone.name}.zone"
            zone.records += "\n" + delegations[zone.name]
            file.write_text(zone.text())
            parent = max((n for n in delegations if zone.name.endswith("." + n)), key=len, default=None)
            if parent:
                delegations[parent] += f"{zone.name}. NS ns.{parent}.\n"
            if zone.state in ("signed", "bogus"):
                key = tool("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", zone.name, folder=self.folder)
                times = ("-i", "20200101000000", "-e", "20200201000000") if zone.state == "bogus" else ()
                tool("ldns-signzone", *times, "-f", f"{file}.signed", file, key, folder=self.folder)
                file = f"{file}.signed"
                self.anchor.write_text((self.folder / f"{key}.key").read_text())
                if parent:
                    delegations[parent] += (self.folder / f"{key}.ds").read_text() + "\n"
            files[zone.name] = file if zone.state != "broken" else self.folder / "no-such-file"
        return files

    def start(self):
        output = open(self.folder / "out", "wb")
        try:
            self.process = subprocess.Popen(["nsd", "-d", "-c", self.folder / "nsd.conf"], stdout=output, stderr=output,
                                            preexec_fn=die_with_us)
        except FileNotFoundError:
            raise Skip("nsd is not installed") from None
        self.flow.closers.append(self.stop)
        wait_until(self.answers, "nsd to answer")
        log = (self.folder / "log").read_text()
        if re.search(r"with \d+ errors", log):
            raise Failure(f"nsd does not like a zone: {log}")

    def answers(self):
        """To a question for the root, with anything."""
        if self.process.poll() is not None:
            raise Failure("nsd ended: " + (self.folder / "out").read_text() + (self.folder / "log").read_text())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            s.connect(("127.0.0.1", self.port))
            try:
                s.send(b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01")
                return s.recv(512)[:2] == b"\x12\x34"
            except OSError:
                return False

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def resolver(self, text="", trusted=True):
        """The stanza that makes a daemon ask it."""
        anchor = f'trust_anchor_file = "{self.anchor}"' if trusted else ""
        return f'resolver {{ forwarders = ( "127.0.0.1@{self.port}" ) timeout = "60s" {anchor} {text} }}\n'


class Datagrams(threading.Thread):
    """A UDP socket, and a thread that gives what comes to self.take(). The socket is closed when the thread has ended:
    one that still waits in the kernel for a socket that is closed goes on, after a signal, with whatever socket has its
    number by then, and takes what is not for it."""

    def __init__(self, flow, host="127.0.0.1", port=0):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, port))
        self.address = self.socket.getsockname()
        self.port = self.address[1]
        self.ending = False
        flow.closers.append(self.close)
        self.start()

    def run(self):
        while True:
            datagram, sender = self.socket.recvfrom(2048)
            if self.ending:
                return
            self.take(datagram, sender)

    def close(self):
        self.ending = True
        self.socket.sendto(b"", self.address)
        self.join()
        self.socket.close()


class SilentServer(Datagrams):
    """Takes questions, keeps their names and types, and never answers."""

    def __init__(self, *arguments, **options):
        self.questions = []
        super().__init__(*arguments, **options)

    def take(self, question, _):
        self.questions.append(question[12:])

    def asked(self, label):
        return [q for q in self.questions if bytes([len(label)]) + label.encode().lower() in q.lower()]


class RecordServer(Datagrams):
    """A name server in Python: MX and A records from `exchangers` (domain to a list of (preference, host)) and
    `addresses` (host to an address), which a test may change at any time. What it does not know does not
    exist."""

    MX, A = 15, 1

    def __init__(self, flow, exchangers, addresses, ttl=1):
        self.exchangers, self.addresses, self.ttl = exchangers, addresses, ttl
        self.asked = []
        super().__init__(flow)

    @staticmethod
    def encode(name):
        return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"

    def rdata(self, name, kind):
        """All records of a type; None: no such name."""
        if name not in self.exchangers and name not in self.addresses:
            return None
        if kind == self.MX:
            return [p.to_bytes(2, "big") + self.encode(h) for p, h in self.exchangers.get(name, [])]
        return [socket.inet_aton(self.addresses[name])] if kind == self.A and name in self.addresses else []

    def answer(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        name, kind = ".".join(labels).lower(), int.from_bytes(question[at + 1:at + 3], "big")
        self.asked.append((name, kind))
        data = self.rdata(name, kind)
        head = question[:2] + (b"\x81\x80" if data is not None else b"\x81\x83") + b"\0\1"
        records = b"".join(b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1" + self.ttl.to_bytes(4, "big") +
                           len(r).to_bytes(2, "big") + r for r in data or [])
        return head + len(data or []).to_bytes(2, "big") + b"\0\0\0\0" + question[12:at + 5] + records

    def take(self, question, peer):
        # Without a question, somebody looks whether the port is free.
        if len(question) > 12:
            self.socket.sendto(self.answer(question), peer)

    def resolver(self, text="timeout = \"60s\" min_ttl = \"0s\""):
        return f'resolver {{ forwarders = ( "127.0.0.1@{self.port}" ) {text} }}\n'
