"""What scripts may call besides messages and sessions: databases, timers, locks, threads of the pool, macros, counts
in windows of time, messages that they write themselves; and priorities."""

import email
import email.policy
import os
import pathlib
import sqlite3
import subprocess

from flow import Skip, die_with_us, expect, expect_equal, free_port, wait_until
from peer import Peer
from test_policy import data_hook, module, policy, received, send, told


def said(daemon, body, **options):
    """What a script says at EHLO, without the status before it."""
    return told(daemon.connect(**options))


def ehlo(code, before=""):
    return module("validate_ehlo(str, ac, vctx)", f"vctx:set_code(550, {code}) return 0", before)


def console(name, code):
    return f"msys.registerControl('{name}', function(cc) {code} end)\n"


def greeted(daemon, count):
    """So many clients, which have said EHLO."""
    clients = [daemon.connect() for _ in range(count)]
    for c in clients:
        c.say("EHLO c.test", 250)
    return clients


def expect_all_told(daemon, count, wanted):
    """What a script says at MAIL to so many clients at once."""
    clients = greeted(daemon, count)
    for c in clients:
        c.send("MAIL FROM:<a@b.test>\r\n")
    for c in clients:
        expect_equal(c.reply(), (550, f"5.7.1 {wanted}"), "reply")


# ---- databases ----


def people(flow):
    path = flow.path / "people.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE people (name TEXT, age NUMBER, note BLOB)")
        db.executemany("INSERT INTO people VALUES (?, ?, ?)", [("ann", 31, None), ("bob", 17, b"\0x"), ("cid", 2.5, "")])
    return path


def datasource(uri, more=""):
    return f'datasource "people" {{ uri = "{uri}" {more} }}\n'


def test_sqlite_is_asked(flow):
    path = people(flow)
    code = """
        local rows, seen = msys.db.query('people', 'SELECT name, age FROM people WHERE age > ? ORDER BY name', {10}), {}
        for row in rows do seen[#seen + 1] = row.name .. row.age end
        local row = msys.db.fetch_row('people', 'SELECT * FROM people WHERE name = :who', { who = 'bob' })
        local nobody, why = msys.db.fetch_row('people', "SELECT * FROM people WHERE name = 'eve'")
        local good = msys.db.execute('people', 'UPDATE people SET age = $age WHERE name = ?2', { age = 32, [2] = 'ann' })
        print(table.concat(seen, ' '), row.age, #row.note, nobody, why, good)"""
    daemon = policy(flow, "require('msys.db') require('msys.datasource')\n" + console("ask", code),
                    text=datasource(f"sqlite:{path}"))
    expect_equal(daemon.console("ask"), "ann31 bob17\t17\t2\tnil\tnil\ttrue", "answers")
    with sqlite3.connect(path) as db:
        expect_equal(db.execute("SELECT age FROM people WHERE name = 'ann'").fetchone(), (32,), "what was written")


test_sqlite_is_asked.short = True


def test_errors_of_databases_are_values_or_raised(flow):
    code = """
        local quiet = { raise_error = false }
        print(msys.db.query('people', 'SELEC', nil, quiet))
        print(msys.db.execute('people', 'SELECT 1; SELECT 2', nil, quiet))
        print(msys.db.execute('people', 'BEGIN', nil, quiet))
        print(msys.db.fetch_row('nowhere', 'SELECT 1', nil, quiet))
        print(msys.db.fetch_row('people', 'SELECT ?', { {} }, quiet))"""
    daemon = policy(flow, console("ask", code) + console("broken", "msys.db.query('people', 'SELEC')"),
                    text=datasource(f"sqlite:{people(flow)}"))
    expect_equal(daemon.console("ask").splitlines(), [
        'nil\tsqlite: near "SELEC": syntax error', "false\tsqlite: one statement expected",
        "false\tsqlite: a transaction cannot last beyond its statement", 'nil\tthere is no datasource "nowhere"',
        "nil\tparameters are text, numbers or booleans"], "what is told")
    expect("syntax error" in daemon.console("broken"), "what is raised")


