"""The console on a terminal: `flywheel top`, and the prompt."""

import re
import signal
import stat
import subprocess

from flow import PATIENCE, Daemon, expect, expect_equal, wait_until
from peer import Peer
from terminal import Terminal, plain

AGENTS = re.compile(r"^Agent +Thread +CPU% +Work% +Ring in +Stalls$")


def top(flow, daemon, *words, **size):
    return Terminal(flow, flow.program("flywheel"), "-s", daemon.control, "top", *words, **size)


def prompt(flow, daemon, **environment):
    terminal = Terminal(flow, flow.program("flywheel"), "-s", daemon.control,
                        **{"PAGER": "", **environment})
    terminal.wait(terminal.at_prompt, "the prompt")
    return terminal


def queue_mail(flow, **options):
    """Three domains: mail of one goes out, of two waits."""
    peer = Peer(flow, rcpt=lambda s: "450 4.2.1 later" if "wait" in s.rcpt else True)
    daemon = Daemon(flow, sink_port=peer.port, text='retry_interval = "1h"', **options)
    for domain, count in (("gone.test", 3), ("wait-a.test", 1), ("wait-b.test", 2)):
        for _ in range(count):
            expect_equal(daemon.connect().mail(f"to@{domain}")[0], 250, "reply")
    daemon.wait_lines("D", 3)
    daemon.wait_lines("T", 3)
    wait_until(lambda: daemon.console("summary")["delayed_queue_size"] == 3, "three delayed messages")
    wait_until(lambda: daemon.console("summary")["in_delivery"] == 0, "no delivery under way")
    return daemon


def column(lines, heading):
    """First words of the rows below a heading."""
    at = next((i for i, line in enumerate(lines) if line.startswith(heading)), None)
    return [line.split()[0] for line in lines[at + 1:] if line] if at is not None else None


# ---- top ----


def test_top_shows_rates_agents_and_the_busiest_domains(flow):
    daemon = queue_mail(flow)
    terminal = top(flow, daemon)
    terminal.wait(lambda: column(terminal.screen(), "Domain"), "domains")
    lines = terminal.screen()
    expect_equal(len(lines), 24, "lines")
    expect(re.match(r"flywheel flow\.test  up .*every 2 s$", lines[0]), f"title {lines[0]!r}")
    expect(re.match(r"In [\d.]+/s  out [\d.]+/s  deferred [\d.]+/s  bounced 0\.0/s  refused 0\.0/s$", lines[1]), lines[1])
    expect_equal(lines[2], "Queued 3  active 0  delayed 3  in delivery 0  domains 3", "queues")
    expect(re.match(r"Connections in \d+  out \d+  memory [\d.]+ MiB  bodies ", lines[3]), lines[3])
    expect(re.match(r"Spool p50 [\d.]+ [mu]?s  p99 [\d.]+ [mu]?s  messages 3  ", lines[4]), lines[4])
    expect(any(AGENTS.match(line) for line in lines), f"agents in {lines}")
    agents = column(lines, "Agent")
    expect(agents[:3] == ["master", "scheduler.0", "scheduler.1"], f"agents {agents}")
    # Those that were delivered are the only ones that were done.
    expect_equal(column(lines, "Domain"), ["gone.test", "wait-b.test", "wait-a.test"], "domains by rate")
    terminal.type("l")
    terminal.wait(lambda: column(terminal.screen(), "Domain") == ["wait-b.test", "wait-a.test", "gone.test"]
                  or column(terminal.screen(), "Domain") == ["wait-b.test", "wait-a.test"], "domains by queue")
    terminal.type("b")
    terminal.wait(lambda: column(terminal.screen(), "Binding") == ["default"], "bindings")
    terminal.type("h")
    terminal.wait(lambda: any("sort by connections" in line for line in terminal.screen()), "help")
    terminal.type("h")
    terminal.wait(lambda: column(terminal.screen(), "Binding") == ["default"], "bindings again")
    terminal.type("p")
    terminal.wait(lambda: terminal.screen()[0].endswith("PAUSED"), "the pause")
    terminal.type("d")
    terminal.wait(lambda: column(terminal.screen(), "Domain"), "domains again")
    terminal.type("q")
    expect_equal(terminal.ended(), 0, "exit status")
    expect(terminal.written.endswith("\x1b[?25h\x1b[?1049l"), f"the end {terminal.written[-40:]!r}")


