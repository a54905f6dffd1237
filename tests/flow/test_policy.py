"""Policy in Lua: hooks and objects as Momentum's documentation describes them, what stops a script, and
what the console knows of it all."""

import http.server
import ssl
import subprocess
import threading

from certificates import Certificates
from flow import Daemon, expect, expect_equal, wait_until
from names import NameServer, Zone
from peer import Peer
from test_tls import start_tls, tls_options

SCRIPTLET = 'scriptlet "scriptlet" {{ script "policy" {{ source = "policy.lua" }} {more} }}\n'
TWO = 'binding "a" { bind_address = "127.0.0.11" }\nbinding "b" { bind_address = "127.0.0.12" }\n'
# As the issue of senders who come from Momentum has it: nothing in them is to change.
BINDING = '''
local mod = {};
function mod:validate_set_binding(msg)
  local mybinding = msg:header("X-Binding");
  local err = msg:binding(mybinding);
end
msys.registerModule("policy", mod);
'''
CONTROL = '''
function test_code(cc)
  local doc = xml.parsexml([[<doc></doc>]]);
  local node = doc:root();
  local child = node:addchild("item");
  child:attr("name", "Junior");
  child:contents("I am a child node.");
  print(node);
end
msys.registerControl("test_code", test_code);
'''


def module(hook, body, more=""):
    """A script with one hook: `body` is the text of the function, `hook` its name and arguments."""
    return f"local mod = {{}}\n{more}\nfunction mod:{hook}\n{body}\nend\nmsys.registerModule('policy', mod)\n"


def policy(flow, script, peer=None, text="", more="", **options):
    (flow.path / "policy.lua").write_text(script)
    return Daemon(flow, sink_port=peer.port if peer else None, text=SCRIPTLET.format(more=more) + text, **options)


def send(daemon, to="to@good.test", body="Subject: test\r\n\r\nHello\r\n", wanted=250, **options):
    code, text = daemon.connect().mail(to, body=body, **options)
    expect_equal(code, wanted, f"reply ({text})")
    return text


def received(flow, script, mails=1, text="", **options):
    """What the next hop gets of one message that goes through the script."""
    peer = Peer(flow)
    daemon = policy(flow, script, peer, text)
    send(daemon, **options)
    return daemon, peer.wait(mails)


def data_hook(body):
    return module("validate_data_spool_each_rcpt(msg, ac, vctx)", body + "\nreturn msys.core.VALIDATE_CONT")


# ---- the two scripts that must run unchanged ----


def test_script_for_bindings_runs_unchanged(flow):
    peer = Peer(flow)
    daemon = policy(flow, BINDING, peer, TWO)
    for name in ("a", "b", "nobody"):
        send(daemon, body=f"X-Binding: {name}\r\nSubject: x\r\n\r\nHello\r\n")
    send(daemon)
    peer.wait(4)
    lines = daemon.wait_lines("D", 4)
    expect_equal(sorted(line[8] for line in lines), ["a", "b", "default", "default"], "bindings")
    daemon.wait_panic("validate_set_binding of module policy returns nothing")


test_script_for_bindings_runs_unchanged.short = True
test_script_for_bindings_runs_unchanged.backends = ["uring", "epoll", "poll"]


def console_text(flow, daemon, *words):
    run = subprocess.run([flow.program("flywheel"), "-s", daemon.control, *words], capture_output=True, text=True,
                         timeout=60)
    expect_equal(run.returncode, 0, f"exit status ({run.stderr})")
    return run.stdout


def test_script_for_the_console_runs_unchanged(flow):
    daemon = policy(flow, CONTROL)
    expect_equal(console_text(flow, daemon, "test_code"),
                 '<doc><item name="Junior">I am a child node.</item></doc>\n', "output")


test_script_for_the_console_runs_unchanged.short = True


def test_a_wrong_argument_is_told_in_the_words_of_lua(flow):
    daemon = policy(flow, CONTROL.replace('"I am a child node."', "nil"))
    expect_equal(console_text(flow, daemon, "test_code"),
                 "bad argument #1 to 'contents' (string expected, got nil)\n", "output")
    daemon.wait_panic("policy.lua:7: bad argument #1 to 'contents'")


def test_commands_get_their_words(flow):
    daemon = policy(flow, "msys.registerControl('count', function(cc) print(cc.argc, cc.argv[0], cc.argv[1]) end)")
    expect_equal(daemon.console("count", "one two"), "2\tcount\tone two", "output")
    expect("unknown command" in daemon.console("counted", fail=True), "a command that nobody registered")


# ---- hooks, in the order in which a message meets them ----


def test_hooks_are_called_in_order(flow):
    names = ["validate_connect(ac, vctx)", "validate_ehlo(str, ac, vctx)", "validate_mailfrom(str, ac, vctx)",
             "validate_rcptto(msg, str, ac, vctx)", "validate_data(msg, ac, vctx)",
             "validate_data_spool(msg, ac, vctx)", "validate_data_spool_each_rcpt(msg, ac, vctx)",
             "core_config_get_message_routing_domain(scope, msg, buff)", "validate_set_binding(msg)",
             "core_final_validation(msg, ac, vctx)", "core_log_delivery_v1(msg, note, code)"]
    script = "local mod, seen = {}, {}\n" + "".join(
        f"function mod:{n} seen[#seen + 1] = '{n.partition('(')[0]}' return msys.core.VALIDATE_CONT end\n"
        for n in names)
    script = script.replace("'core_config_get_message_routing_domain' return msys.core.VALIDATE_CONT",
                            "'core_config_get_message_routing_domain'")
    script += ("msys.registerModule('policy', mod)\n"
               "msys.registerControl('seen', function() print(table.concat(seen, ' ')) end)\n")
    peer = Peer(flow)
    daemon = policy(flow, script, peer, schedulers=1)
    send(daemon)
    peer.wait(1)
    daemon.wait_lines("D", 1)
    wanted = " ".join(n.partition("(")[0] for n in names)
    wait_until(lambda: daemon.console("seen") == wanted, "all hooks in order")


def test_init_and_deinit_are_called(flow):
    daemon = policy(flow, module("init()", "print('begins') return true",
                                 "function mod:deinit() print('ends') end"), schedulers=1)
    daemon.wait_panic(":scriptlet: begins")
    expect_equal(daemon.terminate()[0], 0, "exit status")


def test_modules_take_turns_until_one_is_done(flow):
    script = "".join(f"msys.registerModule('m{i}', {{ validate_ehlo = function(self, str) order = (order or '') .. '{i}' "
                     f"return msys.core.{code} end }})\n"
                     for i, code in ((1, "VALIDATE_CONT"), (2, "VALIDATE_DONE"), (3, "VALIDATE_CONT")))
    daemon = policy(flow, script + "msys.registerControl('order', function() print(order) end)", schedulers=1)
    daemon.connect().say("EHLO client.test", 250)
    expect_equal(daemon.console("order"), "12", "order")