def test_answers_are_bounded(flow):
    code = "local n = 0 for row in msys.db.query('people', 'SELECT name FROM people') do n = n + 1 end print(n)"
    daemon = policy(flow, console("ask", code), text=datasource(f"sqlite:{people(flow)}", "max_rows = 2"))
    expect_equal(daemon.console("ask"), "2", "rows")


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_query_ends_in_its_time(flow):
    code = f"print(msys.db.query('people', '{ENDLESS}', nil, {{ raise_error = false }}))"
    daemon = policy(flow, console("ask", code), text=datasource(f"sqlite:{people(flow)}", 'query_timeout = "50ms"'))
    expect_equal(daemon.console("ask"), "nil\tsqlite: the query takes too long", "what is told")


def test_connections_are_bounded_and_used_again(flow):
    """Two more wait for the one connection that there may be, and all three are answered by it."""
    script = module("validate_mailfrom(str, ac, vctx)",
                    "local row = msys.db.fetch_row('people', 'SELECT 1 AS one') vctx:set_code(550, 'is ' .. row.one) return 0")
    path = people(flow)
    daemon = policy(flow, script, text=datasource(f"sqlite:{path}", "max_connections = 1"), schedulers=1)
    expect_all_told(daemon, 3, "is 1")
    files = pathlib.Path(f"/proc/{daemon.process.pid}/fd")
    held = [f for f in files.iterdir() if f.is_symlink() and os.path.realpath(f) == str(path)]
    expect_equal(len(held), 1, f"connections that are open ({held})")


def redis(flow, *arguments):
    """A server of redis in the test's folder, until the test ends."""
    try:
        process = subprocess.Popen(["redis-server", *arguments, "--save", "", "--dir", str(flow.path)],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=die_with_us)
    except FileNotFoundError:
        raise Skip("redis-server is not installed") from None
    flow.closers.append(lambda: (process.kill(), process.wait()))


def redis_socket(flow):
    path = flow.path / "redis.sock"
    redis(flow, "--port", "0", "--unixsocket", str(path))
    wait_until(path.exists, "the socket of redis")
    return path


def test_redis_is_asked(flow):
    path = redis_socket(flow)
    code = """
        msys.db.execute('people', 'SET ? :note', { 'a key', note = 'with spaces' })
        local row = msys.db.fetch_row('people', 'GET ?', { 'a key' })
        local none, why = msys.db.fetch_row('people', 'GET nothing')
        msys.db.execute('people', 'RPUSH list one two')
        local all = {}
        for item in msys.db.query('people', 'LRANGE list 0 -1') do all[#all + 1] = item[1] end
        print(row[1], none, why, table.concat(all, ','), msys.db.fetch_row('people', 'INCRBY n ?', { 7 })[1])
        print(msys.db.execute('people', 'INCR list', nil, { raise_error = false }))
        print(msys.db.execute('people', 'GET ?', {}, { raise_error = false }))
        for _, verb in ipairs { 'MULTI', 'select 1', 'Subscribe x', '?' } do
            print(msys.db.execute('people', verb, { 'CLIENT' }, { raise_error = false }))
        end"""
    daemon = policy(flow, console("ask", code), text=datasource(f"redis:{path}"))
    lines = daemon.console("ask").splitlines()
    expect_equal(lines[0], "with spaces\tnil\tnil\tone,two\t7", "answers")
    expect("WRONGTYPE" in lines[1], f"an error of redis: {lines[1]}")
    expect_equal(lines[2], 'false\tredis: parameter "?" is missing', "an error before it")
    expect_equal(lines[3:], [f"false\tredis: {verb} cannot be used: queries share their connections"
                             for verb in ("MULTI", "select", "Subscribe", "CLIENT")], "what is of a connection")


def test_a_database_that_is_away_comes_back(flow):
    port = free_port()
    code = "print(msys.db.fetch_row('people', 'PING', nil, { raise_error = false }))"
    daemon = policy(flow, console("ask", code), text=datasource(f"redis:127.0.0.1:{port}"))
    expect_equal(daemon.console("ask"), "nil\tredis: Connection refused", "without a server")
    redis(flow, "--port", str(port), "--bind", "127.0.0.1")
    wait_until(lambda: daemon.console("ask").startswith("table:"), "an answer")


# ---- timers ----


def test_timers_call_functions(flow):
    script = console("seen", "print(table.concat(seen, ' '))") + """
        seen = {}
        local function add(what) return function() seen[#seen + 1] = what end end
        msys.timer.after(0, add('after'), 'one')
        msys.timer.at(1, add('at'))
        local never = msys.timer.after(3600, add('never'), 'never')
        never:stop()
        n = 0
        every = msys.timer.every(0.01, function()
            n = n + 1 msys.sleep(0.001)
            if n == 3 then every:stop() seen[#seen + 1] = every:name() end
        end, 'every')
    """
    daemon = policy(flow, script, schedulers=1)
    wait_until(lambda: sorted(daemon.console("seen").split()) == ["after", "at", "every"], "what timers said")