def test_top_fits_on_any_screen(flow):
    daemon = queue_mail(flow)
    terminal = top(flow, daemon, rows=8, columns=30)
    terminal.wait(lambda: column(terminal.screen(), "Domain"), "domains")
    expect(all(len(line) <= 30 for line in terminal.screen()), f"lines {terminal.screen()}")
    for rows, columns in ((40, 132), (3, 10), (24, 80)):
        before = len(terminal.written)
        terminal.resize(rows, columns)
        terminal.wait(lambda: "\x1b[2J" in terminal.written[before:] and "\x1b[J" in terminal.written[before:].rsplit("\x1b[2J", 1)[1],
                      "the screen to be drawn anew")
        # What was drawn before was for another size.
        terminal.written = "\x1b[?1049h" + terminal.written[before:].rsplit("\x1b[2J", 1)[1]
        lines = terminal.screen()
        expect(lines[0].startswith("flywheel f"), f"{rows}x{columns}: {lines}")
        expect_equal(any(line.startswith("Domain") for line in lines), rows > 3, f"domains at {rows}x{columns}: {lines}")
    terminal.type("\x03")
    expect_equal(terminal.ended(), 0, "exit status after ^C")


def test_top_obeys_a_new_size_that_came_while_it_asked(flow):
    daemon = Daemon(flow)
    terminal = top(flow, daemon, "-d", "3600")
    terminal.wait(lambda: column(terminal.screen(), "Agent"), "agents")
    daemon.process.send_signal(signal.SIGSTOP)
    terminal.type(" ")
    terminal.resize(5, 40)
    daemon.process.send_signal(signal.SIGCONT)
    terminal.wait(lambda: "\x1b[J" in terminal.written.rpartition("\x1b[2J")[2] and len(terminal.written.split("\x1b[2J")) > 2,
                  "the screen of the new size")
    terminal.written = "\x1b[?1049h" + terminal.written.rpartition("\x1b[2J")[2]
    expect(terminal.screen()[0].startswith("flywheel flow.test"), f"screen {terminal.screen()}")


def test_top_gives_the_terminal_back(flow):
    daemon = Daemon(flow)
    terminal = Terminal(flow, "sh", "-c", f"{flow.program('flywheel')} -s {daemon.control} top; read x; echo got $x")
    terminal.wait(lambda: "Domain" in plain(terminal.written), "domains")
    expect(not terminal.is_as_before(), "keys are taken one by one")
    terminal.type("q")
    terminal.wait(terminal.is_as_before, "the terminal to be as before")
    terminal.type("it\n")
    terminal.wait_text("got it")
    expect_equal(terminal.ended(), 0, "exit status")


def test_top_waits_for_a_program_that_is_away(flow):
    daemon = Daemon(flow)
    terminal = top(flow, daemon, "-d", "0.1")
    terminal.wait(lambda: column(terminal.screen(), "Agent"), "agents")
    daemon.kill()
    terminal.wait(lambda: "does not answer" in terminal.screen()[0], "the trouble")
    daemon.start()
    terminal.wait(lambda: "  up " in terminal.screen()[0], "the program again")
    terminal.type("q")
    expect_equal(terminal.ended(), 0, "exit status")


def test_top_as_text(flow):
    daemon = queue_mail(flow)

    def run(*words, wanted=0):
        done = subprocess.run([flow.program("flywheel"), "-s", daemon.control, "top", *words], capture_output=True, text=True,
                              timeout=60, stdin=subprocess.DEVNULL)
        expect_equal(done.returncode, wanted, f"exit status of {words}: {done.stderr}")
        return done.stdout if wanted == 0 else done.stderr

    text = run("-b", "-n", "3", "-d", "0.1")
    expect_equal(len(re.findall(r"^flywheel flow\.test  up ", text, re.M)), 3, f"samples in {text}")
    expect("\x1b" not in text and "\x01" not in text, "control characters in text")
    expect_equal(text.count("gone.test"), 3, "rows of a domain")
    expect_equal(len(re.findall(r"^flywheel ", run(), re.M)), 1, "samples without a terminal")
    for words in (["-n"], ["-n", "0"], ["-d", "x"], ["nonsense"], ["-b", "-n", "1x"]):
        expect("usage: top" in run(*words, wanted=2), f"usage of {words}")
    daemon.terminate()
    done = subprocess.run([flow.program("flywheel"), "-s", daemon.control, "top", "-b"], capture_output=True, text=True)
    expect_equal(done.returncode, 2, "exit status without flywheeld")