def test_again_calls_again(flow):
    script = module("validate_ehlo(str)", "n = (n or 0) + 1 if n < 3 then return msys.core.VALIDATE_AGAIN end "
                    "return msys.core.VALIDATE_CONT")
    daemon = policy(flow, script + "msys.registerControl('n', function() print(n) end)", schedulers=1)
    daemon.connect().say("EHLO client.test", 250)
    expect_equal(daemon.console("n"), "3", "calls")


def test_connect_may_be_refused(flow):
    daemon = policy(flow, module("validate_connect(ac, vctx)", "vctx:set_code(554, 'Not from ' .. ac:peer()) "
                                 "return msys.core.VALIDATE_DONE"))
    client = daemon.connect(greet=False)
    expect_equal(client.reply(), (554, "5.7.1 Not from 127.0.0.1"), "banner")
    expect(client.ended(), "the connection stays open")


def test_ehlo_may_be_refused(flow):
    daemon = policy(flow, module("validate_ehlo(str, ac, vctx)", "if str == 'bad.test' then "
                                 "vctx:set_code(550, '5.7.9 Go away') end return msys.core.VALIDATE_CONT"))
    client = daemon.connect()
    expect_equal(client.say("EHLO bad.test"), (550, "5.7.9 Go away"), "reply")
    client.say("MAIL FROM:<a@b.test>", 503)
    client.say("EHLO good.test", 250)


def test_sender_may_be_refused(flow):
    daemon = policy(flow, module("validate_mailfrom(str, ac, vctx)", "if str:match('@spam') then "
                                 "vctx:set_code(550, 'No ' .. str) end return msys.core.VALIDATE_CONT"))
    client = daemon.connect()
    client.say("EHLO c.test", 250)
    expect_equal(client.say("MAIL FROM:<a@spam.test>"), (550, "5.7.1 No a@spam.test"), "reply")
    client.say("MAIL FROM:<a@ham.test>", 250)


def test_recipient_may_be_refused(flow):
    peer = Peer(flow)
    script = module("validate_rcptto(msg, str, ac, vctx)",
                    "if str == 'no@good.test' and msg:mailfrom() == 'from@sender.test' then "
                    "vctx:set_code(551, 'Not here') end return msys.core.VALIDATE_CONT")
    daemon = policy(flow, script, peer)
    client = daemon.connect()
    client.say("EHLO c.test", 250)
    client.say("MAIL FROM:<from@sender.test>", 250)
    client.say("RCPT TO:<no@good.test>", 551)
    client.say("RCPT TO:<yes@good.test>", 250)
    client.say("DATA", 354)
    client.send("Subject: x\r\n\r\nx\r\n")
    client.say(".", 250)
    expect_equal(peer.wait(1)[0].recipients, ["yes@good.test"], "recipients")


def test_message_may_be_refused(flow):
    for hook in ("validate_data", "validate_data_spool", "validate_data_spool_each_rcpt", "core_final_validation"):
        (flow.path / "policy.lua").write_text("")
        daemon = policy(flow, module(f"{hook}(msg, ac, vctx)", "msg:code(550, 'Bad words') "
                                     "return msys.core.VALIDATE_DONE"))
        text = send(daemon, wanted=550)
        expect_equal(text, "5.7.1 Bad words", f"reply of {hook}")
        expect_equal(daemon.queued(), 0, "queued")
        expect_equal(daemon.terminate()[0], 0, "exit status")


def test_the_code_of_a_message_is_read(flow):
    daemon = policy(flow, module("validate_data(msg, ac, vctx)", "local before = tostring(msg:code()) msg:code('421', 'Too much') "
                                 "local first = msg:code() msg:code(0, '552 5.3.4 Large') local second = msg:code() "
                                 "assert(msg:is_mcmt() == false) msg:code(553) msg:code(550, table.concat({ before, first, second, msg:code() }, ', ')) return 0"))
    expect_equal(send(daemon, wanted=550), "5.7.1 nil, 421 Too much, 552 5.3.4 Large, 553", "reply")


def test_client_may_be_dismissed(flow):
    daemon = policy(flow, module("validate_mailfrom(str, ac, vctx)", "vctx:disconnect(421, 'Enough') "
                                 "return msys.core.VALIDATE_DONE"))
    client = daemon.connect()
    client.say("EHLO c.test", 250)
    expect_equal(client.say("MAIL FROM:<a@b.test>")[0], 421, "reply")
    expect(client.ended(), "the connection stays open")


def test_tarpit_holds_the_reply_back_and_nobody_else(flow):
    daemon = policy(flow, module("validate_ehlo(str, ac, vctx)", "if str == 'slow.test' then vctx:tarpit(3600) end "
                                 "return msys.core.VALIDATE_CONT"), schedulers=1)
    slow = daemon.connect()
    slow.send("EHLO slow.test\r\n")
    for _ in range(20):
        daemon.connect().say("EHLO fast.test", 250)
    daemon.terminate()


# ---- accept, vctx ----


def test_accept_says_who_has_connected_where(flow):
    daemon = policy(flow, module("validate_connect(ac, vctx)", "facts = ac:listener() .. ' ' .. ac:peer() .. ' ' .. "
                                 "ac:inbound_session_count() return msys.core.VALIDATE_CONT")
                    + "msys.registerControl('facts', function() print(facts) end)", schedulers=1)
    client = daemon.connect()
    expect_equal(daemon.console("facts"), f"127.0.0.1:{daemon.port} 127.0.0.1 1", "facts")
    client.close()


def audited(flow, code, more="", **options):
    """A client is told at EHLO what `code` gives."""
    return policy(flow, module("validate_ehlo(str, ac, vctx)", f"local a = msys.audit vctx:set_code(550, {code}) return 0"),
                  text=more, **options)


def told(client):
    return client.say("EHLO c.test")[1].removeprefix("5.7.1 ")


def test_sessions_of_all_schedulers_are_counted(flow):
    """By network and service, whichever scheduler has them; those of a client behind a proxy are its own."""
    code = ("table.concat({ ac:inbound_session_count(), ac:inbound_session_count('/8'), "
            "ac:inbound_session_count('127.0.0.0/24', 'SMTP'), ac:inbound_session_count('10.1.2.3'), "
            "a.inbound_session_count('10.1.0.0/16', 'SMTP'), a.inbound_session_count(nil, 'Control'), "
            "a.inbound_session_count('/32', 'ECStream'), tostring(pcall(a.inbound_session_count, '/32', 'None')), "
            "tostring(pcall(a.inbound_session_count, '10.0.0.0/9')) }, ' ')")
    daemon = audited(flow, code, schedulers=2, listener='xclient_hosts = ( "127.0.0.0/8" )')
    clients = [daemon.connect() for _ in range(4)]
    expect_equal(told(clients[0]), "4 4 4 0 0 0 0 false false", "four clients")
    clients[1].say("XCLIENT ADDR=10.1.2.3", 220)
    expect_equal(told(clients[0]), "3 3 3 1 1 0 0 false false", "one of them is another client's")
    clients[1].close()
    clients[2].close()
    wait_until(lambda: told(clients[0]) == "2 2 2 0 0 0 0 false false", "two are gone")