test_timers_call_functions.short = True


def test_timers_that_fail_are_told_and_go_on(flow):
    daemon = policy(flow, "n = 0 t = msys.timer.every(0.01, function() n = n + 1 if n == 1 then error('broken') end end, "
                    "'ticker')\n" + console("n", "print(n)"), schedulers=1)
    daemon.wait_panic("policy.lua:1: broken (in timer ticker)")
    wait_until(lambda: int(daemon.console("n")) > 2, "further calls")
    expect("there are 1000 timers already" in daemon.console(
        "lua", "eval", "(function() for i = 1, 2000 do msys.timer.after(1000, print) end end)()", fail=True), "a bound")


# ---- locks ----


def test_locks_hold_across_schedulers(flow):
    """Two schedulers count in a file of one line, which takes a wait between reading and writing."""
    path = flow.path / "count.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE counts (n NUMBER)")
        db.execute("INSERT INTO counts VALUES (0)")
    script = module("validate_mailfrom(str, ac, vctx)", """
        assert(msys.lock('count'))
        local n = msys.db.fetch_row('people', 'SELECT n FROM counts').n
        msys.sleep(0.01)
        msys.db.execute('people', 'UPDATE counts SET n = ?', { n + 1 })
        if n % 2 == 0 then msys.unlock('count') end
        return 0""")
    daemon = policy(flow, script, text=datasource(f"sqlite:{path}"), schedulers=2)
    clients = greeted(daemon, 6)
    for _ in range(3):
        for c in clients:
            c.send("MAIL FROM:<a@b.test>\r\nRSET\r\n")
    for c in clients:
        for _ in range(6):
            expect_equal(c.reply()[0], 250, "reply")
    with sqlite3.connect(path) as db:
        expect_equal(db.execute("SELECT n FROM counts").fetchone(), (18,), "count")


def test_locks_of_who_is_gone_are_free(flow):
    """Who ends without giving it back, by an error or not, on either scheduler."""
    script = module("validate_mailfrom(str, ac, vctx)", "assert(msys.lock('l')) msys.sleep(0.01) "
                    "if str:match('^fails') then error('no') end return 0")
    daemon = policy(flow, script, schedulers=2)
    clients = greeted(daemon, 4)
    for _ in range(2):
        for c, name in zip(clients, ("fails", "ends", "ends", "fails")):
            c.send(f"MAIL FROM:<{name}@b.test>\r\n")
        for c, code in zip(clients, (451, 250, 250, 451)):
            expect_equal(c.reply()[0], code, "reply")
        for c in clients:
            c.say("RSET", 250)


def test_locks_are_asked_for_rightly(flow):
    code = ("msys.lock('a') print(pcall(msys.lock, 'a')) print(pcall(msys.unlock, 'b')) msys.unlock('a') "
            "print(msys.lock('a'))")
    lines = policy(flow, console("ask", code)).console("ask").splitlines()
    expect('"a" is held already' in lines[0] and '"b" is not held here' in lines[1], f"errors: {lines}")
    expect_equal(lines[2], "true", "again")


# ---- the pool ----


def test_functions_run_in_the_pool(flow):
    code = """
        local words, pcre = { 'a', { n = 2 } }, msys.pcre
        words.self = words
        local function help(x) return x .. '!' end
        local f = function()
            print('from there')
            words[2].n = 3
            return help(words[1]), { words.self[2].n, pcre.match('k=v', '=(.)')[1] }, nil, 5
        end
        local good, text, list, none, number = msys.runInPool('IO', f)
        print(good, text, list[1], list[2], none, number, words[2].n)
        print(msys.runInPool('CPU', function() error('there') end))
        print(msys.runInPool('CPU', function() while true do end end))
        print(msys.runInPool('IO', function() return function() end end))
        print(msys.runInPool('IO', function() return nothing_there end))
        print(msys.runInPool('IO', function() msys.sleep(0.01) return type(_G), pcall(msys.lock, 'x') end))
        print(select(2, msys.runInPool('IO', function() return msys.pcre.match end)) == pcre.match)
    """
    daemon = policy(flow, console("ask", code))
    lines = daemon.console("ask").splitlines()
    expect_equal(lines[0], "true\ta!\t3\tv\tnil\t5\t2", "results")
    expect("policy.lua:12: there" in lines[1] and lines[1].startswith("false"), f"an error: {lines[1]}")
    expect("instruction budget used up" in lines[2], f"a loop: {lines[2]}")
    expect_equal(lines[3], "false\ta function cannot be returned from there", "a function")
    expect_equal(lines[4], "true\tnil", "nothing")
    expect("not on a thread of the pool" in lines[5], f"locks: {lines[5]}")
    expect_equal(lines[6], "true", "a function of a library")
    daemon.wait_panic(":scriptlet: from there")


