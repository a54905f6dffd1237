"""What `make install` puts on a machine: programs, the systemd unit, the manual, an example."""

import os
import pathlib
import re
import shutil
import subprocess

from flow import ROOT, Daemon, expect, expect_equal

PREFIX = "/opt/flywheel"
PAGES = ("man1/flywheel.1", "man1/flywheel-log.1", "man1/flywheel-config.1", "man5/flywheel.conf.5", "man8/flywheeld.8", "man8/flywheel-spool.8")
FILES = {
    f"{PREFIX}/sbin/flywheeld": 0o755,
    f"{PREFIX}/sbin/flywheel-spool": 0o755,
    f"{PREFIX}/bin/flywheel": 0o755,
    f"{PREFIX}/lib/systemd/system/flywheel.service": 0o644,
    f"{PREFIX}/lib/systemd/system/flywheel-config-pull.service": 0o644,
    f"{PREFIX}/lib/systemd/system/flywheel-config-pull.timer": 0o644,
    f"{PREFIX}/share/flywheel/events.schema.json": 0o644,
    "/etc/flywheel/flywheel.conf.example": 0o644,
    "/etc/flywheel/bounce_rules.example": 0o644,
    **{f"{PREFIX}/share/man/{page}": 0o644 for page in PAGES},
}
# What the manual is written in; anything else at the start of a line is a mistake.
MACROS = {"TH", "SH", "SS", "TP", "PP", "B", "I", "BR", "RB", "RI", "IR", "br", "nf", "fi", '\\"'}
# Two makes at a time in one build folder would be in each other's way.
alone = True
COLUMNS = ("name", "type", "unit", "default", "scopes", "when", "expected", "help")


def make(flow, target):
    # An outer make's job server is not ours.
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        ["make", target, f"VARIANT={flow.variant}", f"DESTDIR={flow.path}/root", f"PREFIX={PREFIX}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    expect_equal(done.returncode, 0, f"status of make {target}:\n{done.stdout}{done.stderr}\n")
    return flow.path / "root"


def installed(root):
    return {"/" + str(f.relative_to(root)): f.stat().st_mode & 0o777 for f in root.rglob("*") if f.is_file()}


def output(program, *words):
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=True).stdout


def reference(program):
    rows = [line.split("\t") for line in output(program, "--reference").splitlines()]
    expect(rows, "the reference is empty")
    expect(all(len(row) == len(COLUMNS) for row in rows), "a line of the reference has not all columns")
    widths = {tuple(len(cell) for cell in row[:-1]) for row in rows}
    expect_equal(len(widths), 1, "different alignments in the reference")
    return [dict(zip(COLUMNS, (cell.strip() for cell in row))) for row in rows]


def plain(roff):
    """The words of a page, without what makes them look good."""
    text = "\n".join(line for line in roff.splitlines() if not line.startswith(('.\\"', ".TH")))
    text = re.sub(r"\\f[BIR]", "", text)
    # Alternating fonts are joined without spaces, but where quotes hold one.
    lines = []
    for line in text.splitlines():
        match = re.match(r"\.(BR|RB|RI|IR) (.*)", line)
        if match:
            words = re.findall(r'"((?:[^"]|"")*)"|(\S+)', match.group(2))
            line = "".join(a or b for a, b in words)
        lines.append(re.sub(r"^\.(B|I|SH|SS) ", "", line))
    text = "\n".join(lines)
    for code, character in (("\\-", "-"), ("\\(dq", '"'), ("\\(aq", "'"), ("\\(ti", "~"), ("\\(ha", "^"),
                            ("\\&", ""), ("\\e", "\\")):
        text = text.replace(code, character)
    return text


def entries(roff, heading=".TP\n"):
    """Title and text of each tagged paragraph."""
    return [tuple(plain(part).partition("\n")[::2]) for part in roff.split(heading)[1:]]


def check_page(path):
    name, section = path.stem, path.suffix[1:]
    text = path.read_text(encoding="ascii")
    lines = text.splitlines()
    expect(lines[1].startswith(f".TH {name.upper()} {section} "), f"{path.name}: {lines[1]!r} is no title")
    headings = [line[4:] for line in lines if line.startswith(".SH ")]
    expect_equal(headings[:3], ["NAME", "SYNOPSIS", "DESCRIPTION"], f"first headings of {path.name}")
    expect(re.match(rf"{re.escape(name)} \\- \S", lines[lines.index(".SH NAME") + 1]),
           f"{path.name}: no name and purpose for whatis")
    literal = False
    for number, line in enumerate(lines, 1):
        where = f"{path.name}:{number}: {line!r}"
        expect(not line.startswith("'"), f"{where} is taken for a request")
        expect(line == line.rstrip() and (line or literal), f"{where}: an empty line, or space at its end")
        expect(line.replace('\\"', "").count('"') % 2 == 0 or not line.startswith("."), f"{where}: quotes")
        for escape in re.findall(r"\\(.[BIR]?)", line):
            expect(escape[0] in '-&e(f"', f"{where}: escape \\{escape}")
        if line.startswith("."):
            macro = re.match(r"\.(\\\"|\w*)", line).group(1)
            expect(macro in MACROS, f"{where}: macro")
            expect(not literal or macro == "fi", f"{where}: between .nf and .fi")
            literal = macro == "nf" or (literal and macro != "fi")
        # A font that a line sets is the font of the rest.
        fonts = re.findall(r"\\f([BIR])", line)
        expect(not fonts or fonts[-1] == "R" or line.endswith('"') or line.startswith("."), f"{where}: font")
    expect(not literal, f"{path.name}: .nf without .fi")
    for command in (["groff", "-man", "-ww", "-z"], ["mandoc", "-Tlint", "-Werror"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, path], capture_output=True, text=True, timeout=60)
            expect_equal((done.returncode, done.stdout + done.stderr), (0, ""), f"{command[0]} {path.name}")