test_top_as_text.short = True


# ---- the prompt ----


def test_completes_commands_words_and_names(flow):
    daemon = queue_mail(flow)
    terminal = prompt(flow, daemon)
    for typed, wanted in (("mai\t", "mailq "), ("dom\t", "domain"), ("trace smtp li\t", "trace smtp list "),
                          ("domain go\t", "domain gone.test "), ("suspend domain wait-\ta\t", "suspend domain wait-a.test "),
                          ("binding def\t", "binding default "), ("trace smtp add direction o\t", "trace smtp add direction out "),
                          ("trace smtp add domain go\t", "trace smtp add domain gone.test "), ("help shut\t", "help shutdown "),
                          ("busiest 5 qu\t", "busiest 5 queue "), ("message x fu\t", "message x full ")):
        before = len(terminal.written)
        terminal.type(typed)
        terminal.wait(lambda: shown(terminal.written[before:]).startswith(wanted.rstrip()), f"{wanted!r} for {typed!r}")
        terminal.type("\x03")
        terminal.wait_text("^C", before)
        terminal.wait(terminal.at_prompt, "the next prompt")
    # What there is to choose from is listed.
    before = len(terminal.written)
    terminal.type("domain wait-\t\t")
    terminal.wait(lambda: {"wait-a.test", "wait-b.test"} <= set(plain(terminal.written[before:]).split()), "both domains")
    terminal.type("\x03")
    terminal.wait(terminal.at_prompt, "the next prompt")
    terminal.type("quit\n")
    expect_equal(terminal.ended(), 0, "exit status")


def shown(text, prompt_len=len("flywheel> ")):
    """The line being edited: characters, and moves to a column."""
    line, at = [], 0
    for match in re.finditer(r"\x1b\[(\d*)([A-Za-z])|(.)", text, re.S):
        if match[2] == "G":
            at = max(int(match[1] or 1) - 1 - prompt_len, 0)
        elif match[2] == "K":
            line[at:] = []
        elif match[3] == "\r":
            at = 0
        elif match[3] and match[3] >= " ":
            line[at:at + 1] = match[3]
            at += 1
    return "".join(line)


def test_remembers_what_was_said_for_its_user_alone(flow):
    daemon = Daemon(flow)
    path = flow.path / ".flywheel_history"
    path.write_text("")
    path.chmod(0o644)
    terminal = prompt(flow, daemon)
    terminal.run("errors")
    terminal.run("version")
    terminal.type("quit\n")
    expect_equal(terminal.ended(), 0, "exit status")
    expect_equal(stat.S_IMODE(path.stat().st_mode), 0o600, "mode of the history")
    expect("version" in path.read_text(), f"history {path.read_text()!r}")
    terminal = prompt(flow, daemon)
    # Two up: errors.
    before = len(terminal.written)
    terminal.type("\x1b[A\x1b[A\x1b[B\n")
    terminal.wait(lambda: "Hostname:" in terminal.written[before:], "version again")
    terminal.wait(terminal.at_prompt, "the next prompt")
    terminal.type("\x04")
    expect_equal(terminal.ended(), 0, "exit status")
    path.unlink()
    terminal = prompt(flow, daemon)
    terminal.run("version")
    terminal.type("exit\n")
    terminal.ended()
    expect_equal(stat.S_IMODE(path.stat().st_mode), 0o600, "mode of a new history")


def test_long_answers_go_to_the_pager(flow):
    daemon = Daemon(flow)
    pager = flow.path / "pager"
    pager.write_text('#!/bin/sh\ncat > "$0.got"; echo paged\n')
    pager.chmod(0o755)
    terminal = prompt(flow, daemon, PAGER=str(pager))
    text = terminal.run("counters")
    expect("paged" in text and "cycles" not in text, f"a long answer: {text[:200]!r}")
    expect("scheduler.0.received" in (flow.path / "pager.got").read_text(), "what the pager got")
    text = terminal.run("version")
    expect("paged" not in text and "Hostname:" in text, f"a short one: {text!r}")
    terminal.type("quit\n")
    terminal.ended()
    # Without one, or with one that is not there, nothing is lost.
    for missing in ("", str(flow.path / "nothing")):
        terminal = prompt(flow, daemon, PAGER=missing)
        expect("scheduler.0.received" in terminal.run("counters"), f"counters with {missing!r} for a pager")
        terminal.type("quit\n")
        terminal.ended()