test_functions_run_in_the_pool.short = True


def test_what_cannot_be_taken_there_runs_in_place(flow):
    body = """
        local function id()
            msys.sleep(0.01)
            return msg:context_get(msys.core.ECMESS_CTX_MESS, 'known'), 'x'
        end
        msg:context_set(msys.core.ECMESS_CTX_MESS, 'known', 'here')
        local seen = {}
        local good, text, more = msys.runInPool('IO', id)
        local failed, why = msys.runInPool('CPU', function() error(msg:mailfrom()) end)
        local function set() seen[1] = msg ~= nil end
        local none = select('#', msys.runInPool('IO', set, true))
        msys.runInPool('IO', function() error('alone' .. #msg:mailfrom()) end, function() seen[2] = vctx ~= nil end)
        vctx:set_code(550, table.concat({ tostring(good), text, more, tostring(failed), why:match('[^ ]*$'), none,
                                          tostring(seen[1]), tostring(seen[2]) }, ' '))
        return 0
    """
    daemon = policy(flow, module("validate_data(msg, ac, vctx)", body), Peer(flow))
    expect_equal(send(daemon, wanted=550), "5.7.1 true here x false from@sender.test 0 true true", "reply")
    daemon.wait_panic("alone16 (in runInPool)")
    expect_equal(daemon.console("hooks")["ran_in_place"], 4, "functions that ran in place")


test_what_cannot_be_taken_there_runs_in_place.short = True


def test_what_runs_in_place_has_the_budget_of_its_hook(flow):
    script = module("validate_data(msg, ac, vctx)", "local function again() msg:id() msys.runInPool('IO', again, true) end "
                    "if msg:header('Loops')[1] then while true do msys.runInPool('IO', function() return msg:id() end) end "
                    "else again() end return 0")
    daemon = policy(flow, script, Peer(flow), schedulers=1)
    send(daemon, body="Loops: yes\r\n\r\nHello\r\n", wanted=451)
    # Nobody waits for what this one began, so its end is told and the hook goes on.
    send(daemon)
    daemon.wait_panic("instruction budget used up")
    daemon.wait_panic("stack overflow (in runInPool)")


def test_functions_run_beside_the_session(flow):
    script = (module("validate_ehlo(str, ac, vctx)",
                     "msys.runInPool('IO', function() print('went') end, true) "
                     "msys.runInPool('IO', function() return 1 end, function() print('completed') end, "
                     "msys.core.ECTP_COMPLETE_CALLBACK_SCHED) "
                     "msys.runInPool('IO', function() error('lost') end, true) return 0"))
    daemon = policy(flow, script)
    daemon.connect().say("EHLO c.test", 250)
    for text in (":scriptlet: went", ":scriptlet: completed", "policy.lua:4: lost (in runInPool)"):
        daemon.wait_panic(text)


def test_many_functions_take_their_turns(flow):
    script = module("validate_mailfrom(str, ac, vctx)", "local good, n = msys.runInPool('IO', function() msys.sleep(0.02) "
                    "return 1 end) vctx:set_code(550, tostring(n)) return 0")
    daemon = policy(flow, script, schedulers=1)
    expect_all_told(daemon, 12, "1")


# ---- macros ----


def test_macros_are_expanded(flow):
    _, mails = received(flow, data_hook(
        "msg:context_set(msys.core.ECMESS_CTX_MESS, 'key', 'v') "
        "msg:header('X-Macros', msys.expandMacro('%i %r@%R %m@%M %h{subject} %vctx_mess{key} %{vctx_mess:key} "
        "%{vctx_conn:ehlo_string} %H %% %d|') .. tostring(pcall(msys.expandMacro, '%Z')))"))
    lines = [line for line in mails[0].data.split(b"\r\n") if line.startswith(b"X-Macros:")]
    expect(lines and lines[0].endswith(b" to@good.test from@sender.test test v v client.test 127.0.0.1 % good.test|false"),
           f"expanded: {lines}")
    expect_equal(len(lines[0].split()[1]), 26, "id")


