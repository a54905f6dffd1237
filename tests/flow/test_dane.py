"""DANE (RFC 7672): which next hops get mail by which TLSA records, beside what Postfix's posttls-finger says of
the same ones."""

import hashlib
import os
import pathlib
import re
import shutil
import ssl
import subprocess

from certificates import Certificates
from flow import LIBC, PATIENCE, Daemon, Failure, Skip, die_with_us, expect, expect_equal, wait_until
from names import NameServer, Zone
from peer import Peer
from test_sts import told_of
from test_tls import send

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
# Of a resolver that posttls-finger asks; it knows no other port than 53.
RESOLVER = "127.0.0.77"


class Finger:
    """posttls-finger, which asks a validating unbound, which asks the test's name server."""

    def __init__(self, flow, names):
        self.tool = shutil.which("posttls-finger", path="/usr/sbin:/usr/bin")
        if not self.tool:
            raise Skip("posttls-finger is not installed")
        if not shutil.which("unbound", path="/usr/sbin:/usr/bin"):
            raise Skip("unbound is not installed")
        if os.getuid() != 0:
            raise Skip("port 53 and a mount namespace are for root")
        self.folder = flow.path / "finger"
        self.folder.mkdir()
        (self.folder / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = finger.test\ndnssec_probe =\n")
        (self.folder / "resolv.conf").write_text(f"nameserver {RESOLVER}\noptions trust-ad edns0\n")
        (self.folder / "unbound.conf").write_text(
            f'server:\n interface: {RESOLVER}\n username: ""\n chroot: ""\n directory: "{self.folder}"\n'
            f' pidfile: ""\n use-syslog: no\n do-not-query-localhost: no\n trust-anchor-file: "{names.anchor}"\n'
            f' module-config: "validator iterator"\n local-zone: "test." nodefault\nremote-control:\n control-enable: no\n'
            f'stub-zone:\n name: "d.test"\n stub-addr: 127.0.0.1@{names.port}\n')
        output = open(self.folder / "out", "wb")
        process = subprocess.Popen(["/usr/sbin/unbound", "-d", "-c", self.folder / "unbound.conf"], stdout=output,
                                   stderr=output, preexec_fn=die_with_us)
        flow.closers.append(lambda: (process.terminate(), process.wait(PATIENCE)))
        wait_until(lambda: process.poll() is not None or "start of service" in self.log(), "unbound to start")
        if process.poll() is not None:
            if "ermission denied" in self.log():
                raise Skip("port 53 cannot be had")
            raise Failure(f"unbound ended: {self.log()}")

    def log(self):
        return (self.folder / "out").read_text()

    def own_resolv_conf(self):
        """In the child: a mount namespace of its own."""
        die_with_us()
        path = pathlib.Path("/etc/resolv.conf").resolve()
        if LIBC.unshare(CLONE_NEWNS) != 0 or LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0 or \
                LIBC.mount(bytes(self.folder / "resolv.conf"), bytes(path), None, MS_BIND, None) != 0:
            os._exit(77)

    def look(self, domain, port, level="dane"):
        """verified, encrypted, plain or refused, and all that it said."""
        done = subprocess.run([self.tool, "-c", "-t", "30", "-l", level, "-L", "summary", f"{domain}:{port}"],
                              capture_output=True, text=True, timeout=PATIENCE, preexec_fn=self.own_resolv_conf,
                              env={**os.environ, "MAIL_CONFIG": str(self.folder)})
        if done.returncode == 77:
            raise Skip("a mount namespace is not permitted")
        return done.returncode, done.stdout + done.stderr


def digest(flow_certificates, path, selector, matching):
    """The data of a TLSA record for a certificate."""
    c = flow_certificates
    der = c.openssl("x509", "-in", path, "-outform", "DER")
    if selector == 1:
        key = c.openssl("x509", "-in", path, "-noout", "-pubkey")
        der = c.openssl("pkey", "-pubin", "-outform", "DER", input=key)
    return der.hex() if matching == 0 else hashlib.new({1: "sha256", 2: "sha512"}[matching], der).hexdigest()


class Case:
    """One domain with an exchanger of its own, mx.NAME.d.test, and what is expected: verified, encrypted
    (by TLS, unverified), plain or refused. `records`: pairs of "usage selector matching" and whose
    certificate they are of: "own", "ca", "other" (anybody's), or data as it is. `certificate`: its name
    and days, and whether the root signed it; None: no TLS. `mx`: what else the zone has: "alias" (the
    exchanger's name is one, of host.NAME), "own" (the same, with the records at its own name)."""

    def __init__(self, name, expected, records, certificate=("wrong.test", 30, False), mx="", at="", level="dane",
                 domain="d.test"):
        self.name = name
        self.expected = expected
        self.records = records
        self.certificate = certificate
        self.mx = mx
        self.at = at
        self.level = level
        self.parent = domain
        self.domain = f"{name}.{domain}"

    def open(self, flow, c):
        context, chain = None, None
        if self.certificate:
            name, days, signed = self.certificate
            chain = c.make(name.format(name=self.name), days, signed)
            # Whose trust anchor is meant has to be sent.
            full = c.folder / f"{self.name}.pem"
            full.write_bytes(chain.read_bytes() + (c.ca.read_bytes() if signed else b""))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(full, c.key)
        self.peer = Peer(flow, tls=context)
        files = {"own": chain, "ca": c.ca, "other": c.make("other.test", 30, False)}
        self.tlsa = []
        for kind, whose in self.records:
            selector, matching = map(int, kind.split()[1:])
            data = digest(c, files[whose] or files["other"], selector, matching) if whose in files else whose
            if whose == "other":
                data = hashlib.new({1: "sha256", 2: "sha512"}[matching], b"another").hexdigest()
            self.tlsa.append(f"{kind} {data}")

    def tlsa_at(self, host):
        return "".join(f"_{self.peer.port}._tcp.{host} TLSA {t}\n" for t in self.tlsa)

    def zone(self):
        """Its records, relative to the parent zone."""
        text = f"{self.name} MX 10 mx.{self.name}\n"
        if self.mx in ("alias", "own"):
            text += f"mx.{self.name} CNAME host.{self.name}\nhost.{self.name} A 127.0.0.1\n"
            # An alias has no other records, but names below it may.
            return text + self.tlsa_at(f"{'host' if self.mx == 'alias' else 'mx'}.{self.name}")
        if self.mx:
            return f"{self.name} MX 10 {self.mx}\n"
        return text + f"mx.{self.name} A 127.0.0.1\n" + (self.tlsa_at(f"mx.{self.name}") if not self.at else "")


GOOD = ("mx.{name}.d.test", 30, True)
CASES = [
    # DANE-EE: neither name nor date matters.
    Case("ee-key", "verified", [("3 1 1", "own")]),
    Case("ee-expired", "verified", [("3 1 1", "own")], certificate=("wrong.test", 0, False)),
    Case("ee-certificate", "verified", [("3 0 2", "own")]),
    Case("ee-whole", "verified", [("3 0 0", "own")]),
    Case("ee-whole-key", "verified", [("3 1 0", "own")]),
    Case("ee-mismatch", "refused", [("3 1 1", "other")]),
    Case("ee-one-of-two", "verified", [("3 1 1", "other"), ("3 1 1", "own")]),
    # RFC 7671 section 9: the strongest digest decides.
    Case("agile-good", "verified", [("3 1 2", "own"), ("3 1 1", "other")]),
    Case("agile-bad", "refused", [("3 1 1", "own"), ("3 1 2", "other")]),
    # DANE-TA: both matter.
    Case("ta-good", "verified", [("2 0 1", "ca")], certificate=GOOD),
    Case("ta-domain", "verified", [("2 1 1", "ca")], certificate=("{name}.d.test", 30, True)),
    Case("ta-name", "refused", [("2 0 1", "ca")], certificate=("wrong.test", 30, True)),
    Case("ta-expired", "refused", [("2 0 1", "ca")], certificate=("mx.{name}.d.test", 0, True)),
    Case("ta-other", "refused", [("2 0 1", "other")], certificate=GOOD),
    # Of no use for mail: TLS, whoever it is with.
    Case("pkix", "encrypted", [("1 1 1", "other"), ("0 0 1", "other")]),
    Case("pkix-plain", "refused", [("1 1 1", "other")], certificate=None),
    Case("strange", "encrypted", [("3 1 7", "abcd"), ("3 9 1", "ab" * 32), ("9 1 1", "ab" * 32)]),
    Case("short", "encrypted", [("3 1 1", "abcd")]),
    Case("mixed", "refused", [("1 1 1", "own"), ("3 1 1", "other")]),
    # No TLS at all.
    Case("no-starttls", "refused", [("3 1 1", "own")], certificate=None),
    Case("nothing", "encrypted", []),
    Case("nothing-plain", "plain", [], certificate=None),
    # Aliases: the records are those of the host, else of its own name.
    Case("alias", "verified", [("3 1 1", "own")], mx="alias"),
    Case("alias-own", "verified", [("3 1 1", "own")], mx="own"),
    # DNSSEC: what it does not prove is not there, what it proves wrong is no reason to do without.
    Case("unsigned-zone", "encrypted", [("3 1 1", "other")], domain="plain.d.test"),
    Case("unsigned-mx", "encrypted", [], domain="plain.d.test", mx="mx.ee-mismatch.d.test."),
    Case("bogus-records", "refused", [("3 1 1", "own")], at="bogus"),
    Case("lost-records", "refused", [("3 1 1", "own")], at="broken"),
    # Required.
    Case("required", "verified", [("3 1 1", "own")], level="dane-only"),
    Case("required-none", "refused", [], level="dane-only"),
    Case("required-pkix", "refused", [("1 1 1", "own")], level="dane-only"),
]


def open_world(flow, c, cases):
    for case in cases:
        case.open(flow, c)
    zones = [Zone("d.test", "".join(x.zone() for x in cases if x.parent == "d.test")),
             Zone("plain.d.test", "".join(x.zone() for x in cases if x.parent != "d.test"), "plain")]
    for case in cases:
        if case.at:
            records = "".join(f"_{case.peer.port} TLSA {t}\n" for t in case.tlsa)
            zones.append(Zone(f"_tcp.mx.{case.domain}", records, case.at))
    return NameServer(flow, *zones)


def found_by_finger(status, text):
    """In words of ours; it goes on where a peer proves nothing, and says so."""
    if "Verified TLS connection established" in text:
        return "verified"
    if "TLSA lookup error" in text or 'resorting to "secure"' in text or \
            re.search("(server|CA) certificate verification failed", text):
        return "refused"
    if "Untrusted TLS connection established" in text:
        return "encrypted"
    # Without TLS it has nothing to say of it.
    expect_equal(text.replace("posttls-finger: warning: ", "").strip().count("TLS connection"), 0, text)
    return f"no TLS ({status})"


def found_by_us(daemon, case, rows):
    """What became of the message to one domain; `rows`: lines of the log by domain."""
    if rows[case.domain][4] == "T":
        expect_equal(case.peer.mails, [], f"mail of {case.name}")
        return "refused"
    expect_equal(len(case.peer.mails), 1, f"mail of {case.name}")
    tls = daemon.console("domain", case.domain)["connections"][0]["tls"]
    expect_equal(tls == "plain", case.peer.secured == [], f"{case.name}: {tls}")
    return "plain" if tls == "plain" else "verified" if tls.endswith(", dane") else "encrypted"


def deliver(flow, c, names, cases):
    """A message to each domain; the daemon, and the line of its log for each."""
    text = "".join(f'domain "{x.domain}" {{ remote_smtp_port = {x.peer.port} '
                   f'{"tls = dane" if x.level == "dane-only" else ""} }}\n' for x in cases)
    daemon = Daemon(flow, text=f'{names.resolver("max_pending = 64 timeout = 60s")} retry_interval = 1h idle_timeout = 1h address_family = ipv4\n{text}')
    for case in cases:
        send(daemon, case.domain)

    def rows():
        found = {r[5]: r for r in daemon.lines("D") + daemon.lines("T")}
        return found if len(found) == len(cases) else None
    return daemon, wait_until(rows, "a line for each domain")


def test_agrees_with_posttls_finger(flow):
    c = Certificates(flow)
    names = open_world(flow, c, CASES)
    finger = Finger(flow, names)
    for case in CASES:
        case.finger = found_by_finger(*finger.look(case.domain, case.peer.port, case.level))
        case.peer.secured.clear()
    daemon, rows = deliver(flow, c, names, CASES)
    print(f"{'case':16} {'posttls-finger':16} flywheel")
    for case in CASES:
        ours = found_by_us(daemon, case, rows)
        print(f"{case.name:16} {case.finger:16} {ours:10} {rows[case.domain][13] if ours == 'refused' else ''}")
        expect_equal(ours, case.expected, f"{case.name}: ours")
        if not case.finger.startswith("no TLS"):
            expect_equal(case.finger, case.expected, f"{case.name}: posttls-finger's")
    expect(sum(not x.finger.startswith("no TLS") for x in CASES) >= 24, "cases that can be compared")
    told = {case: told_of(daemon, f"{case}.d.test").get("tlsa") for case in (
        "ee-key", "ee-mismatch", "ta-name", "ta-expired", "pkix", "no-starttls", "nothing", "bogus-records", "required-none")}
    expect_equal(told, {
        "ee-key": (1, {}), "ee-mismatch": (0, {"validation-failure": 1}), "ta-name": (0, {"certificate-host-mismatch": 1}),
        "ta-expired": (0, {"certificate-expired": 1}), "pkix": (0, {"tlsa-invalid": 1}),
        "no-starttls": (0, {"starttls-not-supported": 1}), "nothing": None, "bogus-records": (0, {"dnssec-invalid": 1}),
        "required-none": (0, {"dane-required": 1})}, "reported")
    counts = daemon.counters("scheduler*.outbound.*")
    expect_equal(counts["scheduler.outbound.dane_verified"], sum(x.expected == "verified" for x in CASES), "verified")
    expect_equal(counts["scheduler.outbound.dane_unusable"], 3, "unusable: pkix, strange, short")
    expect_equal(counts["scheduler.outbound.dane_lookups_failed"], 2, "look-ups that failed")
    expect_equal(counts["scheduler.outbound.route_dane"], 4, "domains without a host: those, and two of required")
    expect_equal(counts["scheduler.outbound.dane_failed"], 8, "failures")