def test_what_clients_do_is_counted_in_windows(flow):
    """Connections, mail taken and refusals, on all schedulers; an hour passes at most once in a test."""
    code = ("(function() local seen = {} for _, f in ipairs({ a.connections, a.receptions, a.rejections }) do "
            "seen[#seen + 1] = f('3600,2', { startv = 0, endv = 2 }) end "
            "seen[#seen + 1] = a.connections('3600,2', { cidr = '/24', endv = 1 }) "
            "seen[#seen + 1] = a.connections('3600,2', '10.0.0.0/8') "
            "seen[#seen + 1] = tostring(pcall(a.connections, '60,1')) "
            "seen[#seen + 1] = tostring(pcall(a.connections, '3600,2', { endv = 3 })) "
            "return table.concat(seen, ' ') end)()")
    peer = Peer(flow)
    (flow.path / "policy.lua").write_text(module("validate_mailfrom(str, ac, vctx)", f"local a = msys.audit "
                                                 f"if str:match('^ask') then vctx:set_code(550, {code}) end return 0"))
    daemon = Daemon(flow, sink_port=peer.port, schedulers=2,
                    text=SCRIPTLET.format(more="") + 'inbound_audit { monitors = ( "60,4" "3600,2" ) }\n')
    for _ in range(3):
        send(daemon)
    peer.wait(3)
    client = daemon.connect()
    client.say("EHLO c.test", 250)
    client.say("MAIL FROM:<bad", 501)
    expect_equal(client.say("MAIL FROM:<ask@b.test>")[1], "5.7.1 4 3 1 4 0 false false", "counts")


def test_ehlo_keywords_come_and_go(flow):
    daemon = policy(flow, module("validate_connect(ac, vctx)", "ac:esmtp_capability_add('X-POLICY 1') "
                                 "ac:esmtp_capability_remove('CHUNKING') return msys.core.VALIDATE_CONT"))
    text = daemon.connect().say("EHLO c.test", 250)[1].splitlines()
    expect("X-POLICY 1" in text and "CHUNKING" not in text and "DSN" in text, f"keywords: {text}")


def test_context_of_a_connection_lives_as_long(flow):
    script = module("validate_ehlo(str, ac, vctx)", "vctx:set(msys.core.VCTX_CONN, 'who', str) "
                    "return msys.core.VALIDATE_CONT",
                    "function mod:validate_mailfrom(str, ac, vctx) vctx:set_code(550, (vctx:get(msys.core.VCTX_CONN, "
                    "'who') or 'nobody') .. ' ' .. vctx:get(msys.core.VCTX_CONN, 'ehlo_string')) "
                    "return msys.core.VALIDATE_CONT end")
    daemon = policy(flow, script)
    client = daemon.connect()
    client.say("EHLO one.test", 250)
    expect_equal(client.say("MAIL FROM:<a@b.test>")[1], "5.7.1 one.test one.test", "reply")
    expect_equal(client.say("MAIL FROM:<a@b.test>")[1], "5.7.1 one.test one.test", "second reply")


def test_contexts_tell_what_is_known_of_a_message(flow):
    script = module("validate_data(msg, ac, vctx)", """
        local seen = { vctx:get(msys.core.VCTX_CONN, 'connection_rcpt_count'), vctx:get(msys.core.VCTX_CONN, 'message_rcpt_count') }
        for _, name in ipairs { 'rfc2822_date_missing', '#8bitmime' } do
            seen[#seen + 1] = tostring(vctx:get(msys.core.VCTX_MESS, name))
        end
        msg:code(550, table.concat(seen, ' ')) return 0""")
    client = policy(flow, script).connect()
    for body, wanted in (("Subject: x\r\n\r\nplain\r\n", "2 2 true nil"), ("Date: x\r\n\r\nnö\r\n", "4 2 nil true")):
        expect_equal(client.mail(["a@good.test", "b@good.test"], body=body)[1], f"5.7.1 {wanted}", "contexts")


def test_contexts_tell_what_is_known_of_a_certificate(flow):
    c = Certificates(flow)
    names = ("tls_cipher_usebits", "tls_cipher_algbits", "tls_client_cert_subject", "tls_client_cert_subject_cn",
             "tls_client_cert_issuer", "tls_client_cert_issuer_cn")
    script = module("validate_mailfrom(str, ac, vctx)", "local seen = {} for name in ('" + " ".join(names) + "'):gmatch('%S+') do "
                    "seen[#seen + 1] = tostring(vctx:get(msys.core.VCTX_CONN, name)) end "
                    "vctx:set_code(550, table.concat(seen, ' ')) return 0")
    daemon = policy(flow, script, listener=f'{tls_options(c)} tls_client_ca = "{c.ca}"')
    for certificate, wanted in ((c.make("client.test"), "256 256 CN=client.test client.test CN=root.test root.test"),
                                (None, "256 256 nil nil nil nil")):
        client = daemon.connect()
        client.say("EHLO c.test", 250)
        context = c.client(certificate)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        start_tls(client, context)
        expect_equal(client.say("MAIL FROM:<a@b.test>")[1], f"5.7.1 {wanted}", "contexts")
    plain = daemon.connect()
    plain.say("EHLO c.test", 250)
    expect_equal(plain.say("MAIL FROM:<a@b.test>")[1], "5.7.1" + " nil" * len(names), "without TLS")


def test_context_of_a_message_ends_with_it(flow):
    script = module("validate_mailfrom(str, ac, vctx)", "local was = vctx:get(msys.core.VCTX_MESS, 'k') "
                    "vctx:set(msys.core.VCTX_MESS, 'k', str) if was then vctx:set_code(550, was) end "
                    "return msys.core.VALIDATE_CONT")
    daemon = policy(flow, script)
    client = daemon.connect()
    client.say("EHLO c.test", 250)
    client.say("MAIL FROM:<a@b.test>", 250)
    client.say("RSET", 250)
    client.say("MAIL FROM:<c@d.test>", 250)


def test_context_is_kept_and_told_to_loggers(flow):
    script = module("validate_data_spool_each_rcpt(msg, ac, vctx)",
                    "msg:context_set(msys.core.ECMESS_CTX_MESS, 'campaign', 'spring') "
                    "msg:context_set(msys.core.ECMESS_CTX_MESS, 'gone', 'x') "
                    "msg:context_delete(msys.core.ECMESS_CTX_MESS, 'gone') "
                    "if msg:context_exists(msys.core.ECMESS_CTX_MESS, 'gone') then error('still there') end "
                    "return msys.core.VALIDATE_CONT",
                    "function mod:core_log_delivery_v1(msg, note, code) "
                    "told = msg:context_get(msys.core.ECMESS_CTX_MESS, 'campaign') .. ' ' .. code end")
    peer = Peer(flow)
    daemon = policy(flow, script + "msys.registerControl('told', function() print(told) end)", peer,
                    'custom_logger "custom" { delivery_logfile = "file:custom.log" '
                    'delivery_format = "%i %vctx_mess{campaign}" }\n'
                    'domain "good.test" { suspend_delivery = true }\n', schedulers=1)
    ident = send(daemon).split()[-1]
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.queued() == 1, "the message after a kill")
    daemon.console("resume", "domain", "good.test")
    peer.wait(1)
    path = daemon.log / "custom.log"
    wait_until(lambda: path.exists() and path.read_text() == f"{ident} spring\n", "the context in the log")
    wait_until(lambda: daemon.console("told") == "spring 250", "the context in the hook of the delivery")