def test_interrupts_what_runs_and_not_itself(flow):
    daemon = Daemon(flow)
    terminal = prompt(flow, daemon)
    daemon.freeze()
    before = len(terminal.written)
    terminal.type("summary\n")
    terminal.wait(terminal.is_as_before, "the command to run")

    def interrupted():
        terminal.type("\x03")
        return terminal.read(0.2) and "interrupted" in terminal.written[before:]

    terminal.wait(interrupted, "the end of the command")
    daemon.thaw()
    terminal.wait(terminal.at_prompt, "the next prompt")
    # One ^C more than it took may have come to the prompt, which then is there twice.
    before = len(terminal.written)
    terminal.type("version\n")
    terminal.wait_text("Hostname:", before)
    terminal.wait(terminal.at_prompt, "the next prompt")
    terminal.type("half a line\x03")
    terminal.wait(lambda: terminal.at_prompt("^C\nflywheel> "), "the line to be dropped")
    expect("Hostname:" in terminal.run("version"), "the console goes on")
    terminal.type("quit\n")
    expect_equal(terminal.ended(), 0, "exit status")


def test_a_transaction_is_not_gone_on_with_after_a_restart(flow):
    daemon = Daemon(flow)
    terminal = prompt(flow, daemon)
    for line in ("config begin", "config set domain a.test retry_interval 5m"):
        terminal.run(line)
    daemon.terminate()
    expect("cannot connect" in terminal.run("config set domain a.test max_retry_interval 3h"), "no word of that")
    daemon.start()
    # What asks besides takes nothing from the warning.
    terminal.run("version")
    text = terminal.run("config set domain a.test max_retry_interval 3h")
    expect("with it the transaction" in text, f"set on another connection: {text!r}")
    expect_equal(daemon.console("config", "diff")["console"], [], "what the console has set")
    # From there it is a console like any other.
    for line in ("config begin", "config set domain a.test retry_interval 5m", "config commit"):
        terminal.run(line)
    daemon.terminate()
    daemon.start()
    text = terminal.run("config set domain a.test retry_interval 5m")
    expect("the transaction" not in text, f"after a commit: {text!r}")
    expect_equal(len(daemon.console("config", "diff")["console"]), 1, "what the console has set")


def test_a_transaction_that_was_lost_ends_a_script(flow):
    daemon = Daemon(flow)
    script = subprocess.Popen([flow.program("flywheel"), "-s", daemon.control, "--json"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    flow.closers.append(script.kill)
    script.stdin.write("config begin\n")
    script.stdin.flush()
    script.stdout.readline()
    daemon.terminate()
    daemon.start()
    _, said = script.communicate("config set retry_interval 5m\nconfig set max_retry_interval 3h\n", timeout=PATIENCE)
    expect("with it the transaction" in said, f"stderr: {said!r}")
    expect_equal(script.returncode, 2, "exit status")
    expect_equal(daemon.console("config", "diff")["console"], [], "what the console has set")


def test_finds_the_program_again_after_a_restart(flow):
    daemon = Daemon(flow)
    terminal = prompt(flow, daemon)
    text = terminal.run("version")
    expect("started anew" not in text, f"without a restart: {text!r}")
    daemon.terminate()
    text = terminal.run("version")
    expect("cannot connect" in text, f"while it is away: {text!r}")
    daemon.start()
    text = terminal.run("version")
    expect(f"started anew: process {daemon.process.pid})" in text and "Hostname:" in text, f"when it is back: {text!r}")
    text = terminal.run("version")
    expect("started anew" not in text, f"after that: {text!r}")
    text = terminal.run("help")
    expect('also "top"' in text and "mailq" in text, f"help: {text!r}")
    text = terminal.run("top -b")
    expect("Domain" in text, f"top in the console: {text!r}")
    terminal.type("quit\n")
    expect_equal(terminal.ended(), 0, "exit status")