def test_macros_of_fields_say_what_is_in_the_header(flow):
    _, mails = received(flow, data_hook(
        "msg:context_set(msys.core.ECMESS_CTX_MESS, 'subject:', 'context') "
        "msg:context_set(msys.core.ECMESS_CTX_MESS, 'long', ('x'):rep(3000)) "
        "msg:header('X-Macros', msys.expandMacro('%h{Subject} %h{subject}'))"))
    expect(b"\r\nX-Macros: test test\r\n" in mails[0].data, f"expanded: {mails[0].data}")


# ---- counts ----


def test_events_are_counted_in_windows(flow):
    script = """
        msys.audit_series.define('words', 'string', 3600, 6)
        msys.audit_series.define('nets', 'cidr', 3600, 6)
        msys.audit_series.define('six', 'cidr_ipv6', 3600, 6)
    """ + module("validate_ehlo(str, ac, vctx)", """
        local a = msys.audit_series
        a.add('words', 'x') a.add('words', { key = 'x', count = 4 }) a.add('words', 'y')
        a.add('nets', '10.1.2.3') a.add('nets', '10.1.2.9') a.add('nets', '10.1.3.1') a.add('nets', ac)
        a.add('six', '2001:db8::1') a.add('six', '[2001:db8::2]')
        local seen = { a.count('words', 'x'), a.count('words', { key = 'x', startv = 0, endv = 5 }),
            a.count('words', { key = 'x', startv = 1, endv = 5 }), a.count('nets', '10.1.2.3'),
            a.count('nets', '10.1.2.0/24'), a.count('nets', '10.1.0.0/16'), a.count('nets', '/8'),
            a.count('six', '2001:db8::/64'), tostring(pcall(a.count, 'none', 'x')),
            tostring(pcall(a.count, 'nets', '10.0.0.0/9')) }
        a.remove_item('words', 'x')
        seen[#seen + 1] = a.count('words', 'x') .. a.count('words', 'y')
        vctx:set_code(550, table.concat(seen, ' ')) return 0""")
    expect_equal(said(policy(flow, script, schedulers=1), script), "5 5 0 1 2 3 1 2 false false 01", "counts")


# ---- networks ----

RBL = """# a list
:3:listed $
10.79::$ is bad
192.0.2.0/24
!192.0.2.7
198.51.100.3-198.51.100.9 :127.0.0.9:range
203.0.113.1-2
2001:db8::/32 :5:six
127.0.0.1 :4:here
what is this
"""


def test_networks_come_from_a_file(flow):
    path = flow.path / "list"
    path.write_text(RBL)
    script = f"""
        msys.cidr.define('a', {{ type = 'rbldnsd', source = 'file://{path}', refresh = 0, default_value = 'none' }})
        msys.cidr.define('txt', {{ type = 'rbldnsd', source = '{path}', value = 'txt', interpolate = true }})
        msys.cidr.define('own', {{ '10.0.0.0/8', ['10.1.0.0/16'] = false }})
        msys.cidr.define('nothing', 'empty')
    """
    daemon = policy(flow, script + module("validate_ehlo(str, ac, vctx)",
                                          "vctx:set_code(550, msys.cidr.query('txt') .. ' ' .. msys.cidr.query('a')) return 0"))
    daemon.wait_panic("cidr a: 1 lines are no networks")
    expect_equal(told(daemon.connect()), "here 127.0.0.4", "of the client")
    for name, address, wanted in (
            ("a", "10.79.3.4", "127.0.0.3"), ("a", "192.0.2.9", "127.0.0.3"), ("a", "192.0.2.7", "none"),
            ("a", "10.80.0.1", "none"), ("a", "2001:db8::9", "127.0.0.5"), ("txt", "10.79.3.4", "10.79.3.4 is bad"),
            ("txt", "192.0.2.9", "listed 192.0.2.9"), ("txt", "198.51.100.2", "nil"), ("txt", "198.51.100.3", "range"),
            ("txt", "198.51.100.8", "range"), ("txt", "198.51.100.9", "range"), ("txt", "198.51.100.10", "nil"),
            ("a", "203.0.113.2", "127.0.0.3"), ("a", "203.0.113.3", "none"), ("own", "10.2.3.4", "10.0.0.0/8"),
            ("own", "10.1.3.4", "nil"), ("nothing", "10.1.3.4", "nil")):
        expect_equal(daemon.console("lua", "eval", f"msys.cidr.query('{name}', '{address}')"), wanted, f"{name}, {address}")
    path.write_text("10.80.0.1 :9:\n")
    daemon.console("lua", "eval", "msys.cidr.reload('a')")
    expect_equal(daemon.console("lua", "eval", "msys.cidr.query('a', '10.80.0.1') .. msys.cidr.query('a', '10.79.3.4')"),
                 "127.0.0.9none", "after a reload")
    path.unlink()
    expect("No such file" in daemon.console("lua", "eval", "msys.cidr.reload('a')", fail=True), "an error of a reload")
    expect_equal(daemon.console("lua", "eval", "msys.cidr.query('a', '10.80.0.1')"), "127.0.0.9", "what was there stays")
    for code, wanted in (("msys.cidr.query('none', '10.0.0.1')", "nothing is defined"), ("msys.cidr.query('a')", "no session"),
                         ("msys.cidr.define('x', 'other')", "the type is"), ("msys.cidr.define('x', { 'y' })", "not a network")):
        expect(wanted in daemon.console("lua", "eval", code, fail=True), f"error of {code}")


