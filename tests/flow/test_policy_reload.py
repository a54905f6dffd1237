"""Scripts that live: a reload brings others, or leaves those that run; who waits in an old one ends in it."""

import re
import threading

from flow import Client, Sink, expect, expect_equal, wait_until
from test_policy import SCRIPTLET, module, policy
from test_reload import alone, refused, reload

# Says its name; whoever is slow waits in it until a file is there.
SAYS = '''
function mod:init() print("init {name}") return true end
function mod:deinit() print("deinit {name}") end
function mod:validate_mailfrom(str, ac, vctx)
  if str:match("^slow") then while not msys.readfile("{go}") do msys.sleep(0.02) end end
  vctx:set_code(550, "{name}")
  return msys.core.VALIDATE_CONT
end
msys.registerControl("{name}", function() print("I am {name}") end)
msys.registerModule("says", mod)
'''


def says(flow, name):
    return "local mod = {}\n" + SAYS.format(name=name, go=flow.path / "go")


def write(flow, script):
    (flow.path / "policy.lua").write_text(script)


def hooks(daemon, key):
    return sum(row[key] for row in daemon.console("hooks")["hooks"])


def states(daemon, count):
    wait_until(lambda: daemon.counter("scheduler.policy_states") == count, f"{count} states of scripts")
    expect_equal(daemon.console("hooks")["states"], count, "states that the console knows")


def hello(daemon):
    client = daemon.connect()
    client.say("EHLO c.test", 250)
    return client


def mail_from(client, sender="fast@b.test"):
    return client.say(f"MAIL FROM:<{sender}>")[1].split()[-1]


def panics(daemon):
    return (daemon.log / "paniclog").read_text()


def test_who_waits_ends_in_the_script_of_before(flow):
    daemon = policy(flow, says(flow, "old"), schedulers=1)
    slow, idle = hello(daemon), hello(daemon)
    expect_equal(mail_from(idle), "old", "who says it")
    slow.send("MAIL FROM:<slow@b.test>\r\n")
    wait_until(lambda: hooks(daemon, "suspended") == 1, "the one that waits")
    write(flow, says(flow, "new"))
    expect_equal(reload(daemon), {"generation": 2, "restart_needed": False}, "answer")
    # A session that has been in the old one, and one that has not.
    expect_equal((mail_from(idle), mail_from(hello(daemon))), ("new", "new"), "who says it")
    states(daemon, 2)
    daemon.wait_panic("init new")
    expect("deinit" not in panics(daemon), "the old one is over before its hook is")
    expect_equal(hooks(daemon, "suspended"), 1, "hooks that wait")
    (flow.path / "go").write_text("go")
    expect_equal(slow.reply()[1].split()[-1], "old", "who says it to the one that has waited")
    daemon.wait_panic("deinit old")
    states(daemon, 1)
    expect_equal(mail_from(slow), "new", "who says it then")
    expect_equal((hooks(daemon, "calls"), hooks(daemon, "suspended"), hooks(daemon, "errors")), (5, 0, 0), "hooks of both")
    slow.close()
    idle.close()
    alone(daemon)


test_who_waits_ends_in_the_script_of_before.short = True


def test_so_many_states_and_no_more(flow):
    daemon = policy(flow, says(flow, "s0"), schedulers=1)
    clients = [hello(daemon) for _ in range(17)]
    for i, client in enumerate(clients):
        client.send("MAIL FROM:<slow@b.test>\r\n")
        wait_until(lambda: hooks(daemon, "suspended") == i + 1, "the one that waits")
        write(flow, says(flow, f"s{i + 1}"))
        answer = reload(daemon)
        expect_equal("warnings" in answer, i == 16, f"answer {i}: {answer}")
    expect("the scripts of before stay: as many states" in answer["warnings"][0], f"answer: {answer}")
    states(daemon, 17)
    expect_equal(mail_from(hello(daemon)), "s16", "who says it")
    (flow.path / "go").write_text("go")
    expect_equal([client.reply()[1].split()[-1] for client in clients], [f"s{i}" for i in range(17)], "who says it to each")
    states(daemon, 1)
    expect("warnings" not in reload(daemon), "the next reload")
    expect_equal(mail_from(hello(daemon)), "s17", "who says it")
    states(daemon, 1)


def test_a_session_that_goes_takes_what_it_had_along(flow):
    """Its state was closed long before: what the session still has of it is no more than a name."""
    daemon = policy(flow, says(flow, "s0"), schedulers=1)
    clients = [hello(daemon) for _ in range(6)]
    for i, client in enumerate(clients):
        expect_equal(mail_from(client), f"s{i}", "who says it")
        write(flow, says(flow, f"s{i + 1}"))
        reload(daemon)
        states(daemon, 1)
    for client in clients[::2]:
        client.close()
    daemon.wait_panic("deinit s5")
    expect_equal([mail_from(client) for client in clients[1::2]], ["s6"] * 3, "who says it")
    waiting = [hello(daemon) for _ in range(2)]
    for client in waiting:
        client.send("MAIL FROM:<slow@b.test>\r\n")
    wait_until(lambda: hooks(daemon, "suspended") == 2, "those that wait")
    write(flow, "x = 1")
    reload(daemon)
    states(daemon, 2)
    # They go while they wait: so does the state.
    for client in waiting:
        client.reset()
    (flow.path / "go").write_text("go")
    states(daemon, 1)


