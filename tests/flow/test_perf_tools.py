"""The load tools against each other: what fwload sends and fwsink checks, and what they say.

Run by hand: FLYWHEEL_BUILD=build python3 -m unittest tests/flow/test_perf_tools.py
"""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

BUILD = os.environ.get("FLYWHEEL_BUILD", "build")
PATIENCE_S = 60


def wait_until(condition, what):
    """Polls until `condition()` is true; fails the test when it never is."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("never happened: " + what)
        time.sleep(0.01)


class Sink:
    """A running fwsink; its summary once it has ended."""

    def __init__(self, *options, listen="127.0.0.1:0"):
        self.directory = tempfile.TemporaryDirectory()
        self.stats_file = self.path("stats")
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "fwsink"), "--listen", listen, "--json",
             "--stats-file", self.stats_file, *options],
            stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on (.*):(\d+)\n", line)
        if match is None:
            raise AssertionError("fwsink said " + repr(line))
        self.address = match[1] + ":" + match[2]
        self.port = int(match[2])

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def stats(self):
        with open(self.stats_file) as file:
            return json.load(file)

    def stop(self, status=0):
        """SIGTERM, unless it ended by itself; returns the summary."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(status)

    def wait(self, status=0):
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        if self.process.returncode != status:
            raise AssertionError(f"fwsink ended with {self.process.returncode}")
        return json.loads(out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.directory.cleanup()


def load(address, *options, status=0):
    """Runs fwload to its end; returns its summary."""
    done = subprocess.run(
        [os.path.join(BUILD, "fwload"), "--to", address, "--json", *options],
        stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S)
    if done.returncode != status:
        raise AssertionError(f"fwload ended with {done.returncode}: {done.stdout}")
    return json.loads(done.stdout)


class Client:
    """An SMTP client that says exactly what it is told to."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.file = self.socket.makefile("rb")

    def reply(self):
        """The code of the next reply, or None at the end of the connection."""
        while True:
            line = self.file.readline()
            if not line:
                return None
            if line[3:4] != b"-":
                return int(line[:3])

    def say(self, line):
        self.socket.sendall(line if isinstance(line, bytes) else line.encode() + b"\r\n")
        return self.reply()

    def open_transaction(self, recipient="someone@d0.example"):
        return [self.reply(), self.say("EHLO test.example"), self.say("MAIL FROM:<a@b.example>"),
                self.say(f"RCPT TO:<{recipient}>"), self.say("DATA")]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()


def capture_message():
    """One message as fwload puts it on the wire, from the first header field to the final dot."""
    server = socket.create_server(("127.0.0.1", 0))
    process = subprocess.Popen(
        [os.path.join(BUILD, "fwload"), "--to", f"127.0.0.1:{server.getsockname()[1]}",
         "--sessions", "1", "--messages", "1"], stdout=subprocess.DEVNULL)
    connection, _ = server.accept()
    with server, connection, connection.makefile("rb") as lines:
        connection.sendall(b"220 hello\r\n")
        for verb, answer in ((b"EHLO", b"250 hello"), (b"MAIL", b"250 ok"), (b"RCPT", b"250 ok"),
                             (b"DATA", b"354 go")):
            if not lines.readline().startswith(verb):
                raise AssertionError("fwload did not say " + verb.decode())
            connection.sendall(answer + b"\r\n")
        message = b""
        while not message.endswith(b"\r\n.\r\n"):
            message += lines.readline()
        connection.sendall(b"250 ok\r\n")
        lines.readline()
        connection.sendall(b"221 bye\r\n")
    if process.wait(PATIENCE_S) != 0:
        raise AssertionError("fwload was not content")
    return message


class GreetingServer:
    """A server that greets its clients when it is told to."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.unread = {}

    def accept(self):
        connection, _ = self.listener.accept()
        self.unread[connection] = b""
        return connection

    def line(self, connection, patience_s):
        """The next line, or None when none comes."""
        connection.settimeout(patience_s)
        while b"\n" not in self.unread[connection]:
            try:
                self.unread[connection] += connection.recv(65536)
            except TimeoutError:
                return None
        line, _, self.unread[connection] = self.unread[connection].partition(b"\n")
        return line + b"\n"

    def greet(self, connection):
        connection.sendall(b"220 hello\r\n")
        self.line(connection, PATIENCE_S)
        connection.sendall(b"250-hello\r\n250 PIPELINING\r\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.unread:
            connection.close()
        self.listener.close()


class TestCleanRuns(unittest.TestCase):
    def assert_clean(self, stats, messages):
        self.assertEqual(stats["distinct"], messages)
        for name in ("duplicates", "bad", "foreign", "protocol_errors"):
            self.assertEqual(stats[name], 0, name)

    def test_all_arrive_once_and_whole(self):
        with Sink("--record", "/dev/null") as sink:
            result = load(sink.address, "--messages", "3000", "--domains", "7")
            stats = sink.stop()
        self.assertEqual(result["accepted"], 3000)
        self.assertEqual(stats["messages"], 3000)
        self.assertLess(stats["bytes"], 3000 * 10240)
        self.assertGreater(stats["bytes"], 3000 * 10200)
        self.assert_clean(stats, 3000)
        self.assertEqual(stats["connections"], 20)
        self.assertEqual(len(stats["domains"]), 7)
        self.assertEqual(sum(d["messages"] for d in stats["domains"].values()), 3000)

    def test_size_on_the_wire_is_exact(self):
        message = capture_message()
        self.assertEqual(len(message), 10240 + len(".\r\n"))
        body = message.split(b"\r\n\r\n", 1)[1]
        self.assertIn(b"\r\n..", body)
        self.assertNotIn(b"\n.\r\n", body[:-5])

    def test_sizes_and_seeds(self):
        for size in ("700", "701", "2048", "100k", "3m"):
            with self.subTest(size=size), Sink() as sink:
                load(sink.address, "--messages", "40", "--size", size, "--seed", size[:3])
                self.assert_clean(sink.stop(), 40)

    def test_manners(self):
        for options in (("--no-pipelining",), ("--per-connection", "1"), ("--per-connection", "7"),
                        ("--sessions", "500"), ("--sessions", "1"), ("--from", ""),
                        ("--rate", "5000")):
            with self.subTest(options=options), Sink() as sink:
                load(sink.address, "--messages", "1000", *options)
                self.assert_clean(sink.stop(), 1000)

    def test_servers_offer_less(self):
        for options in (("--no-pipelining",), ("--no-ehlo",)):
            with self.subTest(options=options), Sink(*options) as sink:
                load(sink.address, "--messages", "500", "--recipients", "3")
                self.assert_clean(sink.stop(), 500)

    def test_recipients_are_spread_over_domains(self):
        with Sink() as sink:
            load(sink.address, "--messages", "200", "--recipients", "5", "--domains", "10")
            stats = sink.stop()
        self.assert_clean(stats, 200)
        self.assertEqual(stats["deliveries"], 1000)
        self.assertEqual(stats["recipients_per_transaction_max"], 5)
        self.assertEqual({d["recipients"] for d in stats["domains"].values()}, {100})

    def test_domain_format_without_number(self):
        with Sink() as sink:
            load(sink.address, "--messages", "10", "--domain-format", "Only.Example")
            self.assertEqual(list(sink.stop()["domains"]), ["only.example"])

    def test_ipv6(self):
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            self.skipTest("no IPv6 here")
        with Sink(listen="[::1]:0") as sink:
            load(sink.address, "--messages", "100")
            self.assert_clean(sink.stop(), 100)

    def test_rate_is_kept_and_charged_for_a_stall(self):
        with Sink("--fault", "dot:delay:300@0.002") as sink:
            result = load(sink.address, "--messages", "1000", "--rate", "1000", "--sessions", "1")
            stats = sink.stop()
        self.assert_clean(stats, 1000)
        # One session that stalls makes the messages behind it late; a closed loop would not see it.
        self.assertGreater(result["latency_us"]["p99"], 100000)
        self.assertGreaterEqual(result["seconds"], 0.99)

    def test_gathered_sessions_send_nothing_before_all_are_connected(self):
        for options in ((), ("--rate", "2000")):
            with self.subTest(options=options), GreetingServer() as server:
                program = subprocess.Popen(
                    [os.path.join(BUILD, "fwload"), "--to", server.address, "--sessions", "2",
                     "--messages", "20", "--gather", *options], stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL)
                self.addCleanup(program.wait)
                self.addCleanup(program.kill)
                first, second = server.accept(), server.accept()
                server.greet(first)
                self.assertIsNone(server.line(first, 0.3))
                greeted_ns = time.monotonic_ns()
                server.greet(second)
                self.assertTrue(server.line(first, PATIENCE_S).startswith(b"MAIL FROM"))
                # What was due meanwhile was not: the clock started here.
                server.line(first, PATIENCE_S)
                self.assertEqual(server.line(first, PATIENCE_S), b"DATA\r\n")
                first.sendall(b"250 ok\r\n250 ok\r\n354 go\r\n")
                sent = next(line for line in iter(lambda: server.line(first, PATIENCE_S), None)
                            if line.startswith(b"X-Fwload-Sent"))
                self.assertGreater(int(sent.split()[1]), greeted_ns)

    def test_gathering_ends_without_those_that_fail(self):
        with Sink("--fault", "banner:drop@0.2") as sink:
            result = load(sink.address, "--messages", "300", "--sessions", "50", "--gather")
            self.assert_clean(sink.stop(), 300)
        self.assertGreater(result["connect_failures"], 0)

    def test_idle_sessions_take_turns(self):
        with Sink() as sink:
            load(sink.address, "--messages", "500", "--sessions", "500", "--gather", "--turns",
                 "--rate", "20000")
            stats = sink.stop()
        self.assert_clean(stats, 500)
        self.assertEqual(stats["messages_per_connection_max"], 1)

    def test_times_of_both_are_on_one_clock(self):
        before = time.monotonic_ns()
        with Sink() as sink:
            result = load(sink.address, "--messages", "100")
            stats = sink.stop()
        moments = [before, result["started_ns"], stats["first_arrival_ns"],
                   stats["last_arrival_ns"], time.monotonic_ns()]
        self.assertEqual(moments, sorted(moments))

    def test_files_name_every_message(self):
        with Sink() as sink:
            accepted = sink.path("accepted")
            load(sink.address, "--messages", "300", "--accepted-file", accepted, "--id-prefix", "x")
            with open(accepted) as file:
                ids = file.read().split()
        self.assertEqual(sorted(ids), sorted(f"x-{i}" for i in range(300)))

    def test_record_is_written(self):
        with tempfile.TemporaryDirectory() as directory:
            record = os.path.join(directory, "record")
            with Sink("--record", record) as sink:
                load(sink.address, "--messages", "50", "--recipients", "2", "--sessions", "1")
                sink.stop()
            with open(record) as file:
                lines = [line.split() for line in file]
        self.assertEqual(len(lines), 50)
        self.assertEqual(lines[7][:3] + lines[7][4:], ["fw-7", "2", "u14@d0.example", "ok", "0"])
        self.assertLess(int(lines[7][3]), 10240)

    def test_ids_only(self):
        with tempfile.TemporaryDirectory() as directory:
            record = os.path.join(directory, "record")
            with Sink("--record", record, "--ids") as sink:
                load(sink.address, "--messages", "20", "--sessions", "1")
                sink.stop()
            with open(record) as file:
                self.assertEqual(file.read().split(), [f"fw-{i}" for i in range(20)])

    def test_sink_ends_when_it_has_what_it_expects(self):
        with Sink("--expect", "100") as sink:
            load(sink.address, "--messages", "100")
            self.assert_clean(sink.wait(), 100)
        with Sink("--expect-deliveries", "300") as sink:
            load(sink.address, "--messages", "100", "--recipients", "3")
            self.assert_clean(sink.wait(), 100)

    def test_stats_file_can_be_polled(self):
        with Sink() as sink:
            load(sink.address, "--messages", "10")
            wait_until(lambda: sink.stats()["messages"] == 10, "10 messages in the statistics")


class TestChecks(unittest.TestCase):
    def send(self, sink, message, recipient="someone@d0.example", pieces=None):
        with Client(sink.port) as client:
            self.assertEqual(client.open_transaction(recipient), [220, 250, 250, 250, 354])
            if pieces is None:
                self.assertEqual(client.say(message), 250)
            else:
                for i in range(0, len(message), pieces):
                    client.socket.sendall(message[i:i + pieces])
                self.assertEqual(client.reply(), 250)
            self.assertEqual(client.say("QUIT"), 221)

    def test_whole_message_is_whole_in_any_pieces(self):
        message = capture_message()
        with Sink() as sink:
            for i, pieces in enumerate((None, 1, 2, 3, 7, 1000)):
                self.send(sink, message, f"r{i}@d0.example", pieces)
            stats = sink.stop()
        self.assertEqual((stats["messages"], stats["distinct"], stats["bad"]), (6, 1, 0))
        self.assertEqual((stats["duplicates"], stats["deliveries"]), (0, 6))

    def test_changed_body_is_bad(self):
        message = capture_message()
        at = len(message) // 2
        changed = message[:at] + bytes([message[at] ^ 1]) + message[at + 1:]
        with Sink() as sink:
            self.send(sink, changed)
            self.assertEqual(sink.stop(status=1)["bad"], 1)

    def test_lost_dot_is_bad(self):
        message = capture_message()
        changed = message.replace(b"\r\n..", b"\r\n.", 1)
        self.assertNotEqual(changed, message)
        with Sink() as sink:
            self.send(sink, changed)
            self.assertEqual(sink.stop(status=1)["bad"], 1)

    def test_cut_body_is_bad(self):
        message = capture_message()
        with Sink() as sink:
            self.send(sink, message[:5000] + b"\r\n.\r\n")
            self.assertEqual(sink.stop(status=1)["bad"], 1)

    def test_added_header_is_no_harm(self):
        message = capture_message()
        with Sink() as sink:
            self.send(sink, b"Received: from here\r\n\tby there\r\n" + message)
            self.assertEqual(sink.stop()["bad"], 0)

    def test_same_message_to_same_recipient_is_a_duplicate(self):
        message = capture_message()
        with Sink() as sink:
            self.send(sink, message)
            self.send(sink, message)
            self.send(sink, message, "another@d0.example")
            stats = sink.stop()
        self.assertEqual((stats["messages"], stats["distinct"], stats["duplicates"]), (3, 1, 1))

    def test_foreign_message_is_saved_without_dot_stuffing(self):
        with tempfile.TemporaryDirectory() as directory:
            with Sink("--save", directory) as sink:
                self.send(sink, b"Subject: bounce\r\n\r\n..dot\r\n..\r\n.\r\n", pieces=1)
                self.send(sink, capture_message())
                stats = sink.stop()
            with open(os.path.join(directory, "000001.eml"), "rb") as file:
                saved = file.read()
            self.assertEqual(os.listdir(directory), ["000001.eml"])
        self.assertEqual((stats["foreign"], stats["distinct"]), (1, 1))
        self.assertEqual(saved, b"Subject: bounce\r\n\r\n.dot\r\n.\r\n")

    def test_lone_lf_does_not_end_a_message(self):
        with Sink() as sink:
            self.send(sink, b"Subject: x\r\n\r\nfirst\n.\nsecond\n.\r\nthird\r\n.\r\n")
            stats = sink.stop()
        self.assertEqual((stats["messages"], stats["protocol_errors"]), (1, 1))

    def test_talking_early_is_an_error(self):
        with Sink("--no-pipelining") as sink, Client(sink.port) as client:
            self.assertEqual(client.reply(), 220)
            client.say("EHLO test.example")
            client.say(b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n")
            self.assertEqual(client.reply(), 250)
            self.assertEqual(sink.stop()["protocol_errors"], 1)

    def test_messages_come_in_chunks(self):
        with Sink("--chunking") as sink, Client(sink.port) as client:
            client.reply()
            client.say("EHLO test.example")
            first = b"Subject: x\r\n\r\n.\r\n..a\r\n."
            client.say(b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT %d\r\n%s" % (len(first), first))
            self.assertEqual([client.reply(), client.reply()], [250, 250])
            self.assertEqual(client.say(b"BDAT 3 LAST\r\nb\r\n"), 250)
            self.assertEqual(client.say("BDAT 0 LAST"), 503)
            # The octets of a chunk that is refused are no commands.
            self.assertEqual(client.say(b"MAIL FROM:<>\r\nBDAT 6 LAST\r\nRSET\r\n"), 250)
            self.assertEqual([client.reply(), client.say("RSET")], [554, 250])
            stats = sink.stop()
        self.assertEqual((stats["messages"], stats["foreign"], stats["protocol_errors"]), (1, 1, 0))

    def test_wrong_order_is_refused(self):
        with Sink() as sink, Client(sink.port) as client:
            client.reply()
            self.assertEqual(client.say("MAIL FROM:<a@b.example>"), 503)
            client.say("EHLO test.example")
            self.assertEqual(client.say("RCPT TO:<a@b.example>"), 503)
            self.assertEqual(client.say("DATA"), 503)
            self.assertEqual(client.say("HELP"), 500)
            self.assertEqual(client.say("MAIL FROM:<\"a>b\"@b.example> BODY=8BITMIME"), 250)
            self.assertEqual(client.say("RCPT TO:nobody"), 501)

    def test_limits(self):
        with Sink("--max-size", "5000") as sink:
            result = load(sink.address, "--messages", "10", status=1)
            self.assertEqual(result["permanent_failures"], 10)
        with Sink("--max-messages-per-connection", "3") as sink:
            load(sink.address, "--messages", "100")
            self.assertEqual(sink.stop()["messages_per_connection_max"], 3)
        with Sink("--max-connections", "5") as sink:
            result = load(sink.address, "--messages", "500", "--connect-retry", "30")
            stats = sink.stop()
        self.assertGreater(stats["connections_refused"], 0)
        self.assertEqual(stats["distinct"], 500)


class TestFaults(unittest.TestCase):
    def test_every_fault_at_every_stage_is_survived(self):
        """Three in ten events fail; with --retry everything arrives all the same."""
        for stage in ("connect", "banner", "ehlo", "mail", "rcpt", "data", "body", "dot", "rset",
                      "quit"):
            for action in ("4xx", "421", "delay:5", "drop", "garbage", "flood:50", "silence"):
                with self.subTest(stage=stage, action=action), \
                        Sink("--fault", f"{stage}:{action}@0.3") as sink:
                    load(sink.address, "--messages", "40", "--sessions", "8", "--recipients", "2",
                         "--per-connection", "4", "--retry", "--retry-delay", "1",
                         "--connect-retry", "60", "--timeout", "0.1")
                    stats = sink.stop()
                    self.assertEqual(stats["distinct"], 40)
                    self.assertEqual(stats["deliveries"], 80)
                    self.assertEqual(stats["bad"], 0)

    def test_refusals_are_counted(self):
        for stage in ("mail", "rcpt", "data", "dot"):
            for options in ((), ("--no-pipelining",)):
                for action, name in (("4xx", "temporary_failures"), ("5xx", "permanent_failures")):
                    with self.subTest(stage=stage, action=action, options=options), \
                            Sink("--fault", f"{stage}:{action}") as sink:
                        result = load(sink.address, "--messages", "50", *options, status=1)
                        self.assertEqual(result[name], 50)
                        self.assertEqual(sink.stop()["messages"], 0)

    def test_drops_are_errors_without_retry(self):
        with Sink("--fault", "dot:drop") as sink:
            result = load(sink.address, "--messages", "50", status=1)
        self.assertEqual(result["errors"], 50)

    def test_recipients_by_pattern(self):
        with Sink("--reject-rcpt", "*@d1.example", "--defer-rcpt", "*@D2.example") as sink:
            result = load(sink.address, "--messages", "300", "--domains", "3", status=1)
            stats = sink.stop()
        self.assertEqual((result["accepted"], result["permanent_failures"],
                          result["temporary_failures"]), (100, 100, 100))
        self.assertEqual(stats["domains"].keys(), {"d0.example"})

    def test_partly_refused_message_reaches_the_others(self):
        with Sink("--reject-rcpt", "*@d1.example") as sink:
            result = load(sink.address, "--messages", "50", "--recipients", "3", "--domains", "3",
                          status=1)
            stats = sink.stop()
        self.assertEqual(result["permanent_failures"], 50)
        self.assertEqual((result["recipients_accepted"], stats["deliveries"]), (100, 100))

    def test_literal_reply(self):
        with Sink("--reply", r"rcpt:452-4.5.3 one\n452 4.5.3 two") as sink:
            with Client(sink.port) as client:
                self.assertEqual(client.open_transaction(), [220, 250, 250, 452, 554])
            result = load(sink.address, "--messages", "1", status=1)
        self.assertIn("452 4.5.3 two", result["first_trouble"])

    def test_endless_flood_leaves_others_alone(self):
        with Sink("--fault", "ehlo:flood@0.5") as sink:
            load(sink.address, "--messages", "200", "--timeout", "0.2", "--connect-retry", "60",
                 "--sessions", "4", "--retry")
            self.assertEqual(sink.stop()["distinct"], 200)

    def test_slow_reader_is_slow(self):
        with Sink("--slow-read", "100k") as sink:
            result = load(sink.address, "--messages", "6", "--size", "20k", "--sessions", "2")
            self.assertEqual(sink.stop()["distinct"], 6)
        self.assertGreater(result["seconds"], 0.4)

    def test_faults_repeat_with_their_seed(self):
        seen = set()
        for _ in range(2):
            with Sink("--fault", "rcpt:4xx@0.3", "--seed", "9") as sink:
                seen.add(load(sink.address, "--messages", "200", "--sessions", "1",
                              status=1)["accepted"])
        self.assertEqual(len(seen), 1)


class TestConnecting(unittest.TestCase):
    def test_nobody_listens(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            result = load(address, "--messages", "10", status=1)
        self.assertEqual((result["accepted"], result["unsent"]), (0, 10))

    def test_server_that_is_killed_and_comes_back(self):
        with tempfile.TemporaryDirectory() as directory:
            accepted = os.path.join(directory, "accepted")
            record = os.path.join(directory, "record")
            with Sink() as first:
                process = subprocess.Popen(
                    [os.path.join(BUILD, "fwload"), "--to", first.address, "--messages", "2000",
                     "--rate", "4000", "--retry", "--connect-retry", "30",
                     "--accepted-file", accepted], stdout=subprocess.DEVNULL)
                wait_until(lambda: os.path.exists(accepted) and os.path.getsize(accepted) > 500,
                           "some messages accepted")
                first.process.kill()
                first.process.wait()
                with Sink("--record", record, listen=first.address) as second:
                    self.assertEqual(process.wait(PATIENCE_S), 0)
                    self.assertGreater(second.stop()["distinct"], 0)
            with open(accepted) as file:
                ids = file.read().split()
        self.assertEqual(len(ids), 2000)
        self.assertEqual(len(set(ids)), 2000)

    def test_only_loopback(self):
        for program, option in (("fwload", "--to"), ("fwsink", "--listen")):
            done = subprocess.run([os.path.join(BUILD, program), option, "192.0.2.1:25"],
                                  stderr=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 2)
            self.assertIn("not a loopback address", done.stderr)

    def test_wrong_options(self):
        for program, options in (("fwload", ["--messages", "x"]), ("fwload", ["--size", "10"]),
                                 ("fwload", ["--domain-format", "%s"]), ("fwload", ["what"]),
                                 ("fwsink", ["--fault", "dot:explode"]),
                                 ("fwsink", ["--fault", "dot:4xx:250"]),
                                 ("fwsink", ["--fault", "dot:4xx@2"]),
                                 ("fwsink", ["--reply", "dot:hello"]), ("fwsink", ["--nonsense"])):
            with self.subTest(program=program, options=options):
                done = subprocess.run([os.path.join(BUILD, program), *options],
                                      stderr=subprocess.PIPE, stdout=subprocess.PIPE)
                self.assertEqual(done.returncode, 2)
                self.assertNotEqual(done.stderr, b"")


if __name__ == "__main__":
    unittest.main()