def test_networks_come_from_a_database(flow):
    path = flow.path / "nets.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE nets (net TEXT, what TEXT)")
        db.execute("INSERT INTO nets VALUES ('10.0.0.0/8', 'ten')")
    script = """
        msys.cidr.define('both', { type = 'datasource', cachename = 'people', query = 'SELECT net, what FROM nets',
                                   cidr_column = 'net', value_column = 'what', refresh = 0.05 })
        msys.cidr.define('one', { type = 'datasource', cachename = 'people', query = 'SELECT net FROM nets', refresh = 0 })
        msys.cidr.define('bad', { type = 'datasource', cachename = 'people', query = 'SELECT * FROM nets', refresh = 0 })
    """
    daemon = policy(flow, script, text=datasource(f"sqlite:{path}"), schedulers=1)
    for name, wanted in (("both", "ten"), ("one", "true")):
        wait_until(lambda: daemon.console("lua", "eval", f"msys.cidr.query('{name}', '10.1.2.3')") == wanted,
                   f"networks of {name}")
    daemon.wait_panic("cidr bad: cidr_column says which column has networks (in timer cidr bad)")
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO nets VALUES ('10.1.0.0/16', 'inner')")
    wait_until(lambda: daemon.console("lua", "eval", "msys.cidr.query('both', '10.1.2.3')") == "inner", "a new network")


# ---- messages that scripts write ----


def test_a_message_is_built(flow):
    script = module("validate_data(msg, ac, vctx)", """
        local new = msys.core.ec_message_new()
        new:build({ From = 'a@b.test', Subject = 'made\\r\\nX-Bad: 1' },
                  { ['text/html'] = '<b>hallo</b>', ['text/plain; charset=utf-8'] = 'h\\195\\164llo' },
                  { { type = 'application/x-thing', name = 'a"b.bin', content = '\0\1\2' } })
        new:inject('maker@b.test', 'made@good.test')
        return 0""")
    _, mails = received(flow, script, mails=2)
    made = next(m for m in mails if m.recipients == ["made@good.test"])
    expect_equal(made.sender, "maker@b.test", "sender")
    m = email.message_from_bytes(made.data, policy=email.policy.default)
    expect_equal((m["Subject"], m["X-Bad"], m.get_content_type()), ("made X-Bad: 1", None, "multipart/mixed"), "header")
    parts = [(p.get_content_type(), p.get_content()) for p in m.walk() if not p.is_multipart()]
    expect_equal([(kind, text.strip() if isinstance(text, str) else text) for kind, text in parts],
                 [("text/plain", "h\u00e4llo"), ("text/html", "<b>hallo</b>"), ("application/x-thing", b"\0\1\2")], "parts")
    expect_equal([p.get_filename() for p in m.walk() if p.get_filename()], ["a_b.bin"], "name")