test_a_session_that_goes_takes_what_it_had_along.short = True


def test_a_script_that_cannot_be_compiled_refuses_the_reload(flow):
    daemon = policy(flow, says(flow, "old"))
    write(flow, says(flow, "new") + "\nlocal x =\nif\n")
    answer = refused(daemon)
    expect("policy.lua:14: unexpected symbol near 'if'" in answer and f"{daemon.config}:" in answer, f"answer: {answer}")
    expect_equal(mail_from(hello(daemon)), "old", "who says it")
    states(daemon, 2)


def test_a_script_that_fails_leaves_the_one_of_before(flow):
    daemon = policy(flow, says(flow, "old"))
    before = daemon.counter("scheduler.policy_errors")
    for round, (text, why) in enumerate((("error('not today')", "policy.lua:13: not today"),
                                         ("mod.init = function() local x = nil return x.y end", "policy.lua:13: attempt to index"),
                                         ("mod.init = function() return false end", "init returned false"),
                                         ("msys.timer.after(0, function() print('too early') end) error('late')",
                                          "policy.lua:13: late")), 1):
        # Again and again, as long as it is wrong.
        for _ in range(2):
            write(flow, says(flow, "new") + "\n" + text)
            answer = reload(daemon)
            expect_equal(len(answer["warnings"]), 2, f"warnings in {answer}, one of each scheduler")
            for line in answer["warnings"]:
                expect("the scripts of before stay: " in line and why in line, f"warning: {line}")
        expect_equal(daemon.counter("scheduler.policy_errors") - before, 4 * round, "errors counted")
    daemon.wait_panic("policy.lua:13: not today (in policy) stack traceback:")
    expect_equal(mail_from(hello(daemon)), "old", "who says it")
    expect_equal(daemon.console("old"), "I am old", "the old command")
    states(daemon, 2)
    write(flow, says(flow, "new"))
    expect("warnings" not in reload(daemon), "the good one is warned of")
    expect_equal(mail_from(hello(daemon)), "new", "who says it")
    states(daemon, 2)
    expect("too early" not in panics(daemon), "a script that failed has set a timer")


test_a_script_that_fails_leaves_the_one_of_before.short = True


def test_a_scheduler_whose_script_fails_does_not_come_and_is_told_of(flow):
    daemon = policy(flow, says(flow, "old"))
    write(flow, "error('not today')")
    daemon.config.write_text(re.sub(r"(?m)^agent scheduler \{.*\}$", "agent scheduler { count = 4 }",
                                    daemon.config.read_text()))
    warnings = reload(daemon)["warnings"]
    why = "agents are not as the configuration says: flywheeld: policy: "
    expect(any(why in line and "policy.lua:1: not today" in line for line in warnings), f"warnings: {warnings}")
    daemon.wait_panic(why)
    expect_equal(mail_from(hello(daemon)), "old", "who says it")
    write(flow, says(flow, "new"))
    expect("warnings" not in reload(daemon), "the good one is warned of")


def test_scripts_come_and_go(flow):
    daemon = policy(flow, says(flow, "first"))
    whole = daemon.config.read_text()
    client = hello(daemon)
    expect_equal(mail_from(client), "first", "who says it")
    daemon.config.write_text(whole.replace(SCRIPTLET.format(more=""), ""))
    expect_equal(reload(daemon)["restart_needed"], False, "answer")
    states(daemon, 0)
    wait_until(lambda: panics(daemon).count("deinit first") == 2, "the end on both schedulers")
    client.say("MAIL FROM:<fast@b.test>", 250)
    client.say("RSET", 250)
    expect_equal(daemon.console("hooks")["hooks"], [], "hooks")
    expect("first" in daemon.console("first", fail=True), "the command is still there")
    write(flow, says(flow, "second"))
    daemon.config.write_text(whole)
    reload(daemon)
    states(daemon, 2)
    expect_equal(mail_from(client), "second", "who says it")


def test_commands_follow(flow):
    daemon = policy(flow, says(flow, "old"))
    expect_equal(daemon.console("old"), "I am old", "the command")
    write(flow, says(flow, "new"))
    reload(daemon)
    expect_equal(daemon.console("new"), "I am new", "the new command")
    expect("old" in daemon.console("old", fail=True), "the old command is still there")
    states(daemon, 2)


def test_a_command_that_waits_ends_in_the_script_of_before(flow):
    control = '''msys.registerControl("wait", function()
    while not msys.readfile("{go}") do msys.sleep(0.02) end print("{name}") end)'''
    daemon = policy(flow, control.format(name="old", go=flow.path / "go"), schedulers=1)
    console = flow.start("flywheel", "-s", daemon.control, "wait")
    daemon.wait_panic("wait")
    write(flow, control.format(name="new", go=flow.path / "go"))
    reload(daemon)
    states(daemon, 2)
    (flow.path / "go").write_text("go")
    console.wait(60)
    expect("old" in flow.output(console), "what the console says")
    states(daemon, 1)
    expect_equal(daemon.console("wait"), "new", "what it says now")


