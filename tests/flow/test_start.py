"""Starting: configurations that are wrong, and machines that are not as they should be. Whatever is
in the way is named, and what can be done without, is."""

import os
import pathlib
import re
import resource
import signal
import subprocess

from flow import Daemon, Skip, expect, expect_equal, wait_until
from peer import Peer
from seccomp import NOT_PERMITTED, check_permitted, deny_io_uring, need_filter

HELLO = "Subject: hello\r\n\r\nhello\r\n"

# A configuration, the line of its error, what that names, and what it says.
BROKEN = [
    ('hostnam = "x.test"', 1, 'option "hostnam"', 'did you mean "hostname"'),
    ('\n\nmemory_budget = "12Q"', 3, 'option "memory_budget"', "expected a size"),
    ("ring_slots = 100", 1, 'option "ring_slots"', "expected a power of two from 64 to 65536"),
    ("ring_slots = 32", 1, 'option "ring_slots"', "from 64"),
    ("# nothing\nspool { path = }", 2, 'option "path"', "expected a value"),
    ('log {\npath = "/x"\n', 1, "scope log", "expected }"),
    ("domain { }", 1, "scope domain", "needs a name"),
    ('multiplexor = "select"', 1, 'option "multiplexor"', "expected one of auto, uring, epoll, poll"),
    ("agent scheduler { count = 0 }", 1, 'option "count"', "too small"),
    ("agent scheduler {\ncount = 2\ncores = ( 0 )\n}", 3, 'option "cores"', "expected one for each agent"),
    ('agent wheel { group = "nowhere" }', 1, 'option "group"', 'expected group "nowhere"'),
    ("agent helper { }", 1, 'scope agent "helper"', "expected one of master, scheduler, spool"),
    ("agent wheel { count = 2 }", 1, 'option "count"', "expected 1"),
    ('esmtp_listener { listen "127.0.0.1" { } }', 1, 'listen "127.0.0.1"', "names no port"),
    ('esmtp_listener {\nlisten "127.0.0.1:99999" { } }', 2, 'listen "127.0.0.1:99999"', "0 to 65535"),
    ('esmtp_listener "a" { listen "127.0.0.1:1" { } }\nesmtp_listener "b" { listen "127.0.0.1:1" { } }', 2,
     'listen "127.0.0.1:1"', "address once"),
    ('esmtp_listener { listen "127.0.0.1:25" { peer "1.2.3/99" { } } }', 1, 'peer "1.2.3/99"', "expected a network"),
    ('relay_hosts = ( "10.0.0.0/8"\n"300.0.0.0/8" )', 2, 'option "relay_hosts"', "expected a list of networks"),
    ('gateway = "127.0.0.1:0"', 1, 'option "gateway"', "1 to 65535"),
    ('outbound_throttle_messages = "0/sec"', 1, 'option "outbound_throttle_messages"', "expected a rate"),
    ('include "nowhere.conf"', 1, 'include "', "expected a file"),
    ("}", 1, "}", "expected a scope"),
    ('hostname = "a b"', 1, 'option "hostname"', "expected a host name"),
    ('idle_time = "-1s"', 1, 'option "idle_time"', "expected a time"),
    ('retry_interval = "10 parsecs"', 1, 'option "retry_interval"', "expected a time"),
    ("suspend_delivery = maybe", 1, 'option "suspend_delivery"', "expected true or false"),
    ('banner = "never closed', 1, "quoted text", 'expected "'),
    ("/* never closed", 1, "comment", "expected */"),
    ('domain "x.test" { hostname = "y.test" }', 1, 'option "hostname"', "not possible here"),
    ('retry_interval = "10h"\nmax_retry_interval = "1h"', 1, 'option "retry_interval"', "longer than max_retry"),
    ('agent scheduler { idle = "snooze" }', 1, 'option "idle"', "expected one of busy-spin"),
    ("file_mode = 999", 1, 'option "file_mode"', "octal"),
    ('mailerdaemon = "nobody"', 1, 'option "mailerdaemon"', "expected an address"),
    ("hostname", 1, "hostname", "expected"),
    ('domain "x.test" { gateway = ( "127.0.0.1:25" }', 1, "gateway", "expected"),
]