def test_text_is_read_and_replaced(flow):
    body = ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
            "Content-Transfer-Encoding: quoted-printable\r\n\r\nh=E4llo\r\n--b\r\nContent-Type: text/html\r\n\r\n"
            "<p>\r\n--b--\r\n")
    script = data_hook("local t = msg:text() assert(#t == 2 and t[1]:match('^h\\195\\164llo') and t[2]:match('^<p>'), t[1]) "
                       "assert(msg:text_match('h.+o')[0] == 'h\\195\\164llo') assert(msg:text_match('none') == nil) "
                       "msg:text('n\\195\\182', 'text/plain', 'iso-8859-1') assert(msg:text():match('^n\\195\\182'))")
    _, mails = received(flow, script, body=body)
    data = mails[0].data
    expect(b"Content-Type: text/plain; charset=iso-8859-1\r\n" in data and b"\r\n\r\nn=F6" in data, f"text: {data}")


def test_a_message_is_forwarded(flow):
    script = module("validate_data(msg, ac, vctx)", "msg:forward('boss@b.test', 'one@good.test, Two <two@good.test>', "
                    "'see below', 'Fwd: it') return 0")
    _, mails = received(flow, script, mails=3)
    for address in ("one@good.test", "two@good.test"):
        mail = next(m for m in mails if m.recipients == [address])
        expect_equal(mail.sender, "boss@b.test", "sender")
        for part in (b"Subject: Fwd: it\r\n", b"Content-Type: message/rfc822\r\n", b"Subject: test\r\n", b"Hello"):
            expect(part in mail.data, f"{part} in {mail.data}")


def test_parts_are_made(flow):
    code = """
        local p = msg:makePart('text/html; charset=utf-8', '<p>\\195\\164</p>', msys.core.EC_MIME_TE_BASE64)
        local c = msg:makeContainer('multipart/mixed', 'bbb')
        msg:header('X-Parts', table.concat({ p:content_type(), p:encoding(), p:text() == '<p>\\195\\164</p>' and 'same' or 'other',
            p:header('content-transfer-encoding')[1], c:header('content-type')[1], #msg:makeBoundary() }, '|'))"""
    _, mails = received(flow, data_hook(code))
    expect(b"X-Parts: text/html|base64|same|base64|multipart/mixed; boundary=\"bbb\"|26\r\n" in mails[0].data,
           f"{mails[0].data}")


def test_parts_are_put_into_a_message(flow):
    body = ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n..plain\r\n--b--\r\n")
    code = """
        local top = msg:mime(false)
        local box = msg:makeContainer('multipart/alternative')
        box:addLastChild(msg:makePart('text/plain; charset=utf-8', 'n\\195\\182', msg_core.EC_MIME_TE_QUOTED_PRINTABLE))
        box:addLastChild(msg:makePart('text/html', '<b>', msg_core.EC_MIME_TE_BASE64))
        assert(top:addLastChild(box) and #top:children() == 2)
        msg:text_replace('plain', 'other')
        msg:header('X-Text', msg:text()[3])"""
    _, mails = received(flow, "msg_core = msys.core\n" + data_hook(code), body=body)
    m = email.message_from_bytes(mails[0].data, policy=email.policy.default)
    expect_equal([(p.get_content_type(), p.get_content().strip()) for p in m.walk() if not p.is_multipart()],
                 [("text/plain", ".other"), ("text/plain", "n\u00f6"), ("text/html", "<b>")], f"parts of {mails[0].data}")
    expect_equal(m["X-Text"], "<b>", "what the hook reads then")


# ---- priorities ----


def test_mail_with_a_priority_goes_first(flow):
    """What waits is sent over one connection, by priority, after a kill too."""
    peer = Peer(flow)
    script = data_hook("msg:priority(tonumber(msg:header('X-Priority')[1])) ")
    daemon = policy(flow, script, peer, 'domain "good.test" { suspend_delivery = true max_outbound_connections = 1 }\n',
                    schedulers=1)
    ids = []
    for n, priority in enumerate((0, 0, 1, 0, 9)):
        ids.append(send(daemon, f"r{n}@good.test", body=f"X-Priority: {priority}\r\n\r\nHello\r\n"))
    wait_until(lambda: daemon.queued() == 5, "all of them")
    shown = [daemon.console("message", daemon.wait_lines("R", 5)[n][1])["priority"] for n in (0, 2, 4)]
    expect_equal(shown, [0, 1, 9], "what the console shows")
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.queued() == 5, "all of them, after a kill")
    daemon.console("resume", "domain", "good.test")
    expect_equal(sorted(m.recipients[0] for m in peer.wait(5)[:2]), ["r2@good.test", "r4@good.test"], "first")


