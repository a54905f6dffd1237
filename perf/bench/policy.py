"""What policy in Lua costs: relaying without a script, with a hook that does nothing, and with the script that
chooses a binding by a header; rate, CPU and instructions per message. And what scripts that misbehave take from others:
the rate of sessions whose scripts do nothing, beside sessions whose scripts loop, take memory, fail and wait."""

import pathlib
import shutil

from bench.counts import OPTIONS, SESSIONS, UNDER_VALGRIND, instructions
from bench.figures import Figure
from bench.flywheel import RELAY, Flywheel
from bench.load import Load, Sink, end_to_end_rate, load, load_troubles, sink_troubles
from bench.relay import through

SIZE = 2048
EMPTY = """
local mod = {}
function mod:validate_data_spool_each_rcpt(msg, ac, vctx) return msys.core.VALIDATE_CONT end
msys.registerModule("policy", mod)
"""
BINDING = """
local mod = {}
function mod:validate_set_binding(msg)
  local mybinding = msg:header("X-Binding")
  local err = msg:binding(mybinding)
  return msys.core.VALIDATE_CONT
end
msys.registerModule("policy", mod)
"""
# By the name in EHLO: what fwload calls itself.
MISBEHAVE = """
local mod = {}
local faults = {
  loops = function() while true do end end,
  allocates = function() local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end end,
  fails = function() error('wrong') end,
  waits = function() msys.sleep(10) error('waited') end,
}
function mod:validate_ehlo(str, ac, vctx)
  self.fault = faults[str]
  return msys.core.VALIDATE_CONT
end
function mod:validate_mailfrom(str, ac, vctx)
  if self.fault then self.fault() end
  return msys.core.VALIDATE_CONT
end
msys.registerModule("policy", mod)
"""
SCRIPTS = {"none": None, "empty": EMPTY, "binding": BINDING}
WORDS = {"none": "no script", "empty": "an empty hook", "binding": "a binding by a header"}
FAULTS = ("loops", "allocates", "fails", "waits")
# Of each kind, sessions that try again as soon as they are answered.
BAD_SESSIONS = 10
SCRIPTLET = '\nscriptlet "scriptlet" {{ script "policy" {{ source = "{}" }} }}\n'


def with_script(bench, text, name, script):
    """The configuration `text`, and the script."""
    if script is None:
        return text
    path = pathlib.Path(bench.work) / f"policy-{name}.lua"
    path.write_text(script, encoding="utf-8")
    return text + SCRIPTLET.format(path)


class Shape:
    """What through() needs to know of the mail."""

    name, size, sessions, options = "policy", SIZE, SESSIONS, OPTIONS


def relay(bench, messages, kind):
    text = with_script(bench, RELAY, kind, SCRIPTS[kind])
    with Sink(bench) as sink, Flywheel(bench, f"policy-{kind}", sink.port, text=text) as mta:
        return through(bench, Shape, messages, sink, mta.start(), WORDS[kind])


def instructions_with(bench, messages, kind):
    """User instructions of a whole run of so many messages."""
    text = with_script(bench, UNDER_VALGRIND, kind, SCRIPTS[kind])
    return instructions(bench, messages, f"policy-{kind}", text, SIZE)


class Beside:
    """The rate of sessions that behave, with or without others that do not."""

    def __init__(self, bench, messages, faults):
        text = with_script(bench, RELAY + "\nlistener_sessions = 0", "misbehave", MISBEHAVE)
        with Sink(bench) as sink, Flywheel(bench, "policy-beside", sink.port, text=text) as mta:
            mta.start()
            bad = [self.misbehave(bench, mta, fault) for fault in faults]
            try:
                if bad:
                    self.wait_for_faults(mta, faults)
                summary = load(bench, mta.port, messages, SIZE, SESSIONS, options=OPTIONS)
                sink.wait_for(summary["accepted"])
                for program in bad:
                    program.check()
            finally:
                for program in bad:
                    program.kill()
            queued = mta.wait_for_rest()
            mta.stop()
            books = sink.close_books()
        self.rate = end_to_end_rate(summary, books)
        bench.blame("policy, beside sessions that misbehave" if faults else "policy, alone",
                    load_troubles(summary) + queued + sink_troubles(books, summary["accepted"]))

    @staticmethod
    def misbehave(bench, mta, fault):
        """Sessions that go on until they are killed: all of their mail is refused."""
        return Load(bench, mta.port, 1000000, SIZE, BAD_SESSIONS, name=f"load-{fault}",
                    options=["--hostname", fault, "--id-prefix", fault, "--timeout", 600])

    @staticmethod
    def wait_for_faults(mta, faults):
        """Until those have begun that fail, and those that wait."""
        failing = any(fault != "waits" for fault in faults)
        mta.program.wait_until(
            lambda: (not failing or mta.counter("scheduler", "policy_errors") > 0) and
            ("waits" not in faults or sum(row["suspended"] for row in mta.console("hooks")["hooks"]) > 0),
            "scripts that misbehave", 120)


class Policy:
    name = "policy"
    about = "relay without a script, with an empty hook and with bindings by a header; beside scripts that misbehave"
    pairs_max = 3

    def run_pair(self, bench):
        messages = bench.count(20000, quick=4000)
        none = None
        for kind in SCRIPTS:
            run = relay(bench, messages, kind)
            beside = {} if none is None else {WORDS["none"]: none.rate}
            yield Figure(self.name, f"{kind}.rate", f"{WORDS[kind]}: rate, end to end", "messages/s", run.rate, beside)
            beside = {} if none is None else {WORDS["none"]: none.mta_us}
            yield Figure(self.name, f"{kind}.cpu", f"{WORDS[kind]}: CPU", "us/message", run.mta_us, beside)
            none = none or run
        if shutil.which("valgrind"):
            yield from self.instruction_figures(bench)
        else:
            bench.note_once("instructions of policy were not counted: valgrind is missing")
        for faults in [[fault] for fault in FAULTS] + [list(FAULTS)]:
            alone, run = Beside(bench, messages, []), Beside(bench, messages, faults)
            key, words = (faults[0], f"one that {faults[0]}") if len(faults) == 1 else ("misbehaving", "all of these")
            yield Figure(self.name, f"{key}.rate", f"others' rate, beside {words}", "messages/s", run.rate,
                         {"alone": alone.rate})

    def instruction_figures(self, bench):
        few, many = bench.count(1000, quick=200), bench.count(3000, quick=600)
        found = {kind: (instructions_with(bench, many, kind) - instructions_with(bench, few, kind)) / (many - few)
                 for kind in SCRIPTS}
        for kind, count in found.items():
            beside = {} if kind == "none" else {WORDS["none"]: found["none"]}
            yield Figure(self.name, f"{kind}.instructions", f"{WORDS[kind]}: user instructions", "per message", count,
                         beside)


CASES = [Policy()]