def test_context_of_a_connection_is_told_to_loggers(flow):
    """As it was when each message was received; kept with it over a kill."""
    script = module("validate_ehlo(str, ac, vctx)", "vctx:set(msys.core.VCTX_CONN, 'who', str) "
                    "return msys.core.VALIDATE_CONT end "
                    "function mod:validate_mailfrom(str, ac, vctx) vctx:set(msys.core.VCTX_CONN, 'last', str) "
                    "return msys.core.VALIDATE_CONT")
    peer = Peer(flow)
    daemon = policy(flow, script, peer, 'custom_logger "custom" { delivery_logfile = "file:custom.log" '
                    'delivery_format = "%m %vctx_conn{who} %vctx_conn{last} %vctx_mess{who}|" }\n'
                    'suspend_delivery = true\n', schedulers=1)
    for who in ("one", "two"):
        client = daemon.connect()
        client.say(f"EHLO {who}.test", 250)
        for sender in ("a", "b"):
            client.say(f"MAIL FROM:<{who}-{sender}@here.test>", 250)
            client.say("RCPT TO:<to@good.test>", 250)
            client.say("DATA", 354)
            client.say("Subject: x\r\n\r\nx\r\n.", 250)
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.queued() == 4, "the messages after a kill")
    daemon.console("resume", "domain", "good.test")
    peer.wait(4)
    wanted = [f"{who}-{s} {who}.test {who}-{s}@here.test |" for who in ("one", "two") for s in ("a", "b")]
    path = daemon.log / "custom.log"
    wait_until(lambda: path.exists() and sorted(path.read_text().splitlines()) == wanted, "contexts in the log")


def test_recipients_come_and_go(flow):
    script = module("validate_data(msg, ac, vctx)", "vctx:add_recipient('new@good.test') "
                    "vctx:remove_recipient('old@good.test') n = table.concat(vctx:recipient_list(), ' ') "
                    "return msys.core.VALIDATE_CONT")
    peer = Peer(flow)
    daemon = policy(flow, script + "msys.registerControl('n', function() print(n) end)", peer, schedulers=1)
    send(daemon, ["old@good.test", "kept@good.test"])
    expect_equal(sorted(peer.wait(1)[0].recipients), ["kept@good.test", "new@good.test"], "recipients")
    expect_equal(daemon.console("n"), "kept@good.test new@good.test", "list")


def test_the_list_of_recipients_may_be_another(flow):
    _, mails = received(flow, module("validate_data(msg, ac, vctx)", "local list = { 'x@good.test', '<y@good.test>' } "
                                     "vctx:recipient_list(list) msg:header('X-List', table.concat(list, ' ')) "
                                     "return msys.core.VALIDATE_CONT"))
    expect_equal(sorted(mails[0].recipients), ["x@good.test", "y@good.test"], "recipients")
    expect(b"X-List: x@good.test <y@good.test>\r\n" in mails[0].data, "the script's list stays as it was")


# ---- msg ----


def test_fields_are_read(flow):
    daemon = policy(flow, module("validate_data(msg, ac, vctx)",
                                 "local all = msg:header('X-Two') msg:code(550, #all .. all[1] .. all[2] .. "
                                 "#msg:header('X-None') .. msg:header('SUBJECT')[1]) return msys.core.VALIDATE_CONT"))
    text = send(daemon, body="X-Two: one\r\nx-two:  two\r\n lines\r\nSubject: test\r\n\r\nX-Two: body\r\n", wanted=550)
    expect_equal(text, "5.7.1 2onetwo lines0test", "fields")


def test_fields_are_set_added_and_taken_out(flow):
    _, mails = received(flow, data_hook(
        "msg:header('Subject', 'other') msg:header('X-First', '1', 'prepend') msg:header('X-Last', '2', 'append') "
        "msg:header('X-Out', '')"), body="X-Out: a\r\nSubject: test\r\nX-Out: b\r\n\r\n..dot\r\n")
    header, _, body = mails[0].data.partition(b"\r\n\r\n")
    lines = header.decode().split("\r\n")
    expect(lines[0] == "X-First: 1" and lines[1].startswith("Received:"), f"first: {lines[:2]}")
    expect_equal(lines[-2:], ["Subject: other", "X-Last: 2"], "last")
    expect(b"X-Out" not in header, f"not taken out: {header}")
    expect_equal(body, b".dot\r\n", "body")


def test_a_value_adds_no_fields(flow):
    _, mails = received(flow, data_hook("msg:header('X-A', 'a\\r\\nX-B: b\\n\\nc')"))
    expect(b"X-A: a X-B: b  c\r\n" in mails[0].data and b"\r\nX-B:" not in mails[0].data, f"{mails[0].data}")


def test_body_is_read_and_written(flow):
    _, mails = received(flow, data_hook("msg:body(msg:body():upper() .. '.\\n.end')"))
    expect_equal(mails[0].body, b"HELLO\r\n.\r\n.end\r\n", "body")


def test_body_is_searched_and_replaced(flow):
    _, mails = received(flow, data_hook(
        "local m = msg:body_match('H(?<rest>el+)o') msg:header('X-Match', m[0] .. ' ' .. m[1] .. ' ' .. m.rest) "
        "msg:body_replace('l+(o)', '[\\\\1]')"))
    expect(b"X-Match: Hello ell ell\r\n" in mails[0].data, f"match: {mails[0].data}")
    expect_equal(mails[0].body, b"He[o]\r\n", "body")


def test_raw_is_read_and_written(flow):
    _, mails = received(flow, data_hook("local raw = msg:raw() msg:raw((raw:gsub('Subject: test', 'Subject: raw'))"
                                        " .. 'more')"))
    expect(b"Subject: raw\r\n\r\nHello\r\nmore\r\n" in mails[0].data, f"{mails[0].data}")


def test_parts_are_read(flow):
    body = ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nplain\r\n"
            "--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\naGk=\r\n--b--\r\n")
    daemon = policy(flow, module("validate_data(msg, ac, vctx)",
                                 "local top = msg:mime() local p = top:children() "
                                 "msg:code(550, top:content_type() .. #p .. p[1]:text() .. p[2]:text() .. "
                                 "p[2]:header('Content-Type')[1]) return msys.core.VALIDATE_CONT"))
    expect_equal(send(daemon, body=body, wanted=550), "5.7.1 multipart/mixed2plainhitext/html", "parts")