# ---- what is bounded ----

SLOW = {"find": "local s = ('a'):rep(3000) s:find(('.-'):rep(9) .. 'b')",
        "match": "local s = ('a'):rep(3000) s:match(('a*'):rep(9) .. 'b')",
        "gsub": "local s = ('('):rep(5000) s:gsub('%b()', '')  for i = 1, 1e9 do s:gsub('%b()', '') end",
        "gmatch": "local s = ('a'):rep(3000) for x in s:gmatch(('a-'):rep(9) .. 'b') do end",
        "rep": "for i = 1, 1e9 do local s = ('x'):rep(2e6 + i) end",
        "concat": "local s = ('x'):rep(1e6) for i = 1, 1e9 do local t = s .. i end",
        "sort": "local t = {} for i = 1, 1e5 do t[i] = i end for i = 1, 1e9 do table.sort(t) end",
        "pcre": "local s = ('a'):rep(40) for i = 1, 1e9 do pcall(msys.pcre.match, s, '(a+)+b') end"}


def test_functions_in_c_are_bounded_too(flow):
    body = "".join(f"if str:match('^{name}') then {text} end\n" for name, text in SLOW.items())
    daemon = policy(flow, module("validate_mailfrom(str, ac, vctx)", body + "return 0"), schedulers=1)
    clients = dict(zip(SLOW, greeted(daemon, len(SLOW))))
    for name, client in clients.items():
        client.send(f"MAIL FROM:<{name}@b.test>\r\n")
    for name, client in clients.items():
        expect_equal(client.reply(), (451, "4.3.0 Policy failed, try again later"), name)
    row = daemon.console("hooks")["hooks"][0]
    expect_equal((row["calls"], row["stopped"]), (len(SLOW), len(SLOW)), f"stopped of all calls ({row})")


def test_patterns_are_those_of_lua(flow):
    daemon = policy(flow, "")
    for code, wanted in (
            ("('hello world'):find('o w')", "5\t7"), ("('hello'):find('l', 1, true)", "3\t3"),
            ("('a.b'):find('.', 2, true)", "2\t2"), ("('hello'):find('')", "1\t0"), ("('hello'):find('xyz')", "nil"),
            ("('key = value'):match('^(%w+)%s*=%s*(%w+)$')", "key\tvalue"), ("('hello'):match('.-l()')", "4"),
            ("('f(a(b)c)d'):match('%b()')", "(a(b)c)"), ("('THE (quick) fox'):find('%f[%a]%a+%f[%A]', 2)", "6\t10"),
            ("('x^y-z]'):gsub('[%^%-%]]', '.')", "x.y.z.\t3"), ("('abc'):gsub('%w', '%0%0')", "aabbcc\t3"),
            ("('abc'):gsub('', '-')", "-a-b-c-\t4"), ("('hello world'):gsub('o', { o = '0' }, 1)", "hell0 world\t1"),
            ("('abc'):gsub('(b)', function(x) return nil end)", "abc\t1"), ("('aa'):match('^(a)%1$')", "a"),
            ("('  x '):match('^%s*(.-)%s*$')", "x"), ("('a-z'):match('[a%-z]+')", "a-z"), ("('a]'):match('[]a]+')", "a]"),
            ("('\\0a'):find('%z')", "1\t1"), ("('x1Y'):gsub('[^%l]', '_')", "x__\t2"), ("('ab'):match('a?b?c?')", "ab"),
            ("('abcd'):gsub('(.)(.)', '%2%1')", "badc\t2"), ("('hello'):match('h(.+)o', -10)", "ell"),
            ("(function() local t = {} for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do t[#t + 1] = k .. v end "
             "return table.concat(t, '|') end)()", "a1|b2"),
    ):
        expect_equal(daemon.console("lua", "eval", code), wanted, code)
    for code, wanted in (("('a'):find('[a')", "malformed pattern (missing ']')"), ("('a'):find('%')", "ends with '%'"),
                         ("('a'):match('(a')", "unfinished capture"), ("('a'):gsub('a', '%2')", "invalid capture index"),
                         ("('a'):match('a)')", "invalid pattern capture"), ("('a'):match('%1')", "invalid capture index")):
        expect(wanted in daemon.console("lua", "eval", code, fail=True), code)