def test_install_puts_everything_in_place_and_uninstall_takes_it_away(flow):
    root = make(flow, "install")
    expect_equal(installed(root), FILES, "installed files and their modes")
    for file in FILES:
        if "bin/" not in file:
            expect(str(root) not in (root / file[1:]).read_text(), f"{file} names the folder of the packager")
    daemon = root / f"{PREFIX[1:]}/sbin/flywheeld"
    expect(output(daemon, "--version").startswith("flywheeld "), "the installed flywheeld does not run")
    output(root / f"{PREFIX[1:]}/bin/flywheel", "--version")
    output(root / f"{PREFIX[1:]}/sbin/flywheel-spool", "--version")
    example = root / "etc/flywheel/flywheel.conf.example"
    expect_equal(output(daemon, "--check", "--config", example), "configuration valid\n", "--check of the example")
    (root / "etc/flywheel/flywheel.conf").write_text("hostname = mine.example\n")
    make(flow, "install")
    make(flow, "uninstall")
    expect_equal(set(installed(root)), {"/etc/flywheel/flywheel.conf"}, "files that uninstall left")
    expect_equal((root / "etc/flywheel/flywheel.conf").read_text(), "hostname = mine.example\n", "flywheel.conf")


def test_unit_starts_what_is_installed(flow):
    root = make(flow, "install")
    unit = root / f"{PREFIX[1:]}/lib/systemd/system/flywheel.service"
    settings = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#[":
            key, equals, value = line.partition("=")
            expect(equals and key.isalnum(), f"{line!r} is no setting")
            settings.setdefault(key, []).append(value)
    program, *words = settings["ExecStart"][0].split()
    expect(root.joinpath(program[1:]).is_file(), f"{program} is not installed")
    expect_equal(words, ["--config", "/etc/flywheel/flywheel.conf"], "arguments of flywheeld")
    expect(" ".join([program, *words, "--check"]) in settings["ExecStartPre"], "the configuration is not checked first")
    expect_equal(settings["AmbientCapabilities"], ["CAP_NET_BIND_SERVICE"], "capabilities")
    expect_equal(settings["Restart"], ["on-failure"], "Restart")
    expect_equal(settings["Type"], ["notify"], "Type")
    options = {row["name"]: row for row in reference(flow.program("flywheeld"))}
    expect(int(settings["WatchdogSec"][0]) > 2 * int(options["watchdog_stall"]["default"].rstrip("s")),
           "systemd aborts a thread that has hardly stalled")
    expect(int(settings["LimitNOFILE"][0]) >= int(options["server_max_file_descriptors"]["default"]),
           "fewer file descriptors than flywheeld asks for")
    expect(int(settings["TimeoutStopSec"][0]) > int(options["stop_timeout"]["default"].rstrip("s")),
           "systemd kills before flywheeld has stopped by itself")
    # What example configuration and unit say about folders.
    example = (root / "etc/flywheel/flywheel.conf.example").read_text()
    paths = re.findall(r'"(/[^"]+)"', example)
    made = [f"/run/{settings['RuntimeDirectory'][0]}", f"/var/log/{settings['LogsDirectory'][0]}",
            settings["ReadWritePaths"][0].lstrip("-")]
    for path in paths:
        # Certificates are the operator's own.
        expect(path.endswith((".pem", ".key")) or any(path == m or path.startswith(m + "/") for m in made), f"nobody makes {path}")
    owner = f"-o {settings['User'][0]} -g {settings['Group'][0]}"
    expect(owner in settings["ExecStartPre"][0], f"the spool is not made for {owner}")
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
        said = [line for line in done.stderr.splitlines() if "flywheel.service" in line
                and "is not executable" not in line and "Command 'man" not in line]
        expect_equal(said, [], "systemd-analyze verify")


def test_manual_is_well_formed(flow):
    root = make(flow, "install")
    for page in PAGES:
        check_page(root / f"{PREFIX[1:]}/share/man/{page}")