def test_sender_and_recipient_are_read_and_changed(flow):
    _, mails = received(flow, data_hook(
        "msg:header('X-Was', msg:mailfrom() .. ' ' .. msg:rcptto()) msg:mailfrom('new@sender.test') "
        "msg:rcptto('other@good.test')"))
    expect_equal((mails[0].sender, mails[0].recipients), ("new@sender.test", ["other@good.test"]), "envelope")
    expect(b"X-Was: from@sender.test to@good.test\r\n" in mails[0].data, "what they were")


def test_addresses_of_fields_are_parsed(flow):
    daemon = policy(flow, module("validate_data(msg, ac, vctx)",
                                 "msg:code(550, table.concat(msg:address_header('To', 'email'), ' ') .. ' ' .. "
                                 "table.concat(msg:address_header('To', 'name'), '+')) return 0"))
    text = send(daemon, body='To: "One, Two" <a@x.test>, b@y.test (b)\r\n\r\nx\r\n', wanted=550)
    expect_equal(text, "5.7.1 a@x.test b@y.test (b) One, Two+", "addresses")


def test_each_recipient_may_get_a_message_of_its_own(flow):
    script = data_hook("if msg:rcptto() ~= 'plain@good.test' and msg:rcptto() ~= 'too@good.test' then "
                       "msg:header('X-For', msg:rcptto()) end")
    peer = Peer(flow)
    daemon = policy(flow, script, peer)
    send(daemon, ["plain@good.test", "one@good.test", "two@good.test", "too@good.test"])
    mails = {tuple(sorted(m.recipients)): m.data for m in peer.wait(3)}
    expect_equal(sorted(mails), [("one@good.test",), ("plain@good.test", "too@good.test"), ("two@good.test",)],
                 "recipients by message")
    for who in ("one", "two"):
        expect_equal(mails[(f"{who}@good.test",)].count(b"X-For: "), 1, "fields")
        expect(f"X-For: {who}@good.test\r\n".encode() in mails[(f"{who}@good.test",)], "its own field")
    expect(b"X-For" not in mails[("plain@good.test", "too@good.test")], "a field of somebody else")
    expect_equal(len({line[1] for line in daemon.wait_lines("R", 4)}), 3, "message ids")
    daemon.wait_for_rest()


def test_each_recipient_may_get_a_binding_of_its_own(flow):
    script = module("validate_set_binding(msg)", "msg:binding(msg:rcptto():sub(1, 1)) return 0")
    peer = Peer(flow)
    daemon = policy(flow, script, peer, TWO)
    send(daemon, ["a1@good.test", "b1@good.test", "a2@good.test"])
    expect_equal(sorted(tuple(sorted(m.recipients)) for m in peer.wait(2)),
                 [("a1@good.test", "a2@good.test"), ("b1@good.test",)], "recipients")


def test_mail_may_go_elsewhere(flow):
    peer = Peer(flow)
    daemon = policy(flow, module("core_config_get_message_routing_domain(scope, msg, buff)",
                                 "if msg:rcptto() == 'to@good.test' then return 'other.test' end "
                                 "buff.buffer = 'third.test'"), peer,
                    'domain "other.test" { suspend_delivery = true }\n')
    send(daemon)
    send(daemon, "x@good.test")
    expect_equal(peer.wait(1)[0].recipients, ["x@good.test"], "recipients")
    wait_until(lambda: daemon.queued() == 1, "the one that waits at the other domain")
    daemon.kill()
    daemon.start()
    wait_until(lambda: daemon.queued() == 1, "the message after a kill")
    daemon.console("resume", "domain", "other.test")
    expect_equal(peer.wait(2)[1].recipients, ["to@good.test"], "recipient")


def test_mail_may_be_discarded(flow):
    daemon = policy(flow, module("validate_data_spool(msg, ac, vctx)", "msg:discard('junk') return 0"))
    expect(send(daemon).startswith("2.0.0 OK: taken"), "reply")
    expect_equal(daemon.counter("scheduler.smtp_discarded"), 1, "counter")
    expect_equal(daemon.queued(), 0, "queued")


def test_mail_may_be_discarded_for_one_recipient(flow):
    peer = Peer(flow)
    daemon = policy(flow, data_hook("if msg:rcptto() == 'no@good.test' then msg:discard() end"), peer)
    send(daemon, ["no@good.test", "yes@good.test"])
    expect_equal(peer.wait(1)[0].recipients, ["yes@good.test"], "recipients")
    daemon.wait_for_rest()


def test_a_copy_may_be_injected(flow):
    _, mails = received(flow, module("validate_data_spool(msg, ac, vctx)",
                                     "msg:inject('archive@sender.test', 'archive@good.test') "
                                     "msg:header('X-Late', '1') return 0"), mails=2)
    by = {m.recipients[0]: m for m in mails}
    expect_equal(by["archive@good.test"].sender, "archive@sender.test", "sender of the copy")
    expect(b"X-Late" in by["to@good.test"].data and b"X-Late" not in by["archive@good.test"].data, "its own text")


def test_ids_and_sizes_are_told(flow):
    daemon, mails = received(flow, data_hook(
        "msg:header('X-Facts', msg:id() .. ' ' .. tostring(msg:get_message_size() > 20) .. ' ' .. "
        "msg:reception_peer() .. ' ' .. select(3, msg:get_envelope2(msys.core.EC_MSG_ENV_TO)))"))
    line = daemon.wait_lines("R", 1)[0]
    expect(f"X-Facts: {line[1]} true 127.0.0.1 good.test\r\n".encode() in mails[0].data, f"{mails[0].data}")


def test_durability_is_chosen(flow):
    peer = Peer(flow)
    daemon = policy(flow, data_hook("msg:durability('memory') msg:priority(7)"), peer,
                    'domain "good.test" { suspend_delivery = true }\n')
    send(daemon)
    wait_until(lambda: daemon.queued() == 1, "the message")
    daemon.kill()
    daemon.start()
    expect_equal(daemon.queued(), 0, "what only memory had")


def test_a_msg_that_is_kept_says_that_it_is_over(flow):
    script = module("validate_data(msg)", "kept = kept or msg return 0")
    daemon = policy(flow, script + "msys.registerControl('kept', function() print(pcall(function() "
                    "return kept:header('Subject') end)) end)", Peer(flow), schedulers=1)
    send(daemon)
    expect("this msg is over" in daemon.console("kept"), "what it says")


def test_bounces_and_deferrals_are_told(flow):
    peer = Peer(flow, rcpt=lambda session: "550 5.1.1 nobody" if len(session.peer.said("RCPT")) > 1 else "450 later")
    script = module("core_log_permanent_failure_v1(msg, note, code)", "said = (said or '') .. 'P ' .. msg:rcptto() .. "
                    "' ' .. code .. ' '", "function mod:core_log_transient_failure_v1(msg, note, code) "
                    "said = (said or '') .. 'T ' .. msg:routing_domain() .. ' ' .. code .. ' ' end")
    daemon = policy(flow, script + "msys.registerControl('said', function() print(said) end)", peer,
                    'retry_interval = "1s"\n', schedulers=1)
    send(daemon, sender="")
    daemon.wait_lines("P", 1)
    wait_until(lambda: daemon.console("said") == "T good.test 450 P to@good.test 550 ", "both")


