"""`flywheel config pull|commit|status|history|bootstrap`: nodes that share a repository."""

import json
import os
import pathlib
import socket
import subprocess
import threading

from flow import PATIENCE, Daemon, Skip, expect, expect_equal, free_port, wait_until

HELLO = "Subject: hello\r\n\r\nhello\r\n"
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def git(folder, *words):
    done = subprocess.run(["git", "-C", folder, "-c", "user.name=Tester", "-c", "user.email=tester@flow.test", *words],
                          capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **GIT})
    expect_equal(done.returncode, 0, f"git {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


def hub(flow):
    path = flow.path / "hub.git"
    git(flow.path, "init", "-q", "--bare", "-b", "main", str(path))
    return path


# What all nodes have in common; what each has for itself is in node/NAME/local.conf.
SHARED = """# One file for all nodes.
include "local.conf"
domain "shared.test" {
    max_outbound_connections = 3   # as they asked
}
domain "other.test" {
    retry_interval = "7m"
}
"""


class Node(Daemon):
    """flywheeld of one node, its configuration below a folder of its own."""

    def __init__(self, flow, name, **options):
        super().__init__(flow, name=name, start=False, **options)
        self.node = name
        self.folder = flow.path / f"etc-{name}"
        self.own = self.config.read_text()
        self.config = self.folder / "flywheel.conf"

    def launch(self, prefix=(), prepare=lambda: None):
        self.process = self.flow.start("flywheeld", "--config", self.config, "--node", self.node, prefix=prefix)

    def write(self, text):
        """The configuration of all nodes, before there is a repository."""
        self.folder.mkdir()
        self.config.write_text(text)
        (self.folder / "local.conf").write_text("# nothing\n")

    def say(self, *words, json_too=False, user=None, env=None):
        """flywheel config WORDS on this node: exit status, output and errors."""
        return subprocess.run(
            [self.flow.program("flywheel"), "-s", self.control, *(["--json"] if json_too else []), "config", *words,
             "-c", self.config, "-N", self.node],
            capture_output=True, text=True, timeout=PATIENCE, user=user, group=user,
            extra_groups=[] if user is not None else None,
            env={**os.environ, **GIT, "USER": f"op-{self.node}", **(env or {})})

    def do(self, *words):
        done = self.say(*words)
        expect_equal(done.returncode, 0, f"config {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def refuse(self, *words, **options):
        done = self.say(*words, **options)
        expect_equal(done.returncode, 1, f"config {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stderr

    def status(self):
        return json.loads(self.say("status", json_too=True).stdout)["repository"]

    def edit(self, old, new, file="flywheel.conf"):
        path = self.folder / file
        text = path.read_text()
        expect(old in text, f"{old!r} in {path}")
        path.write_text(text.replace(old, new))

    def limit(self):
        """What is in force for a domain."""
        rows = self.console("domain", "shared.test")["limits"]
        return next(row["value"] for row in rows if row["limit"] == "max_outbound_connections")


def cluster(flow, start=True):
    """Two nodes that run, and their repository."""
    repository = hub(flow)
    a, b = Node(flow, "a", schedulers=1), Node(flow, "b", schedulers=1)
    a.write(SHARED)
    for node in (a, b):
        own = a.folder / "node" / node.node
        own.mkdir(parents=True)
        (own / "local.conf").write_text(node.own)
    a.do("bootstrap", str(repository))
    b.do("bootstrap", str(repository))
    expect_equal((b.folder / "flywheel.conf").read_text(), SHARED, "what the other node gave")
    if start:
        for node in (a, b):
            node.start()
            # A record that knows its limits.
            node.connect().mail("to@shared.test", body=HELLO)
            wait_until(lambda n=node: n.limit() == 3, "the limit")
    return a, b


def test_what_one_node_commits_comes_to_the_other(flow):
    a, b = cluster(flow)
    a.edit("= 3 ", "= 4 ")
    expect("flywheel.conf" in a.status()["edited"], "the edited file in the status")
    told = a.do("commit", "-m", "Four connections")
    expect("Four connections" in told and "flywheeld has reloaded" in told, told)
    wait_until(lambda: a.limit() == 4, "the limit of the node that committed")
    expect_equal(b.limit(), 3, "the limit of the other before it pulls")
    expect_equal(b.status()["commits_to_pull"], 1, "commits to pull")
    told = b.do("pull")
    expect("Four connections" in told and "flywheeld has reloaded" in told, told)
    wait_until(lambda: b.limit() == 4, "the limit of the other")
    expect_equal(b.do("pull", "--quiet"), "", "what a quiet pull of nothing says")
    history = json.loads(b.say("history", json_too=True).stdout)
    expect_equal([row["subject"] for row in history], ["Four connections", "The configuration as it was"], "history")
    expect_equal(history[0]["by"], "op-a", "who committed")
    expect_equal(len(json.loads(b.say("history", "1", json_too=True).stdout)), 1, "commits of history 1")


def test_history_that_git_cannot_tell_is_refused(flow):
    a, _ = cluster(flow)
    expect('"abc" is no number of commits' in a.refuse("history", "abc"), "what is said of a wrong number")
    # A branch without commits.
    git(a.folder, "symbolic-ref", "HEAD", "refs/heads/empty")
    expect("git cannot list the last 5 commits" in a.refuse("history", "5"), "what is said when git fails")


def test_edits_of_the_same_lines_are_refused_on_either_side(flow):
    a, b = cluster(flow)
    a.edit("= 3 ", "= 4 ")
    b.edit("= 3 ", "= 5 ")
    edited = b.config.read_text()
    a.do("commit", "-m", "Four")
    told = b.refuse("commit", "-m", "Five")
    expect("conflict: flywheel.conf was changed here, and in commit" in told and "op-a: Four" in told, told)
    told = b.refuse("pull")
    expect("conflict: flywheel.conf was changed here, and in commit" in told, told)
    expect_equal((b.config.read_text(), b.status()["edited"], b.limit()), (edited, ["flywheel.conf"], 3),
                 "the node that was refused")
    git(b.folder, "checkout", "HEAD", "--", "flywheel.conf")
    b.do("pull")
    wait_until(lambda: b.limit() == 4, "the limit of the other")


def test_edits_of_other_lines_are_joined(flow):
    a, b = cluster(flow)
    a.edit("= 3 ", "= 4 ")
    b.edit('"7m"', '"9m"')
    a.do("commit", "-m", "Four")
    b.do("commit", "-m", "Nine minutes")
    wait_until(lambda: b.limit() == 4, "the limit that came along")
    text = b.config.read_text()
    expect("= 4   # as they asked" in text and '"9m"' in text, text)
    a.do("pull")
    expect_equal(a.config.read_text(), text, "both files")
    expect_equal(git(b.folder, "log", "--format=%s", "--no-merges").splitlines(),
                 ["Nine minutes", "Four", "The configuration as it was"], "history in a line")


def test_what_is_not_valid_is_neither_committed_nor_pulled(flow):
    a, b = cluster(flow)
    a.edit("= 3 ", "= many ")
    told = a.refuse("commit", "-m", "Many")
    expect(f"{a.config}:4: " in told and "nothing was committed" in told, told)
    expect_equal(git(a.folder, "log", "--format=%s", "origin/main"), "The configuration as it was", "commits")
    # By git alone, past all checks.
    git(a.folder, "commit", "-qam", "Many")
    git(a.folder, "push", "-q", "origin", "main")
    before = b.config.read_text()
    told = b.refuse("pull")
    expect(f"{b.config}:4: " in told and "op-" not in told and "Many is refused, nothing has changed" in told, told)
    expect_equal((b.config.read_text(), b.limit()), (before, 3), "the node that refused")
    # Nor is anything joined with it.
    b.edit('"7m"', '"9m"')
    told = b.refuse("commit", "-m", "Nine minutes")
    expect("with what others committed" in told, told)
    expect_equal(b.status()["edited"], ["flywheel.conf"], "what was edited stays so")
    # It is mended, and goes on.
    a.edit("= many ", "= 6 ")
    a.do("commit", "-m", "Six")
    b.do("commit", "-m", "Nine minutes")
    wait_until(lambda: (a.limit(), b.limit()) == (6, 6), "the limits")


def test_what_flywheeld_refuses_is_taken_back(flow):
    a, b = cluster(flow)
    with socket.socket() as occupied:
        port = free_port()
        occupied.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        occupied.bind(("127.0.0.1", port))
        occupied.listen()
        text = a.folder / "node" / "b" / "local.conf"
        text.write_text(text.read_text() + f'esmtp_listener {{ listen "127.0.0.1:{port}" {{ }} }}\n')
        a.do("commit", "-m", "One port more for b")
        before = git(b.folder, "rev-parse", "HEAD")
        told = b.refuse("pull")
        expect(f"127.0.0.1:{port}" in told and "back at" in told, told)
        expect_equal((git(b.folder, "rev-parse", "HEAD"), b.status()["edited"]), (before, []), "the node that refused")
    b.do("pull")
    wait_until(lambda: pathlib.Path("/proc/net/tcp").read_text().count(f":{port:04X} ") > 0, "the new port")


def test_a_node_that_was_down_starts_with_what_it_pulled(flow):
    a, b = cluster(flow)
    expect_equal(b.terminate()[0], 0, "exit status")
    a.edit("= 3 ", "= 8 ")
    a.do("commit", "-m", "Eight")
    expect("does not run" in b.do("pull"), "word that flywheeld does not run")
    b.start()
    b.connect().mail("to@shared.test", body=HELLO)
    wait_until(lambda: b.limit() == 8, "the limit")


def test_bootstrap_keeps_what_is_in_the_folder(flow):
    cluster(flow, start=False)
    c = Node(flow, "c")
    c.write(SHARED.replace("= 3 ", "= 9 "))
    (c.folder / "secret.key").write_text("mine")
    c.do("bootstrap", str(flow.path / "hub.git"))
    expect_equal(c.status()["edited"], ["flywheel.conf"], "what is edited")
    expect("= 9 " in c.config.read_text() and (c.folder / "node/a/local.conf").exists(), "files of both")
    told = c.refuse("bootstrap", str(flow.path / "hub.git"))
    expect("is in the clone" in told, told)
    d = Node(flow, "d")
    told = d.refuse("bootstrap", str(flow.path / "nowhere.git"))
    expect("cannot reach the repository" in told, told)
    told = d.refuse("pull")
    expect("is no clone of a repository" in told, told)


def test_secrets_stay_on_their_node(flow):
    a, _ = cluster(flow, start=False)
    secrets = ["secret.key", "node/c/cert.pem", "dkim/s1.private", "passwords"]
    c = Node(flow, "c")
    for node in (a, c):
        for name in secrets:
            path = node.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("mine")
    # Into a repository that has commits.
    (c.folder / "note.conf").write_text("# to be shared\n")
    c.do("bootstrap", str(flow.path / "hub.git"))
    c.do("commit", "-m", "A note")
    expect_equal(git(c.folder, "ls-tree", "-r", "--name-only", "origin/main").splitlines(),
                 ["flywheel.conf", "local.conf", "node/a/local.conf", "node/b/local.conf", "note.conf"], "what is shared")
    # Nor from the first.
    a.edit("= 3 ", "= 4 ")
    a.do("commit", "-m", "Four")
    expect_equal(git(a.folder, "show", "--format=", "--name-only", "origin/main"), "flywheel.conf", "what was edited")


def give_away(path, user):
    for entry in (path, *path.rglob("*")):
        os.chown(entry, user, user)


def test_root_runs_nothing_of_another_users_clone(flow):
    nobody = 65534
    if os.getuid() != 0:
        raise Skip("only root may become another user")
    a, b = cluster(flow, start=False)
    a.edit("= 3 ", "= 4 ")
    a.do("commit", "-m", "Four")
    os.chmod(flow.path, 0o755)
    told = b.refuse("pull", user=nobody)
    expect("is no clone of a repository" in told, told)
    witness = b.folder / ".git" / "witness"
    hook = b.folder / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nid -u >> {witness}\n")
    hook.chmod(0o755)
    give_away(b.folder, nobody)
    give_away(flow.path / "hub.git", nobody)
    try:
        subprocess.run([flow.program("flywheeld"), "--version"], user=nobody, group=nobody, extra_groups=[], check=True,
                       stdout=subprocess.DEVNULL)
    except OSError:
        raise Skip("the programs are out of another user's reach") from None
    b.do("pull")
    expect("= 4 " in b.config.read_text(), "what was pulled")
    expect_equal(set(witness.read_text().split()), {str(nobody)}, "whom the hook ran as")
    expect_equal({path.lstat().st_uid for path in b.folder.rglob("*")}, {nobody}, "whose the files are")
    expect_equal(b.status()["commits_to_pull"], 0, "commits to pull")


def mode(path):
    return oct(path.stat().st_mode & 0o7777)


def test_files_keep_mode_and_owner(flow):
    a, b = cluster(flow, start=False)
    expect_equal(mode(b.folder / ".git"), oct(0o700), "mode of .git")
    own = b.folder / "node" / "b" / "local.conf"
    b.config.chmod(0o640)
    own.chmod(0o600)
    b.folder.chmod(0o750)
    owner = 65534 if os.getuid() == 0 else os.getuid()
    os.chown(b.config, owner, owner)
    a.edit("= 3 ", "= 4 ")
    a.edit("\n", "\n# more\n", file="node/b/local.conf")
    (a.folder / "node" / "new").mkdir()
    (a.folder / "node" / "new" / "local.conf").write_text("# new\n")
    (a.folder / "tool").write_text("#!/bin/sh\n")
    (a.folder / "tool").chmod(0o755)
    a.do("commit", "-m", "Four")
    b.do("pull")
    expect("= 4 " in b.config.read_text(), "what was pulled")
    new = b.folder / "node" / "new"
    expect_equal([mode(path) for path in (b.config, own, new, new / "local.conf", b.folder / "tool")],
                 ["0o640", "0o600", "0o750", "0o640", "0o750"], "modes")
    expect_equal([path.stat().st_uid for path in (b.config, own, new, new / "local.conf")],
                 [owner, os.getuid(), os.getuid(), owner], "owners")
    expect_equal(b.status()["edited"], [], "what counts as edited")


def answer_once(node, answer):
    """Takes flywheeld's place: `answer`, a function, makes what the first command is answered."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(node.control))
    listener.listen()

    def serve():
        connection, _ = listener.accept()
        with listener, connection:
            connection.makefile().readline()
            connection.sendall(answer())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_pull_that_flywheeld_does_not_answer_is_taken_back(flow):
    a, b = cluster(flow, start=False)
    a.edit("= 3 ", "= 4 ")
    a.do("commit", "-m", "Four")
    answered = answer_once(b, lambda: b"")
    told = b.refuse("pull")
    answered.join()
    expect("cannot ask flywheeld" in told and "back at" in told, told)
    expect_equal((b.config.read_text(), b.status()["edited"]), (SHARED, []), "the node that was not answered")
    b.control = flow.path / "flywheela.conf" / "control"
    told = b.refuse("pull")
    expect("Not a directory" in told and "back at" in told, told)


def test_a_switch_that_cannot_be_taken_back_is_not_said_to_be(flow):
    a, b = cluster(flow, start=False)
    a.edit("= 3 ", "= 4 ")
    a.do("commit", "-m", "Four")
    lock = b.folder / ".git/refs/heads/main.lock"

    def refuse():
        lock.touch()
        return b'{"ok":false,"error":"not now"}\n'

    answered = answer_once(b, refuse)
    told = b.refuse("pull")
    answered.join()
    expect("not now" in told and "cannot move branch" in told and "back at" not in told, told)


def test_files_stay_where_their_branch_is(flow):
    a, b = cluster(flow, start=False)
    a.edit("= 3 ", "= 4 ")
    a.do("commit", "-m", "Four")
    lock = b.folder / ".git/refs/heads/main.lock"
    lock.touch()
    told = b.refuse("pull")
    expect("cannot move branch" in told, told)
    expect_equal((b.config.read_text(), b.status()["edited"]), (SHARED, []), "the node that cannot switch")
    lock.unlink()
    b.do("pull")
    expect("= 4 " in b.config.read_text(), "what was pulled")


def test_a_bootstrap_that_failed_can_be_repeated(flow):
    repository = hub(flow)
    refusal = repository / "hooks" / "pre-receive"
    refusal.parent.mkdir(exist_ok=True)
    refusal.write_text("#!/bin/sh\necho closed today >&2\nexit 1\n")
    refusal.chmod(0o755)
    a = Node(flow, "a")
    a.write(SHARED)
    told = a.refuse("bootstrap", str(repository))
    expect("cannot hand it on" in told and "closed today" in told, told)
    expect(not (a.folder / ".git").exists(), "a clone is left")
    refusal.unlink()
    a.do("bootstrap", str(repository))
    expect_equal(a.status()["edited"], [], "what is edited")


def test_a_commit_that_git_refuses_leaves_edits_as_they_were(flow):
    a, _ = cluster(flow, start=False)
    a.edit("= 3 ", "= 4 ")
    told = a.refuse("commit", "-m", "Four", env={"GIT_AUTHOR_DATE": "never"})
    expect("cannot commit" in told and "invalid date format" in told, told)
    expect_equal(git(a.folder, "diff", "--cached", "--name-only"), "", "what is in the index")
    expect_equal(a.status()["edited"], ["flywheel.conf"], "what is edited")
