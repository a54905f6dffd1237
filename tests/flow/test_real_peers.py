"""flywheel among programs that others wrote: swaks and Postfix as clients, Postfix as the next hop."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess

from flow import PATIENCE, Daemon, Skip, expect, expect_equal, free_port, wait_until
from peer import Mail, Peer
from test_bounces import HELLO, check_report

# A body with what is easily lost: octets above 127, dots, empty and long lines.
UNUSUAL = ("Grüße, ".encode() + bytes(range(0xA1, 0x100)) + b"\r\n.\r\n..\r\n.dot\r\n\r\nFrom here\r\n  \r\n"
           + b"z" * 990 + b"\r\n")


def swaks(port, *options, wanted=0):
    """Runs swaks to its end with flywheel as its server; what it printed."""
    if not shutil.which("swaks"):
        raise Skip("swaks is not installed")
    command = ["swaks", "--server", f"127.0.0.1:{port}", "--helo", "swaks.test", "--from", "from@sender.test",
               *map(str, options)]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
                          env={**os.environ, "HOME": "/nonexistent"})
    text = (done.stdout + done.stderr).decode(errors="replace")
    expect(done.returncode == wanted, f"{' '.join(command)}: status {done.returncode}, wanted {wanted}:\n{text}")
    return text


class Postfix:
    """A Postfix of the test's own: folder, queue, port, log. It takes mail for the domains of BOXES and
    writes it to a maildir for each line there; other recipients in them it refuses. All other mail goes
    to `relay`, a port."""

    BOXES = {r"^[^@]+@d[0-2]\.example$": "load", r"^from@sender\.test$": "home", r"^good@box\.test$": "box"}
    DOMAINS = "d0.example d1.example d2.example sender.test box.test"
    SERVICES = ("pickup", "cleanup", "qmgr", "tlsmgr", "rewrite trivial-rewrite", "bounce", "defer bounce",
                "trace bounce", "verify", "flush", "proxymap", "smtp", "relay smtp", "showq", "error",
                "retry error", "virtual", "anvil", "scache")

    def __init__(self, flow, relay=None):
        if not shutil.which("postfix", path="/usr/sbin:/usr/bin"):
            raise Skip("Postfix is not installed")
        if os.getuid() != 0:
            raise Skip("Postfix runs only for root")
        # Its processes give up root and still have to pass through.
        flow.path.chmod(0o711)
        self.folder = flow.path / "postfix"
        self.config = self.folder / "config"
        self.log = self.folder / "log"
        self.mail = self.folder / "mail"
        self.port = free_port()
        for folder in ("config", "queue", "mail", "data"):
            (self.folder / folder).mkdir(parents=True)
        shutil.chown(self.mail, "nobody")
        shutil.chown(self.folder / "data", "postfix")
        (self.config / "boxes").write_text("".join(f"/{k}/ {v}/\n" for k, v in self.BOXES.items()))
        (self.config / "main.cf").write_text(f"""compatibility_level = 3.6