# ---- what waits ----


def test_sleep_suspends_one_session(flow):
    daemon = policy(flow, module("validate_mailfrom(str, ac, vctx)", "if str:match('^slow') then msys.sleep(3600) end "
                                 "return 0"), schedulers=1)
    slow = daemon.connect()
    slow.say("EHLO c.test", 250)
    slow.send("MAIL FROM:<slow@b.test>\r\n")
    fast = daemon.connect()
    fast.say("EHLO c.test", 250)
    for _ in range(20):
        fast.say("MAIL FROM:<fast@b.test>", 250)
        fast.say("RSET", 250)
    wait_until(lambda: [r["suspended"] for r in daemon.console("hooks")["hooks"]] == [1], "one that waits")
    slow.close()
    wait_until(lambda: [r["suspended"] for r in daemon.console("hooks")["hooks"]] in ([0], [1]), "an answer")


def test_sleep_ends(flow):
    daemon, _ = received(flow, data_hook("msys.sleep(0.05) msg:header('X-Slept', '1') msys.sleep(0.05)"))
    daemon.wait_lines("R", 1)


def test_names_are_looked_up(flow):
    zone = Zone("names.test", "a A 192.0.2.7\n@ MX 10 mx\n", state="plain")
    names = NameServer(flow, zone)
    daemon = policy(flow, module("validate_ehlo(str, ac, vctx)",
                                 "local a = msys.dnsLookup('a.names.test', 'A') "
                                 "local mx = msys.dnsLookup('names.test', 'mx') "
                                 "local none, why = msys.dnsLookup('none.names.test') "
                                 "vctx:set_code(550, a[1] .. ' ' .. mx[1].preference .. ' ' .. mx[1].exchange .. ' ' .. "
                                 "tostring(none) .. ' ' .. why) return 0"),
                    text=f'resolver {{ forwarders = ( "127.0.0.1@{names.port}" ) }}\n')
    expect_equal(daemon.connect().say("EHLO c.test")[1], "5.7.1 192.0.2.7 10 mx.names.test nil nxdomain", "answers")