def test_manual_has_every_option_as_in_the_reference(flow):
    root = make(flow, "install")
    page = (root / f"{PREFIX[1:]}/share/man/man5/flywheel.conf.5").read_text()
    options = reference(flow.program("flywheeld"))
    found = entries(page.split(".SH OPTIONS\n")[1].split(".SH FILES\n")[0])
    expect_equal(len(found), len(options), "options in flywheel.conf(5)")
    for option in options:
        restart = ", restart" if option["when"] == "restart" else ""
        title = f"{option['name']} ({option['scopes']}{restart})"
        text = dict(found).get(title)
        expect(text, f"flywheel.conf(5) has no {title!r}")
        wanted = [option["help"], option["expected"][1:]]
        if option["default"] != "-":
            wanted.append(f"Default: {option['default']}.")
        for part in wanted:
            expect(part in text, f"flywheel.conf(5): {title} does not say {part!r}: {text!r}")
    # And each kind of scope.
    scopes = {scope.split()[0] for option in options for scope in option["scopes"].split(", ")} - {"global"}
    told = plain(page.split(".SH SCOPES\n")[1].split(".SH OPTIONS\n")[0])
    for scope in scopes:
        expect(re.search(rf"^{scope} .*\{{ \}}", told, re.M), f"flywheel.conf(5) does not tell of scope {scope}")


def test_example_of_the_manual_is_valid(flow):
    root = make(flow, "install")
    page = (root / f"{PREFIX[1:]}/share/man/man5/flywheel.conf.5").read_text()
    example = page.split(".SH EXAMPLES\n.nf\n")[1].split(".fi\n")[0]
    config = flow.path / "manual.conf"
    config.write_text(example)
    pathlib.Path(flow.path / "conf.d").mkdir()
    expect_equal(output(flow.program("flywheeld"), "--check", "--config", config), "configuration valid\n", "--check")


def test_manual_has_every_flag_and_command(flow):
    for program, page in (("flywheeld", "flywheeld.8"), ("flywheel", "flywheel.1")):
        text = (ROOT / "tools/man" / page).read_text()
        titles = {word for title, _ in entries(text.split(".SH OPTIONS\n")[1].split(".SH ")[0])
                  for word in re.findall(r"--?[\w-]+", title)}
        flags = set(re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)", output(flow.program(program), "--help")))
        flags = {flag for flag in flags if flag.startswith("--") or len(flag) == 2}
        expect(len(flags) >= 5, f"{program} --help has no flags")
        expect_equal(titles, flags, f"flags in {page} and in --help")
    signals = set(re.findall(r"SIG\w+", output(flow.program("flywheeld"), "--help")))
    told = (ROOT / "tools/man/flywheeld.8").read_text().split(".SH SIGNALS\n")[1]
    expect_equal({s for s in re.findall(r"SIG\w+", told)}, signals, "signals in flywheeld.8 and in --help")
    commands = {c["command"]: c["arguments"] for c in Daemon(flow).console("help")}
    told = (ROOT / "tools/man/flywheel.1").read_text().split(".SH COMMANDS\n")[1].split(".SH ")[0]
    written = {title for titles, _ in entries(told) for title in titles.split(", ")}
    for command, arguments in commands.items():
        line = f"{command} {arguments}".rstrip()
        expect(line in written, f"flywheel.1 has no {line!r}")
        written.remove(line)
    expect_equal(written, set(), "commands that only flywheel.1 has")


def test_manual_of_the_spool_has_every_flag_and_command(flow):
    told = output(flow.program("flywheel-spool"), "--help")
    page = (ROOT / "tools/man/flywheel-spool.8").read_text()
    commands = [title for title, _ in entries(page.split(".SH COMMANDS\n")[1].split(".SH ")[0])]
    options = [title for title, _ in entries(page.split(".SH OPTIONS\n")[1].split(".SH ")[0])]
    expect_equal(commands, re.findall(r"^    (\S.*)$", told.split("COMMANDS\n")[1].split("\nOPTIONS")[0], re.M), "commands")
    flags = {flag for flag in re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)", told) if flag.startswith("--") or len(flag) == 2}
    expect_equal({word for title in commands + options for word in re.findall(r"(?<![\w-])--?[\w-]+", title)}, flags,
                 "flags in flywheel-spool.8 and in --help")


def check_manual_of(flow, word):
    """The page of commands that flywheel itself has behind a word says what its --help says."""
    told = output(flow.program("flywheel"), word, "--help")
    page = (ROOT / f"tools/man/flywheel-{word}.1").read_text()
    commands = [title for title, _ in entries(page.split(".SH COMMANDS\n")[1].split(".SH ")[0])]
    titles = [title for title, _ in entries(page.split(".SH OPTIONS\n")[1].split(".SH ")[0])]
    section = told.split("COMMANDS\n")[1].split("\nOPTIONS")[0]
    expect_equal(commands, re.findall(r"^    (\S+)$", section, re.M), "commands")
    flags = set(re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)", told.split("\nOPTIONS")[1].split("EXIT STATUS")[0]))
    expect_equal({word for title in titles for word in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", title)}, flags,
                 f"flags in flywheel-{word}.1 and in --help")


def test_manual_of_journals_has_every_flag_and_command(flow):
    check_manual_of(flow, "log")


def test_manual_of_repositories_has_every_flag_and_command(flow):
    check_manual_of(flow, "config")