queue_directory = {self.folder}/queue
data_directory = {self.folder}/data
maillog_file = {self.log}
maillog_file_prefixes = {self.folder}
myhostname = postfix.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
alias_maps =
alias_database =
virtual_mailbox_domains = {self.DOMAINS}
virtual_mailbox_base = {self.mail}
virtual_mailbox_maps = regexp:{self.config}/boxes
virtual_uid_maps = static:{os.stat(self.mail).st_uid}
virtual_gid_maps = static:{os.stat(self.mail).st_uid}
relayhost = {f"[127.0.0.1]:{relay}" if relay else ""}
""")
        lines = [f"127.0.0.1:{self.port} inet n - n - - smtpd", "postlog unix-dgram n - n - 1 postlogd"]
        for service in self.SERVICES:
            name, program = (service.split() * 2)[:2]
            single = "1" if name in ("pickup", "qmgr", "tlsmgr", "verify", "anvil", "scache") else "0"
            public = "n" if name in ("pickup", "cleanup", "qmgr", "flush", "showq") else "-"
            root = "n" if name == "virtual" else "-"
            wake = {"pickup": "5", "qmgr": "300"}.get(name, "-")
            lines.append(f"{name} unix {public} {root} n {wake} {single} {program}")
        (self.config / "master.cf").write_text("\n".join(lines) + "\n")
        self.process = subprocess.Popen(["/usr/sbin/postfix", "-c", self.config, "start-fg"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        flow.closers.append(self.stop)
        wait_until(lambda: "daemon started" in self.said() or self.process.poll() is not None, "Postfix to run")
        expect(self.process.poll() is None, f"Postfix ended at start:\n{self.said()}")

    def send(self, *recipients, text):
        """Mail from here, as a program of the machine hands it in."""
        done = subprocess.run(["/usr/sbin/sendmail", "-C", self.config, "-i", "-f", "from@sender.test", *recipients],
                              input=text, timeout=PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        expect(done.returncode == 0, f"sendmail: {done.stdout.decode(errors='replace')}\n{self.said()}")

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def processes(self):
        """Those of the master's process group, the master among them."""
        pid = self.folder / "queue/pid/master.pid"
        master = pid.read_text().strip() if pid.exists() else None
        found = []
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rsplit(")", 1)[1].split()[:3]
            except OSError:
                continue
            if group == master and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def stop(self):
        """Nothing of it is left, whatever came before."""
        if self.process.poll() is None:
            subprocess.run(["/usr/sbin/postfix", "-c", self.config, "stop"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        wait_until(lambda: not self.processes(), "Postfix's processes to end")

    def files(self, box):
        return list((self.mail / box / "new").glob("*"))

    def take(self, box, count):
        """Waits for `count` messages in a maildir; all of them as they were sent to Postfix, with what it
        put above them taken off."""
        wait_until(lambda: len(self.files(box)) >= count, f"{count} messages in {box}")
        mails = []
        for file in self.files(box):
            data = file.read_bytes().replace(b"\n", b"\r\n")
            own = re.match(rb"Return-Path: <(.*)>\r\nX-Original-To: .*\r\nDelivered-To: (.*)\r\n"
                           rb"Received: .*\r\n(?:[ \t].*\r\n)*", data)
            expect(own, f"not what Postfix writes: {data[:500]!r}")
            mails.append(Mail(own[1].decode(), [own[2].decode()], data[own.end():], 0))
        return mails

    def check(self):
        """It found nothing wrong with what was said to it."""
        for line in self.said().splitlines():
            expect(not re.search("lost connection|timeout|improper|non-SMTP|too many errors|fatal|panic", line), line)


CRC_32C = [0] * 256
for i in range(256):
    c = i
    for _ in range(8):
        c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
    CRC_32C[i] = c


def body_sum(body):
    """As fwload computes it."""
    c = 0xFFFFFFFF
    for octet in body:
        c = c >> 8 ^ CRC_32C[(c ^ octet) & 255]
    return f"{c ^ 0xFFFFFFFF:08x}"


def test_swaks_sends_mail(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port)
    data = flow.path / "data"
    data.write_bytes(b"Subject: swaks\r\nX-Mine: yes\r\n\r\n" + UNUSUAL)
    sent = 0
    for options in ((), ("--pipeline",), ("--protocol", "SMTP"), ("--protocol", "ESMTP", "--pipeline")):
        swaks(daemon.port, "--to", "one@a.test,two@a.test,three@a.test", "--data", f"@{data}", *options)
        sent += 1
        mail = peer.wait(sent)[-1]
        expect_equal((mail.sender, sorted(mail.recipients)),
                     ("from@sender.test", ["one@a.test", "three@a.test", "two@a.test"]), f"envelope, {options}")
        expect_equal(mail.parse()["X-Mine"], "yes", f"header, {options}")
        # swaks ends what it sends with one more line break.
        expect_equal(mail.body.rstrip(b"\r\n"), UNUSUAL.rstrip(b"\r\n"), f"body, {options}")
    daemon.wait_for_rest()
    expect_equal(len(peer.mails), sent, "messages")
    expect_equal(daemon.counter("scheduler.delivered"), 3 * sent, "deliveries")


def test_swaks_sends_what_is_unusual(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, listener='max_message_size = "100k"')
    large = flow.path / "large"
    large.write_bytes(b"Subject: large\r\n\r\n" + b"0123456789abcde\r\n" * 10000)
    attached = flow.path / "attached.bin"
    attached.write_bytes(bytes(range(256)) * 8)
    to = ("--to", "to@a.test")
    swaks(daemon.port, *to, "--from", "<>")
    expect_equal(peer.wait(1)[0].sender, "", "sender")
    swaks(daemon.port, *to, "--attach-type", "application/octet-stream", "--attach", f"@{attached}", "--body", "text")
    parts = [p.get_content() for p in peer.wait(2)[1].parse().iter_parts()]
    expect(parts[0].strip() == "text" and parts[1] == attached.read_bytes(), f"parts: {parts}")
    swaks(daemon.port, *to, "--add-header", "X-Odd: " + "odd " * 200, "--data", "X: y\\n%NEW_HEADERS%\\n",
          "--silent", 3)
    expect_equal(peer.wait(3)[2].parse()["X-Odd"].split(), ["odd"] * 200, "X-Odd")
    # Some recipients are refused: the others have it. All are: nobody has.
    swaks(daemon.port, "--to", "not an address,to@a.test,@", "--pipeline")
    expect_equal(peer.wait(4)[3].recipients, ["to@a.test"], "recipients")
    swaks(daemon.port, "--to", "not an address", wanted=24)
    swaks(daemon.port, "--to", "not an address,@", "--pipeline", wanted=24)
    swaks(daemon.port, *to, "--from", "not an address", wanted=23)
    swaks(daemon.port, *to, "--data", f"@{large}", wanted=26)
    swaks(daemon.port, *to, "--auth", "PLAIN", "--auth-user", "u", "--auth-password", "p", wanted=28)
    swaks(daemon.port, *to, "--auth-optional", "PLAIN", "--auth-user", "u", "--auth-password", "p")
    peer.wait(5)
    swaks(free_port(), *to, wanted=2)
    daemon.wait_for_rest()
    daemon.wait_for_clients()
    expect_equal(len(peer.mails), 5, "messages")


def test_swaks_leaves_at_every_stage(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port)
    for way in ("--quit-after", "--drop-after", "--drop-after-send"):
        for stage in ("BANNER", "HELO", "MAIL", "RCPT", "DATA", "DOT"):
            if way == "--quit-after" and stage in ("DATA", "DOT") or way == "--drop-after-send" and stage == "BANNER":
                continue
            for options in ((), ("--pipeline",)):
                swaks(daemon.port, "--to", f"to@{stage.lower()}.test", way, stage, *options)
    daemon.wait_for_clients()
    # A message is taken when all of it has come, and with it the dot: whether the client heard so or not.
    peer.wait(4)
    daemon.wait_for_rest()
    expect_equal({r for m in peer.mails for r in m.recipients}, {"to@dot.test"}, "recipients")
    expect_equal(len(peer.mails), 4, "messages")


def test_postfix_takes_mail(flow):
    postfix = Postfix(flow)
    daemon = Daemon(flow, sink_port=postfix.port)
    flow.load(daemon, "--messages", 200, "--domains", 3, "--id-prefix", "real")
    mails = postfix.take("load", 200)
    daemon.wait_for_rest()
    ids = []
    for mail in mails:
        header = mail.parse()
        expect_equal(len(header.get_all("X-Fwload-Id")), 1, "X-Fwload-Id of a message")
        ids.append(header["X-Fwload-Id"])
        expect_equal(body_sum(mail.body), header["X-Fwload-Sum"], f"sum of {header['X-Fwload-Id']}")
        expect_equal(mail.sender, "sender@load.example", "sender")
    expect_equal(sorted(ids), sorted(f"real-{n}" for n in range(200)), "ids")
    wait_until(lambda: daemon.count("D") == 200, "200 D lines")
    daemon.connect().mail("good@box.test", body=b"Subject: unusual\r\n\r\n"
                          + re.sub(rb"(?m)^\.", b"..", UNUSUAL))
    expect_equal(postfix.take("box", 1)[0].body, UNUSUAL, "body")
    daemon.wait_for_rest()
    expect_equal(daemon.count("P"), 0, "P lines")
    postfix.check()


def test_postfix_refuses_recipients(flow):
    """The sender is told, and Postfix takes the notification as well."""
    postfix = Postfix(flow)
    daemon = Daemon(flow, sink_port=postfix.port)
    daemon.connect().mail(["one@box.test", "good@box.test", "two@box.test"], body=HELLO)
    reports = postfix.take("home", 1)
    expect_equal(postfix.take("box", 1)[0].recipients, ["good@box.test"], "who has it")
    groups = check_report(reports[0], ["one@box.test", "two@box.test"], "5.1.1", "smtp; 550 5.1.1 <")
    for group in groups[1:]:
        said = " ".join(group["Diagnostic-Code"].split())
        expect(said.endswith("User unknown in virtual mailbox table"), f"what Postfix said: {said}")
    # Every recipient of a message.
    daemon.connect().mail("three@box.test", body=HELLO)
    wait_until(lambda: len(postfix.files("home")) == 2, "the second notification")
    daemon.wait_for_rest()
    wait_until(lambda: (daemon.count("D"), daemon.count("P")) == (3, 3), "three D and three P lines")
    expect_equal(len(postfix.files("box")), 1, "messages in the box")
    postfix.check()


def test_postfix_sends_mail(flow):
    peer = Peer(flow, rcpt=lambda x: "550 5.1.1 no such user" if x.rcpt.startswith("no") else True)
    daemon = Daemon(flow, sink_port=peer.port)
    postfix = Postfix(flow, relay=daemon.port)
    body = UNUSUAL.replace(b"\r\n", b"\n")
    for number in range(50):
        postfix.send(f"a{number}@a.test", "b@a.test", "c@c.test",
                     text=f"Subject: {number}\nX-Number: {number}\n\n".encode() + body)
    mails = peer.wait(100)
    daemon.wait_for_rest()
    expect_equal(len(peer.mails), 100, "messages")
    found = sorted((int(m.parse()["X-Number"]), r) for m in mails for r in m.recipients)
    expect_equal(found, sorted((n, r) for n in range(50) for r in (f"a{n}@a.test", "b@a.test", "c@c.test")), "mail")
    for mail in mails:
        expect_equal((mail.sender, mail.body), ("from@sender.test", UNUSUAL), "sender and body")
    # What flywheel cannot deliver comes back to the sender, at this peer as well.
    postfix.send("no@a.test", text=HELLO.replace("\r\n", "\n").encode())
    check_report(peer.wait(101)[100], ["no@a.test"], "5.1.1", "550 5.1.1 no such user")
    daemon.wait_for_rest()
    wait_until(lambda: not [f for q in ("maildrop", "incoming", "active", "deferred")
                            for f in (postfix.folder / "queue" / q).rglob("*") if f.is_file()], "an empty queue")
    postfix.check()