class Web(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("X-Two", "one")
        self.send_header("X-Two", "more: of it")
        self.end_headers()
        self.wfile.write(self.headers["X-Key"].encode() + b" " + body[::-1])

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()

    def log_message(self, *arguments):
        pass


def web(flow):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flow.closers.append(lambda: (server.shutdown(), server.server_close()))
    return server


def test_http_is_asked(flow):
    server = web(flow)
    daemon = policy(flow, module("validate_ehlo(str, ac, vctx)",
                                 "local c = msys.http.client.new() c:set_header('X-Key: k') c:set_timeout(60) "
                                 f"local good = c:do_request('POST', 'http://127.0.0.1:{server.server_port}/', 'abc') "
                                 "local h = c:parse_headers(c:get_headers()) local seen = c:parse_headers('HTTP/1.1 100 Go: on\\r\\n"
                                 "A: b\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\nC:d\\r\\n\\r\\n') "
                                 "vctx:set_code(550, tostring(good) .. c:get_status() .. c:get_body() .. ' ' .. h['X-Two'] .. "
                                 "' ' .. c:parse_headers({ 'E: f', 'G: h' }).G .. tostring(seen.A) .. seen.C) return 0"))
    expect_equal(daemon.connect().say("EHLO c.test")[1], "5.7.1 true201k cba one, more: of it hnild", "answer")


def test_http_head_has_no_body(flow):
    server = web(flow)
    daemon = policy(flow, module("validate_ehlo(str, ac, vctx)",
                                 "local c = msys.http.client.new() "
                                 f"local good = c:do_request('HEAD', 'http://127.0.0.1:{server.server_port}/', nil) "
                                 "vctx:set_code(550, tostring(good) .. c:get_status() .. c:get_body() .. "
                                 "c:get_headers():match('Length: %d')) return 0"))
    expect_equal(daemon.connect().say("EHLO c.test")[1], "5.7.1 true200Length: 5", "answer")


def test_files_are_read(flow):
    (flow.path / "data.txt").write_text("from a file")
    path = flow.path / "data.txt"
    daemon = policy(flow, module("validate_ehlo(str, ac, vctx)", f"local none, why = msys.readfile('{path}.not') "
                                 f"vctx:set_code(550, select(2, msys.runInPool('IO', function() return "
                                 f"msys.readfile('{path}') end)) .. tostring(none) .. tostring(why ~= nil)) return 0",
                                 f"assert(msys.readfile('{path}') == 'from a file')"))
    expect_equal(daemon.connect().say("EHLO c.test")[1], "5.7.1 from a fileniltrue", "answer")


# ---- libraries ----


def test_libraries_do_what_they_say(flow):
    daemon = policy(flow, "")
    for code, wanted in (
            ("msys.base64.encode('hello')", "aGVsbG8="), ("msys.base64.decode('aGVs\\nbG8=')", "hello"),
            ("msys.qp.encode('a=\\195\\164')", "a=3D=C3=A4"), ("msys.qp.decode('a=3D=\\r\\nb')", "a=b"),
            ("msys.idn.to_idn('b\\195\\188cher.test')", "xn--bcher-kva.test"),
            ("msys.idn.to_utf8('xn--bcher-kva.test')", "b\u00fccher.test"),
            ("digest.md5('')", "d41d8cd98f00b204e9800998ecf8427e"),
            ("hmac.sha1('key', 'The quick brown fox jumps over the lazy dog')",
             "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9"),
            ("json.encode({1, 'x', {a = true}})", '[1,"x",{"a":true}]'),
            ("json.decode('{\"a\":[1,null]}').a[1]", "1"), ("json.decode('{') == nil", "true"),
            ("(function() local o = json.new() o.name = 'value' return tostring(o) .. json.encode({ o }) end)()",
             '{"name":"value"}[{"name":"value"}]'),
            ("tostring(json.decode('[1, 2]')) .. tostring(json.decode('3'))", "[1,2]3"),
            ("(function() local o, code, why = json.decode('{\"a\"') return tostring(o) .. code .. type(why) .. "
             "json.strerror(code) .. json.ERROR_PARSE_EOF end)()", "nil2stringthe text ends too early2"),
            ("select(2, json.decode(('['):rep(5000))) == json.ERROR_DEPTH", "true"),
            ("select(2, json.decode('{bad: 1}')) == json.ERROR_PARSE_UNEXPECTED", "true"),
            ("json.strerror(-1) .. json.strerror(99) .. json.strerror(json.ERROR_PARSE_NULL)",
             "unknown errorunknown errornull expected"),
            ("msys.base64.encode('\\195\\164', false, 'iso-8859-1')", "5A=="),
            ("msys.base64.decode('5A==', 'iso-8859-1') == '\\195\\164'", "true"),
            ("msys.base64.decode('5A==') == '\\228'", "true"), ("msys.qp.encode('\\195\\164', 'iso-8859-1')", "=E4"),
            ("msys.qp.decode('=E4', 'iso-8859-1') == '\\195\\164'", "true"),
            ("msys.qp.encode(('x'):rep(73) .. '.y', nil, true)", "x" * 73 + "=\r\n..y"),
            ("msys.qp.encode(('x'):rep(73) .. '.y')", "x" * 73 + "=\r\n.y"),
            ("pcall(msys.qp.encode, 'x', 'no-such-charset')", "false\tbad argument #2 to '?' (a charset expected in which "
             "the text can be written)"),
            ("pcall(msys.base64.encode, '\\226\\130\\172', true, 'iso-8859-1')", "false\tbad argument #3 to '?' (a charset "
             "expected in which the text can be written)"),
            ("msys.core.ECTP_COMPLETE_CALLBACK_SCHED ~= msys.core.ECTP_COMPLETE_CALLBACK", "true"),
            ("msys.pcre.match('2024-05', '(\\\\d+)-(\\\\d+)')[2]", "05"),
            ("msys.pcre.replace('aXbX', 'X', '-')", "a-b-"),
            ("table.concat(msys.pcre.split('a, b;c', '[,;] ?'), '|')", "a|b|c"),
            ("msys.parseRFC2822Addresses('\"A B\" <a@b.test>', 'name')[1]", "A B"),
            ("msys.counter.inc('c') + msys.counter.add('c', 4)", "6"), ("msys.counter.read('c')", "5"),
            ("msys.cidr.define('n', { '10.0.0.0/8', ['10.1.0.0/16'] = 'inner' })", ""),
            ("msys.cidr.query('n', '10.1.2.3')", "inner"), ("msys.cidr.query('n', '10.2.2.3')", "10.0.0.0/8"),
            ("msys.cidr.query('n', '192.0.2.1')", "nil"),
            ("msys.type({})", "table"), ("tostring(io) .. tostring(ffi) .. tostring(os.execute)", "nilnilnil"),
    ):
        expect_equal(daemon.console("lua", "eval", code), wanted, code)


def test_scripts_require_each_other(flow):
    (flow.path / "lib").mkdir()
    (flow.path / "lib" / "words.lua").write_text("return { greeting = 'hello' }")
    daemon = policy(flow, "require('msys.core') require('msys.extended.message') local w = require('lib.words') "
                    "msys.registerControl('greet', function() print(w.greeting) end)")
    expect_equal(daemon.console("greet"), "hello", "output")


# ---- what goes wrong ----


def test_print_goes_to_the_paniclog(flow):
    policy(flow, "print('one', 2, true)").wait_panic(":scriptlet: one 2 true")


def test_an_error_is_answered_451_and_told_once(flow):
    daemon = policy(flow, module("validate_mailfrom(str, ac, vctx)", "local x = nil\nreturn x.y"), schedulers=1)
    client = daemon.connect()
    client.say("EHLO c.test", 250)
    for _ in range(3):
        expect_equal(client.say("MAIL FROM:<a@b.test>"), (451, "4.3.0 Policy failed, try again later"), "reply")
    daemon.wait_panic("policy.lua:5: attempt to index local 'x' (a nil value) (in validate_mailfrom) stack traceback:")
    row = [r for r in daemon.console("errors")["errors"] if "policy.lua:5" in r["error"]]
    expect_equal([r["count"] for r in row], [3], f"entries in {row}")
    expect_equal([(r["calls"], r["errors"]) for r in daemon.console("hooks")["hooks"]], [(3, 3)], "hooks")


FAULTS = {"loops": "while true do end", "catches": "while true do pcall(function() while true do end end) end",
          "handles": "while true do xpcall(function() while true do end end, function() while true do end end) end",
          "allocates": "local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end",
          "errors": "error({})", "recurses": "local function f() return 1 + f() end f()"}


def test_others_go_on_whatever_a_script_does(flow):
    body = "".join(f"if str:match('^{name}') then {text} end\n" for name, text in FAULTS.items())
    daemon = policy(flow, module("validate_mailfrom(str, ac, vctx)", body + "return 0"), more="max_memory = 8M",
                    schedulers=1)
    good = daemon.connect()
    good.say("EHLO c.test", 250)
    for _ in range(3):
        for name in FAULTS:
            bad = daemon.connect()
            bad.say("EHLO c.test", 250)
            expect_equal(bad.say(f"MAIL FROM:<{name}@b.test>")[0], 451, name)
            good.say("MAIL FROM:<good@b.test>", 250)
            good.say("RSET", 250)
            bad.say("RSET", 250)
            bad.say("MAIL FROM:<good@b.test>", 250)
            bad.close()
    row = daemon.console("hooks")["hooks"][0]
    expect_equal((row["stopped"], row["errors"]), (9, 9), "stopped, errors")
    expect(daemon.console("hooks")["memory_peak_bytes"] < 9 << 20, "memory above its limit")


test_others_go_on_whatever_a_script_does.short = True


def test_every_hook_may_fail(flow):
    hooks = {"validate_connect": "ac, vctx", "validate_ehlo": "str, ac, vctx", "validate_mailfrom": "str, ac, vctx",
             "validate_rcptto": "msg, str, ac, vctx", "validate_data": "msg, ac, vctx",
             "validate_data_spool": "msg, ac, vctx", "validate_data_spool_each_rcpt": "msg, ac, vctx",
             "core_config_get_message_routing_domain": "scope, msg, buff", "validate_set_binding": "msg",
             "core_final_validation": "msg, ac, vctx"}
    script = "local mod = {}\n" + "".join(
        f"function mod:{name}({arguments}) if which == '{name}' then while true do end end return msys.core.VALIDATE_CONT"
        " end\n" for name, arguments in hooks.items()).replace(
            "'core_config_get_message_routing_domain' then while true do end end return msys.core.VALIDATE_CONT",
            "'core_config_get_message_routing_domain' then while true do end end")
    script += ("msys.registerModule('policy', mod)\n"
               "msys.registerControl('which', function(cc) which = cc.argv[1] end)\n")
    peer = Peer(flow)
    daemon = policy(flow, script, peer, schedulers=1)
    for name in hooks:
        daemon.console("which", name)
        client = daemon.connect(greet=False)
        codes = [client.reply()[0]]
        if codes == [220]:
            codes += [client.say(line)[0] for line in ("EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@good.test>")]
        if codes == [220, 250, 250, 250]:
            client.say("DATA", 354)
            client.send("Subject: x\r\n\r\nx\r\n")
            codes.append(client.say(".")[0])
        expect(451 in codes, f"{name}: {codes}")
        client.close()
    daemon.console("which", "none")
    send(daemon)
    expect_equal(len(peer.wait(1)), 1, "mail that is sent in the end")


def test_wrong_scripts_end_the_start(flow):
    (flow.path / "policy.lua").write_text("local x =\nif\n")
    daemon = Daemon(flow, text=SCRIPTLET.format(more=""), start=False)
    for arguments in (["--check"], []):
        run = subprocess.run([flow.program("flywheeld"), "--config", daemon.config, *arguments], capture_output=True,
                             text=True, timeout=120)
        expect_equal(run.returncode, 1, "exit status")
        expect("policy.lua:2: unexpected symbol near 'if'" in run.stderr, f"what it says: {run.stderr}")
    (flow.path / "policy.lua").write_text("error('not today')")
    run = subprocess.run([flow.program("flywheeld"), "--config", daemon.config], capture_output=True, text=True,
                         timeout=120)
    expect_equal(run.returncode, 1, "exit status")
    expect("policy.lua:1: not today" in run.stderr, f"what it says: {run.stderr}")


def test_the_budget_is_as_configured(flow):
    body = "local n = 0 for i = 1, 20000 do n = n + i end return 0"
    small = policy(flow, module("validate_ehlo(str)", body), more="max_instructions = 10000")
    expect_equal(small.connect().say("EHLO c.test")[0], 451, "with 10000 instructions")
    small.terminate()
    large = policy(flow, module("validate_ehlo(str)", body), name="large")
    expect_equal(large.connect().say("EHLO c.test")[0], 250, "with the default")


def test_the_console_checks_and_runs_lua(flow):
    daemon = policy(flow, "x = 41")
    expect_equal(daemon.console("lua", "eval", 'x + 1, "a b"'), "42\ta b", "values")
    expect("attempt to" in daemon.console("lua", "eval", "x.y.z", fail=True), "an error")
    (flow.path / "wrong.lua").write_text("x = = 1")
    expect("wrong.lua:1:" in daemon.console("lua", "check", str(flow.path / "wrong.lua"), fail=True), "a wrong file")
    expect_equal(daemon.console("lua", "check", str(flow.path / "policy.lua")), "script valid", "a good one")


def test_several_scripts_run_in_the_order_of_the_file(flow):
    for name in ("one", "two"):
        (flow.path / f"{name}.lua").write_text(f"order = (order or '') .. '{name} '")
    daemon = Daemon(flow, text='scriptlet "scriptlet" { script "b" { source = "two.lua" } '
                    'script "a" { source = "one.lua" } }\n')
    expect_equal(daemon.console("lua", "eval", "order"), "two one ", "order")


def test_a_stop_waits_for_sleeping_scripts_no_longer_than_it_may(flow):
    script = module("validate_mailfrom(str)", "msys.runInPool('IO', function() end, function() print('completes') "
                    "msys.sleep(3600) end) msys.sleep(3600) return 0",
                    "msys.registerControl('doze', function() msys.sleep(3600) end)\n"
                    "function mod:core_log_delivery_v1() msys.sleep(3600) end")
    daemon = policy(flow, script, text='stop_timeout = "500ms"\n')
    client = daemon.connect()
    client.say("EHLO c.test", 250)
    client.send("MAIL FROM:<a@b.test>\r\n")
    console = flow.start("flywheel", "-s", daemon.control, "doze")
    daemon.wait_panic("doze")
    wait_until(lambda: sum(r["suspended"] for r in daemon.console("hooks")["hooks"]) == 1, "the session that waits")
    daemon.wait_panic("completes")
    expect_equal(daemon.terminate()[0], 0, "exit status")
    console.wait(60)
    expect("the program stops" in flow.output(console), "what the console says")


# By the address of who connects: what a script does to that one's sessions, and how often it is asked to.
MISBEHAVING = {"127.0.0.2": ("while true do end", 10),
               "127.0.0.3": ("local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end", 10),
               "127.0.0.4": ("local x = nil return x.y", 100),
               "127.0.0.5": ("wrong = (wrong or 0) + 1 error('wrong ' .. wrong)", 300)}
SLEEPING = "127.0.0.6"
MISBEHAVE = '''
local mod, faults = {}, {}
%s
local function sleep(ac)
  if ac:peer() == "%s" then msys.sleep(3600) end
  return msys.core.VALIDATE_CONT
end
function mod:validate_connect(ac, vctx) return sleep(ac) end
function mod:validate_ehlo(str, ac, vctx) return sleep(ac) end
function mod:validate_rcptto(msg, str, ac, vctx) return sleep(ac) end
function mod:validate_mailfrom(str, ac, vctx)
  local fault = faults[ac:peer()]
  if fault then fault() end
  return sleep(ac)
end
msys.registerModule("policy", mod)
''' % ("\n".join(f'faults["{peer}"] = function() {text} end' for peer, (text, _) in MISBEHAVING.items()), SLEEPING)


def misbehave(daemon, source, count, codes):
    client = daemon.connect(source=source)
    client.say("EHLO bad.test", 250)
    for _ in range(count):
        codes.append(client.say("MAIL FROM:<a@bad.test>")[0])


def test_others_lose_nothing_beside_scripts_that_misbehave(flow):
    peer = Peer(flow)
    daemon = policy(flow, MISBEHAVE, peer, more="max_memory = 8M", schedulers=1)
    # Each waits in its first hook until it goes.
    sleeping = [daemon.connect(source=SLEEPING, greet=False) for _ in range(20)]
    wait_until(lambda: sum(r["suspended"] for r in daemon.console("hooks")["hooks"]) == len(sleeping), "sleeping hooks")
    codes, replies = {source: [] for source in MISBEHAVING}, []

    def behave(number):
        client = daemon.connect()
        for i in range(20):
            replies.append(client.mail(f"{number}.{i}@good.test", ehlo=i == 0)[0])

    threads = [threading.Thread(target=misbehave, args=(daemon, source, count, codes[source]))
               for source, (_, count) in MISBEHAVING.items()]
    threads += [threading.Thread(target=behave, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect_equal(replies, [250] * 100, "replies to the others")
    expect_equal(len({recipient for mail in peer.wait(100) for recipient in mail.recipients}), 100, "who got mail")
    for source, (_, count) in MISBEHAVING.items():
        expect_equal(codes[source], [451] * count, f"replies to {source}")
    row = next(r for r in daemon.console("hooks")["hooks"] if r["hook"] == "validate_mailfrom")
    expect_equal((row["stopped"], row["errors"]), (10, 410), "stopped, errors")
    expect_equal(daemon.counter("scheduler.policy_errors"), 420, "errors of scripts")
    # Of an error one entry; of errors that differ as many as an agent tells of.
    daemon.wait_panic("attempt to index local 'x'")
    panics = (daemon.log / "paniclog").read_text().splitlines()
    expect_equal(sum("attempt to index local 'x'" in line for line in panics), 1, "entries of one error")
    expect(0 < sum(": wrong " in line for line in panics) <= 256, "entries of errors that differ")
    for client in sleeping:
        client.close()


test_others_lose_nothing_beside_scripts_that_misbehave.short = True