def check(flow, text, *words):
    """flywheeld --check of a configuration: (exit status, output, errors)."""
    config = flow.path / "checked.conf"
    config.write_text(text)
    done = subprocess.run([flow.program("flywheeld"), "--config", config, *(words or ["--check"])],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr.replace(str(config), "FILE")


def test_says_what_is_wrong_with_a_configuration_and_where(flow):
    wrong = []
    for text, line, names, says in BROKEN:
        status, out, errors = check(flow, text)
        first = errors.split("\n")[0]
        if status != 1 or out or not first.startswith(f"FILE:{line}: ") or names not in first or says not in first:
            wrong.append(f"{text!r}: status {status}, {out!r}, {errors!r}")
    expect(not wrong, "\n".join(wrong))


test_says_what_is_wrong_with_a_configuration_and_where.short = True


def test_says_all_that_is_wrong_at_once(flow):
    text = 'hostname = "a b"\nring_slots = 3\nspool {\n  min_free = lots\n  paht = "x"\n}\n' \
           'domain "x" { gateway = 1:2:3 }\n'
    status, _, errors = check(flow, text)
    expect_equal(status, 1, "exit status")
    lines = [int(m[1]) for m in re.finditer(r"^FILE:(\d+): ", errors, re.M)]
    expect_equal(lines, [1, 2, 4, 5, 7], f"lines with errors in {errors}")


def test_refuses_more_agents_than_it_can_run(flow):
    """The limits are said as any other mistake, not found out by a crash."""
    for agent in ("scheduler", "spool", "pool"):
        for words in (["--check"], None):
            text = f'agent {agent} {{ count = 200 }}\n' \
                   f'spool {{ path = "{flow.path}/spool" }}\nlog {{ path = "{flow.path}/log" }}'
            status, _, errors = check(flow, text, *(words or ["--config", flow.path / "checked.conf"]))
            expect(status == 1 and "count" in errors and "expected" in errors and "fatal" not in errors,
                   f"{agent}: status {status}, {errors}")


def test_refuses_a_configuration_that_cannot_be_read(flow):
    for path in (flow.path / "nowhere.conf", flow.path):
        done = subprocess.run([flow.program("flywheeld"), "--config", path, "--check"], capture_output=True, text=True,
                              timeout=60)
        expect(done.returncode == 1 and str(path) in done.stderr, f"{path}: {done.returncode} {done.stderr!r}")


def test_explains_itself(flow):
    for words, status, says in ((["--help"], 0, "--config FILE"), (["--version"], 0, "flywheeld 0."),
                                (["--reference"], 0, "max_outbound_connections\t"), (["--nonsense"], 2, "--help"),
                                (["extra"], 2, "unexpected argument")):
        done = subprocess.run([flow.program("flywheeld"), *words], capture_output=True, text=True, timeout=60)
        expect(done.returncode == status and says in done.stdout + done.stderr, f"{words}: {done}")
    status, out, _ = check(flow, 'esmtp_listener { listen "127.0.0.1:2525" { } }')
    expect_equal((status, out), (0, "configuration valid\n"), "--check of a valid one")


def test_shows_the_effective_configuration(flow):
    text = 'hostname = "a.test"\nspool { path = "/x" }\ndomain "y.test" { max_outbound_connections = 7 }\n' \
           'esmtp_listener { listen "127.0.0.1:2525" { } }\n'
    status, out, errors = check(flow, text, "--dump")
    expect_equal((status, errors), (0, ""), "status and errors of --dump")
    expect(re.search(r'^hostname = "a\.test"\s+#.*checked\.conf:1$', out, re.M), f"no origin of hostname in {out}")
    expect(re.search(r'max_outbound_connections = 7\s+#.*checked\.conf:3$', out, re.M), "no origin of the domain's")
    expect(re.search(r'^ring_slots = 1024\s+# default$', out, re.M), "no default of ring_slots")
    expect_equal(check(flow, out), (0, "configuration valid\n", ""), "--check of what --dump prints")
    expect_equal(re.sub("#.*", "", check(flow, out, "--dump")[1]), re.sub("#.*", "", out), "--dump of a dump")


# ---- what else may be in the way ----


def fails_to_start(flow, daemon, *says, prefix=()):
    process = flow.start("flywheeld", "--config", daemon.config, prefix=prefix)
    process.wait(60)
    output = flow.output(process)
    expect_equal(process.returncode, 1, f"exit status ({output})")
    for text in says:
        expect(str(text) in output, f"{text!r} is not in {output!r}")
    return output


def test_names_a_port_that_is_taken(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, start=False)
    daemon.config.write_text(daemon.config.read_text().replace(str(daemon.port), str(peer.port)))
    fails_to_start(flow, daemon, f"127.0.0.1:{peer.port}", "Address already in use")


test_names_a_port_that_is_taken.short = True


def test_names_a_control_socket_that_is_taken(flow):
    first = Daemon(flow)
    second = Daemon(flow, name="second", start=False)
    second.config.write_text(second.config.read_text().replace(str(second.control), str(first.control)))
    fails_to_start(flow, second, first.control, "Address already in use")
    expect_equal(first.console("version")["program"], "flywheel", "the first one's console")


def test_takes_over_a_control_socket_that_was_left(flow):
    daemon = Daemon(flow)
    daemon.kill()
    expect(daemon.control.exists(), "a kill removed the socket")
    daemon.start()
    expect_equal(daemon.console("version")["program"], "flywheel", "program")


def test_refuses_a_spool_that_another_uses(flow):
    first = Daemon(flow)
    second = Daemon(flow, name="second", spool=first.spool, start=False)
    fails_to_start(flow, second, first.spool)
    expect_equal(first.connect().say("NOOP")[0], 250, "the first one")
    first.kill()
    second.start()


test_refuses_a_spool_that_another_uses.short = True


def test_names_a_spool_that_cannot_be_written(flow):
    file = flow.path / "file"
    file.write_text("")
    daemon = Daemon(flow, spool=file / "spool", start=False)
    fails_to_start(flow, daemon, file / "spool", "not a directory")
    daemon = Daemon(flow, spool="/proc/flywheel-spool", name="proc", start=False)
    fails_to_start(flow, daemon, "/proc/flywheel-spool")


def test_names_a_spool_on_a_read_only_file_system(flow):
    spool = mount(flow, "size=8m")
    remount_read_only(flow, spool)
    daemon = Daemon(flow, spool=spool, start=False)
    fails_to_start(flow, daemon, spool, "read-only file system")


def test_names_a_log_that_cannot_be_written(flow):
    file = flow.path / "file"
    file.write_text("")
    daemon = Daemon(flow, log=file / "log", start=False)
    fails_to_start(flow, daemon, file / "log", "Not a directory")


def mount(flow, options):
    """A tmpfs of its own; skips where that is not permitted."""
    path = flow.path / "small"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    flow.closers.append(lambda: subprocess.run(["umount", "-l", path], check=False))
    return path


def remount_read_only(flow, path):
    done = subprocess.run(["mount", "-o", "remount,ro", path], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"cannot remount: {done.stderr.strip()}")


def fill(path):
    """Takes all the space that is left."""
    block = b"x" * (64 << 10)
    with open(path, "wb", buffering=0) as file:
        for size in (64 << 10, 4 << 10):
            try:
                while True:
                    file.write(block[:size])
            except OSError:
                pass


def test_puts_off_mail_while_the_disk_is_full_and_delivers_on(flow):
    """452 while space is short, deliveries go on, reception resumes by itself."""
    small = mount(flow, "size=48m")
    deferring = [True]
    peer = Peer(flow, mail=lambda s: "450 4.2.0 later" if deferring[0] else True)
    daemon = Daemon(flow, sink_port=peer.port, spool=small / "spool", text='''
spool { segment_size = "2M" min_free = "4M" spare_segments = 0 }
max_message_size = "1M"
max_idle_commands = 1000000
retry_interval = "300ms" max_retry_interval = "300ms"''')
    client = daemon.connect()
    for _ in range(10):
        expect_equal(client.mail("to@full.test", body=HELLO)[0], 250, "reply while there is room")
    fill(small / "ballast")

    def put_off():
        client.say("EHLO client.test", 250)
        code, text = client.say("MAIL FROM:<from@sender.test>")
        client.say("RSET", 250)
        return code == 452 and "4.3.1" in text
    wait_until(put_off, "452 at MAIL")
    deferring[0] = False
    peer.wait(10)
    daemon.wait_for_rest()
    expect(put_off(), "mail is taken though the disk is full")
    os.unlink(small / "ballast")
    wait_until(lambda: not put_off(), "mail to be taken again")
    expect_equal(client.mail("to@full.test", body=HELLO)[0], 250, "reply when there is room again")
    peer.wait(11)
    # Filled while mail pours in: what was answered with 250 arrives, what was not was put off.
    accepted = fill_under_load(client, small)
    peer.wait(11 + accepted)
    daemon.wait_for_rest()
    expect_equal(len(peer.mails), 11 + accepted, "messages at the peer")


def fill_under_load(client, small):
    body = "Subject: big\r\n\r\n" + ("x" * 70 + "\r\n") * 1000
    accepted = 0
    for i in range(60):
        if i == 10:
            fill(small / "ballast")
        if i == 40:
            os.unlink(small / "ballast")
        client.say("EHLO client.test", 250)
        if client.say("MAIL FROM:<from@sender.test>")[0] != 250:
            continue
        client.say("RCPT TO:<to@full.test>", 250)
        if client.say("DATA")[0] != 354:
            client.say("RSET", 250)
            continue
        client.send(body)
        code, text = client.say(".")
        expect(code in (250, 451, 452), f"reply on a full disk: {code} {text}")
        accepted += code == 250
    expect(accepted >= 10, f"{accepted} accepted")
    return accepted


def test_logs_what_happened_while_the_log_disk_was_full(flow):
    """Mail flows on; what could not be written down is, when there is room again."""
    small = mount(flow, "size=1m")
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, log=small / "log")
    daemon.connect().mail("to@log.test", body=HELLO)
    daemon.wait_lines("D", 1)
    fill(small / "ballast")
    client = daemon.connect()
    for _ in range(200):
        expect_equal(client.mail("to@log.test", body=HELLO)[0], 250, "reply while the log disk is full")
    peer.wait(201)
    wait_until(lambda: daemon.counters("log.write_errors")["log.write_errors"] > 0, "failed writes")
    expect("No space left" in str(daemon.console("errors")), "the console does not tell")
    os.unlink(small / "ballast")
    daemon.wait_lines("D", 201)
    expect_equal(len(daemon.lines("R")), 201, "R lines")
    expect_equal({len(line) for line in daemon.lines("D")}, {12}, "fields of D lines")