def test_a_stop_ends_what_waits_in_scripts_of_before(flow):
    daemon = policy(flow, says(flow, "old"), schedulers=1, text='stop_timeout = "500ms"\n')
    slow = hello(daemon)
    slow.send("MAIL FROM:<slow@b.test>\r\n")
    wait_until(lambda: hooks(daemon, "suspended") == 1, "the one that waits")
    write(flow, says(flow, "new"))
    reload(daemon)
    states(daemon, 2)
    expect_equal(daemon.terminate()[0], 0, "exit status")
    expect("deinit old" in panics(daemon), "the end of the old one")


test_a_stop_ends_what_waits_in_scripts_of_before.short = True


def test_a_reload_that_leaves_scripts_alone_leaves_their_states(flow):
    daemon = policy(flow, says(flow, "one") + "\ncount = 1\n", text='banner = "before"\n')
    expect_equal(daemon.console("lua", "eval", "(function() count = count + 1 return count end)()"), "2", "the global")
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace('"before"', '"after"'))
    reload(daemon)
    expect("after" in Client(daemon.port, greet=False).reply()[1], "the banner is the one from before")
    expect_equal(daemon.console("lua", "eval", "count"), "2", "the global")
    # The same text, written again; then other limits.
    write(flow, (flow.path / "policy.lua").read_text())
    reload(daemon)
    expect_equal(daemon.console("lua", "eval", "count"), "2", "the global")
    daemon.console("config", "set", "scriptlet", "scriptlet", "max_instructions", "20000")
    expect_equal(daemon.console("lua", "eval", "count"), "1", "the global of a new state")
    expect("budget" in daemon.console("lua", "eval", "(function() for i = 1, 1e6 do end return 1 end)()", fail=True),
           "the budget is as before")
    wait_until(lambda: panics(daemon).count("deinit one") == 2, "the end of the first states")
    states(daemon, 2)


def test_timers_follow(flow):
    ticks = 'msys.timer.every(0.01, function() print("tick {name}") end)\n'
    daemon = policy(flow, says(flow, "old") + ticks.format(name="old"), schedulers=1)
    daemon.wait_panic("tick old")
    slow = hello(daemon)
    slow.send("MAIL FROM:<slow@b.test>\r\n")
    wait_until(lambda: hooks(daemon, "suspended") == 1, "the one that waits")
    write(flow, says(flow, "new") + ticks.format(name="new"))
    reload(daemon)
    states(daemon, 2)
    wait_until(lambda: panics(daemon).count("tick new") >= 5, "the new timer to go off")
    expect("tick old" not in panics(daemon).split("init new", 1)[1], "the old timer goes off")
    (flow.path / "go").write_text("go")
    states(daemon, 1)


def test_scripts_alternate_under_load(flow):
    count = 20000
    sink = Sink(flow)
    script = module("validate_mailfrom(str, ac, vctx)", "if math.random(50) == 1 then msys.sleep(0.01) end return 0", '''
    function mod:validate_data(msg, ac, vctx)
      if math.random(50) == 1 then msys.sleep(0.01) end
      return msys.core.VALIDATE_CONT
    end
    function mod:validate_data_spool_each_rcpt(msg, ac, vctx)
      msg:header("X-Script", "{name}")
      return msys.core.VALIDATE_CONT
    end
    function mod:core_log_delivery_v1(msg) self.seen = (self.seen or 0) + 1 end
    kept = ("x"):rep(100000)
    ''')
    daemon = policy(flow, script.replace("{name}", "a"), sink)
    memory = daemon.console("hooks")["memory_bytes"]
    result = {}
    thread = threading.Thread(target=lambda: result.update(flow.load(daemon, "--messages", count, "--sessions", 8,
                                                                     "--domains", 20)))
    thread.start()
    for i in range(50):
        write(flow, script.replace("{name}", "ba"[i % 2]))
        expect("warnings" not in reload(daemon), "a warning")
    thread.join()
    expect_equal(result.get("accepted", result.get("messages")), count, f"messages accepted ({result})")
    daemon.wait_for_rest()
    wait_until(lambda: sink.count("messages") >= count, "all messages at the sink")
    expect_equal(sink.count_now("messages"), count, "messages at the sink")
    expect_equal(len(daemon.lines("T")) + len(daemon.lines("P")), 0, "failures")
    states(daemon, 2)
    alone(daemon)
    expect_equal((hooks(daemon, "errors"), hooks(daemon, "stopped"), hooks(daemon, "suspended")), (0, 0, 0), "hooks")
    # For the sender, the message, its recipient, and when it was delivered.
    wait_until(lambda: hooks(daemon, "calls") == 4 * count, "all calls, counted on")
    expect(daemon.console("hooks")["memory_bytes"] < 4 * memory + (4 << 20), "memory of scripts is not what it was")


test_scripts_alternate_under_load.short = True
