"""Receivers that others wrote, each a program of the test's own, with folder and port: Exim and aiosmtpd
(Postfix is in test_real_peers.py)."""

import fcntl
import os
import pathlib
import pwd
import shutil
import signal
import subprocess

from flow import ROOT, Skip, can_connect, expect, free_port, wait_until

# Exim cannot be installed beside another mail transfer agent: it is unpacked, once for a build folder.
EXIM_PACKAGE = "exim4-daemon-light"
EXIM_FOLDER = ROOT / "build" / "exim"


def exim_program():
    program = EXIM_FOLDER / "usr/sbin/exim4"
    EXIM_FOLDER.mkdir(parents=True, exist_ok=True)
    with open(EXIM_FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            done = subprocess.run(f"apt-get download -q {EXIM_PACKAGE} && dpkg -x {EXIM_PACKAGE}_*.deb .", shell=True,
                                  cwd=EXIM_FOLDER, capture_output=True, text=True)
            if done.returncode != 0:
                raise Skip(f"{EXIM_PACKAGE} cannot be unpacked: {' '.join(done.stderr.split())[:200]}")
    return program


class Receiver:
    """Takes mail for everybody into one maildir."""

    def start(self, flow, command, **options):
        with open(self.folder / "out", "wb") as output:
            self.process = subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            start_new_session=True, **options)
        flow.closers.append(self.stop)
        wait_until(lambda: can_connect(self.port) or self.process.poll() is not None, "the receiver to listen")
        expect(self.process.poll() is None, f"{type(self).__name__} ended: {(self.folder / 'out').read_text()}")

    def stop(self):
        """It and its children."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def files(self):
        return list((self.box / "new").glob("*"))

    def take(self, count):
        """Waits for `count` messages; all of them, with what the receiver put above them."""
        wait_until(lambda: len(self.files()) >= count, f"{count} messages at {type(self).__name__}")
        return [file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for file in self.files()]


class Exim(Receiver):
    """Its user need not exist on the machine: libnss_wrapper tells it of one."""

    EXTENSIONS = ("8BITMIME", "CHUNKING", "DSN", "SMTPUTF8")
    PRELOAD = "libnss_wrapper.so"

    def __init__(self, flow, certificates=None):
        if os.getuid() != 0:
            raise Skip("Exim runs only for root")
        program = exim_program()
        self.port = free_port()
        self.folder = flow.path / f"exim-{self.port}"
        self.box = self.folder / "box"
        self.log = self.folder / "mainlog"
        # Deliveries give up root and still have to pass through.
        flow.path.chmod(0o711)
        self.folder.mkdir()
        nobody = pwd.getpwnam("nobody")
        for path in (self.folder, self.folder / "spool"):
            path.mkdir(exist_ok=True)
            shutil.chown(path, nobody.pw_uid, nobody.pw_gid)
        for name, line in (("passwd", f"Debian-exim:x:{nobody.pw_uid}:{nobody.pw_gid}::/:/bin/false\n"),
                           ("group", f"Debian-exim:x:{nobody.pw_gid}:\n")):
            (self.folder / name).write_text(pathlib.Path(f"/etc/{name}").read_text() + line)
        tls = "tls_advertise_hosts =\n"
        if certificates:
            tls = f"tls_advertise_hosts = *\ntls_certificate = {self.own(certificates.make('localhost'))}\n" \
                  f"tls_privatekey = {self.own(certificates.key)}\n"
        (self.folder / "config").write_text(f"""primary_hostname = exim.test
exim_path = {program}
exim_user = root
exim_group = root
keep_environment = LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
spool_directory = {self.folder}/spool
log_file_path = {self.folder}/%slog
pid_file_path = {self.folder}/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.port}
host_lookup =
dsn_advertise_hosts = *
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = take
{tls}begin acl
take:
  accept
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = {self.box}
  maildir_format
  create_directory
  user = nobody
""")
        wrapper = {"LD_PRELOAD": self.PRELOAD, "NSS_WRAPPER_PASSWD": f"{self.folder}/passwd",
                   "NSS_WRAPPER_GROUP": f"{self.folder}/group"}
        done = subprocess.run([program, "-C", self.folder / "config", "-bV"], env={**os.environ, **wrapper},
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip(f"Exim does not run here: {' '.join((done.stdout + done.stderr).split())[-200:]}")
        self.start(flow, [program, "-C", self.folder / "config", "-bdf", "-q1h"], env={**os.environ, **wrapper})

    def own(self, path):
        """A copy that it may read."""
        copy = self.folder / path.name
        shutil.copy(path, copy)
        shutil.chown(copy, "nobody")
        return copy

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


KEEPER = """import pathlib, tempfile

class Keeper:
    def __init__(self, box):
        self.box = pathlib.Path(box)

    @classmethod
    def from_cli(cls, parser, *words):
        return cls(*words)

    async def handle_DATA(self, server, session, envelope):
        with tempfile.NamedTemporaryFile(dir=self.box / "tmp", delete=False) as file:
            file.write(envelope.original_content)
        path = pathlib.Path(file.name)
        path.rename(self.box / "new" / path.name)
        return "250 kept"
"""


class Aiosmtpd(Receiver):
    """Python's, with TLS where it has certificates. Its own handlers write messages anew; this one keeps bytes."""

    EXTENSIONS = ("8BITMIME", "SMTPUTF8")

    def __init__(self, flow, certificates=None):
        self.port = free_port()
        self.folder = flow.path / f"aiosmtpd-{self.port}"
        self.box = self.folder / "box"
        for folder in ("new", "tmp"):
            (self.box / folder).mkdir(parents=True)
        (self.folder / "keeper.py").write_text(KEEPER)
        if subprocess.run(["/usr/bin/python3", "-c", "import aiosmtpd"], capture_output=True).returncode != 0:
            raise Skip("aiosmtpd is not installed")
        tls = ["--tlscert", certificates.make("localhost"), "--tlskey", certificates.key, "--no-requiretls"] \
            if certificates else []
        self.start(flow, ["/usr/bin/python3", "-m", "aiosmtpd", "-n", "-u", "-l", f"127.0.0.1:{self.port}", *tls, "-c",
                          "keeper.Keeper", self.box], env={**os.environ, "PYTHONPATH": str(self.folder)})