def test_runs_on_where_it_cannot_pin_its_threads(flow):
    daemon = Daemon(flow, schedulers=1, extra_agents="agent spool { core = 1023 }\nagent wheel { core = 1022 }")
    expect_equal(daemon.connect().say("NOOP")[0], 250, "reply")
    wait_until(lambda: "1023" in daemon.output() and "warning" in daemon.output(), "a warning about core 1023", 20)
    threads = {t["thread"]: t for t in daemon.console("threads")["threads"]}
    expect_equal(threads["spool.0"]["pinned"], False, "pinned")


def test_says_when_files_are_few(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, start=False)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = 400
    daemon.start(prefix=["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]
                 + ["prlimit", f"--nofile={limit}:{limit}"])
    expect(hard == resource.RLIM_INFINITY or hard > limit, "the test's own limit is lower")
    output = daemon.output()
    expect(f"only {limit} file descriptors" in output and "server_max_file_descriptors" in output, f"it says {output}")
    # More clients than files: some wait, nothing breaks.
    clients = [daemon.connect(greet=False) for _ in range(500)]
    greeted = sum(1 for c in clients[:200] if c.reply()[0] == 220)
    expect_equal(greeted, 200, "clients that were greeted")
    for client in clients:
        client.close()
    daemon.wait_for_clients()
    expect_equal(daemon.connect().mail("to@files.test", body=HELLO)[0], 250, "reply")
    peer.wait(1)


def start_denied(daemon):
    need_filter()
    daemon.launch(prepare=deny_io_uring)
    wait_until(lambda: "running, process" in daemon.output() or daemon.ended(), "flywheeld to run")
    check_permitted(daemon.process)
    expect(not daemon.ended(), f"flywheeld ended:\n{daemon.output()}")


def test_does_without_io_uring_and_says_so_once(flow):
    peer = Peer(flow)
    daemon = Daemon(flow, sink_port=peer.port, schedulers=2, start=False)
    start_denied(daemon)
    flow.load(daemon, "--messages", 500, "--domains", 10)
    peer.wait(500)
    daemon.wait_for_rest()
    said = [line for line in daemon.output().split("\n") if "io_uring is denied" in line]
    expect(len(said) == 1 and "epoll" in said[0], f"it says {daemon.output()}")
    daemon.kill()
    start_denied(daemon)
    expect_equal(daemon.terminate()[0], 0, "exit status without io_uring")


test_does_without_io_uring_and_says_so_once.short = True


def test_refuses_a_multiplexor_that_does_not_work(flow):
    """Asked for io_uring by name, it does not quietly take another."""
    need_filter()
    daemon = Daemon(flow, backend="uring", start=False)
    done = subprocess.run([flow.program("flywheeld"), "--config", daemon.config], capture_output=True, text=True,
                          timeout=60, preexec_fn=deny_io_uring)
    if done.returncode == NOT_PERMITTED:
        raise Skip("seccomp filters are not permitted")
    expect(done.returncode == 1 and "io_uring is denied" in done.stderr, f"{done.returncode} {done.stderr!r}")


def test_stops_on_a_signal_at_any_time(flow):
    """SIGTERM while it starts, SIGINT when idle: exit status 0, sockets gone."""
    daemon = Daemon(flow, start=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        daemon.start()
        daemon.process.send_signal(number)
        daemon.process.wait(60)
        expect_equal(daemon.process.returncode, 0, f"exit status after {number}")
        expect(not daemon.control.exists(), "the control socket is still there")
    expect(pathlib.Path(daemon.spool).is_dir(), "no spool")
