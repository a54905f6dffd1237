"""The page at /: what it shows, that it shows what others say as text, who may see it, and on which screens. The tests
that look at it need a browser (Debian: chromium-headless-shell), and are skipped without one."""

import base64
import hashlib
import re

from browser import Browser, browser_program
from flow import ROOT, Failure, Skip, expect, expect_equal, wait_until
from http_client import Server
from peer import Peer

HELLO = "Subject: hello\r\n\r\nhello\r\n"
# What is to become of none of them.
MARKUP = '<script>window.taken=true</script> <img src=x onerror="window.taken=true"> <b>bold</b>'


def send(server, recipients):
    code, text = server.daemon.connect().mail(recipients, body=HELLO)
    expect_equal(code, 250, f"reply ({text})")


def open_page(flow, server, token=None):
    if not browser_program():
        raise Skip("no browser is installed")
    browser = Browser(flow)
    browser.resize(1440, 900)
    browser.open(f"http://127.0.0.1:{server.port}/")
    if not token:
        wait_live(browser)
    return browser


def wait_live(browser):
    browser.wait("document.getElementById('stream').textContent === '● live'", "a page that is live")


def go(browser, where):
    browser.run(f"location.hash = {where!r}")


def expect_same(shown, wanted, what):
    """Both are functions, as what the console says changes too: connections end when they have been idle. Waits until
    they agree, or says how they differ."""
    seen = []
    def agree():
        seen[:] = [shown(), wanted()]
        return seen[0] == seen[1]
    try:
        wait_until(agree, what)
    except Failure as e:
        raise Failure(f"{e}: the page has {seen[0]!r}, the console {seen[1]!r}") from None


def counts_of(row):
    """Of a domain or a binding that the console has, in the order of the page."""
    cells = (row["active"] + row["delayed"], row["active"], row["delayed"], 0, row["connections"], row["delivered"], row["transient"], row["failed"])
    return [str(n) for n in cells]


def take_pictures(browser, name, sizes):
    """Of the page as it is, on screens of these widths, dark or not; and nothing on them is cut."""
    for width, dark in sizes:
        browser.resize(width, 740, dark, still=True)
        expect_equal(browser.run("document.documentElement.scrollWidth"), width, f"width of the page {name}")
        cut = browser.run("[...document.querySelectorAll('#view td, #view dd, #view .under, #view h2')].filter((e) =>"
                          " e.getClientRects().length && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline').map((e) => e.textContent)")
        expect_equal(cut, [], f"what does not fit at {width} on the page {name}")
        browser.picture(ROOT / "build" / "page" / f"{name}-{width}{'-dark' if dark else ''}.png")


def expect_no_complaints(browser):
    expect_equal((browser.complaints, browser.run("window.taken")), ([], None), "what the page did wrong")


def test_page_needs_nothing_from_elsewhere(flow):
    server = Server(flow)
    answer = server.get("/")
    text = answer.body.decode()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        parts = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.DOTALL)
        expect_equal(len(parts), 1, f"how many of {tag}")
        found = base64.b64encode(hashlib.sha256(parts[0].encode()).digest()).decode()
        expect_equal(policy[directive], f"'sha256-{found}'", f"what {directive} allows")
    expect_equal([policy[d] for d in ("default-src", "base-uri", "form-action", "frame-ancestors")], ["'none'"] * 4, "what nobody may")
    expect_equal((policy["connect-src"], policy["require-trusted-types-for"]), ("'self'", "'script'"), "what else the policy says")
    expect_equal(set(re.findall(r"https?://[^\s\"'<]*", text)), {"http://www.w3.org/2000/svg"}, "addresses in it, but for a name space")
    expect_equal(re.findall(r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|localStorage|cookie)\b\s*[.(=]", text), [],
                 "ways to make markup of text, and to keep a token")


def arrange(flow):
    """A server with mail that was delivered, that waits, that failed, and that is held."""
    def rcpt(session):
        return "550 5.1.1 no" if "bad" in session.rcpt else f"450 4.2.1 {MARKUP} later" if "later" in session.rcpt else True
    peer = Peer(flow, rcpt=rcpt)
    server = Server(flow, sink_port=peer.port, text='mx_rollup = false\nretry_interval = "1h"\ngenerate_bounces = false\nmetrics_interval = "200ms"\n'
                    'domain "held.test" { suspend_delivery = true }')
    for i in range(5):
        send(server, [f"a{i}@good{i % 2}.test", "b@later.test", "c@bad.test", f"d{i}@held.test"])
    for kind, count in (("D", 5), ("T", 5), ("P", 5)):
        server.daemon.wait_lines(kind, count)
    wait_until(lambda: server.daemon.console("summary")["total_queue_size"] == 10, "mail that waits, and no other")
    return server


def test_page_shows_what_the_console_shows(flow):
    server = arrange(flow)
    browser = open_page(flow, server)
    # While it is looked at.
    for _ in range(3):
        send(server, ["x@good0.test", "y@held.test"])
    server.daemon.wait_lines("D", 8)
    wait_until(lambda: server.daemon.console("summary")["total_queue_size"] == 13, "load that stands still")
    summary = server.daemon.console("summary")
    browser.wait("document.querySelector('[data-figure=queue]').textContent === '13'", "the queue's size")
    expect_same(lambda: {row[0]: row[1:] for row in browser.rows("domains")},
                lambda: {row["domain"]: counts_of(row) for row in server.daemon.console("domains")["domains"]}, "the domains that the console has")
    expect_same(lambda: browser.rows("bindings"),
                lambda: [[row["binding"], *counts_of(row)] for row in server.daemon.console("bindings")["bindings"]], "the console's bindings")
    totals = {name: browser.run(f"document.querySelector('[data-figure={name}]').closest('section').querySelector('.under').textContent")
              for name in ("received", "delivered", "deferred", "failed")}
    expect_equal(totals, {"received": f"{summary['received_messages']} since the start", "delivered": "8 since the start",
                          "deferred": "5 since the start", "failed": "5 since the start"}, "totals")
    expect_same(lambda: browser.figure("spooled"), lambda: str(server.daemon.console("summary")["spool_messages"]), "messages in the spool")
    agents = {row["agent"] for row in server.daemon.console("threads")["agents"]}
    expect_equal({row[0] for row in browser.rows("agents")}, agents, "agents")
    wait_until(lambda: {row[0]: row[1] for row in browser.rows("refusals")}.get("550 5.1.1 no") == "5", "what next hops refuse")
    browser.wait("/^[1-9][0-9.]* .iB of [1-9]/.test(document.querySelector('[data-figure=disk]').textContent)", "the disk")
    wait_until(lambda: {row[0]: row[1:3] for row in browser.rows("held")} == {"held.test": ["8", "0"], "later.test": ["0", "5"]}, "the longest queues")
    held = {row[0]: row[3] for row in browser.rows("held")}
    expect("suspend" in held["held.test"], f"what mail waits for: {held}")
    expect_no_complaints(browser)


KINDS = ("received", "delivered", "deferred", "failed")
# What the page has at one moment: counts since the start, and rows of domains; of one event.
COUNTS = """(() => {
    const number = (text) => Number(text.replaceAll('\u202f', '').split(' ')[0]);
    const under = (name) => document.querySelector(`[data-figure=${name}]`).closest('section').querySelector('.under').textContent;
    const cells = (tr) => [...tr.children].map((td) => td.firstChild.textContent.replaceAll('\u202f', ''));
    return {totals: %s.map((name) => number(under(name))),
            domains: [...document.querySelectorAll('[data-table=domains] tbody tr')].map(cells)};
})()""" % list(KINDS)


def page_counts(browser):
    """By name: what can only grow; of domains delivered, deferred and failed."""
    found = browser.run(COUNTS)
    return {**dict(zip(KINDS, found["totals"])),
            **{(row[0], kind): int(n) for row in found["domains"] for kind, n in zip(KINDS[1:], row[-3:])}}


def console_counts(server):
    """The same, of the console. It asks twice; what it was told first is never more."""
    domains = server.daemon.console("domains")["domains"]
    summary = server.daemon.console("summary")
    keys = ("received_messages", "successfully_delivered_messages", "transient_failures", "failed_messages")
    return {**{name: summary[key] for name, key in zip(KINDS, keys)},
            **{(row["domain"], kind): row[key] for row in domains for kind, key in zip(KINDS[1:], ("delivered", "transient", "failed"))}}


def covers(larger, smaller):
    return all(larger.get(name, 0) >= n for name, n in smaller.items())


def test_page_agrees_with_the_console_under_load(flow):
    def rcpt(session):
        return "550 5.1.1 no such user" if "@d2." in session.rcpt else "451 4.3.2 later" if "@d1." in session.rcpt else True
    peer = Peer(flow, rcpt=rcpt)
    server = Server(flow, sink_port=peer.port,
                    text='retry_interval = "1h"\ngenerate_bounces = false\nmetrics_interval = "200ms"\nmax_outbound_connections = 5\n')
    browser = open_page(flow, server)
    # Of 6 domains one is deferred and one fails; each message has a recipient in three of them.
    load = flow.start("fwload", "--to", f"127.0.0.1:{server.daemon.port}", "--messages", 300, "--rate", 40, "--size", "2k",
                      "--sessions", 5, "--domains", 6, "--recipients", 3)
    rounds = 0
    while load.poll() is None or rounds == 0:
        before = console_counts(server)
        shown = {}
        def caught_up():
            shown.update(page_counts(browser))
            return covers(shown, before)
        wait_until(caught_up, f"a page that has at least what the console had: {before}")
        after = console_counts(server)
        expect(covers(after, shown), f"the page is ahead of the console: {shown}, then {after}")
        rounds += 1
    expect_equal(load.returncode, 0, f"what fwload ended with ({flow.output(load)})")
    wait_until(lambda: server.daemon.console("summary")["total_queue_size"] == 150, "mail that waits, and no other")
    expect_equal({kind: console_counts(server)[kind] for kind in KINDS}, {"received": 300, "delivered": 600, "deferred": 150, "failed": 150},
                 "what became of the load")
    expect_same(lambda: page_counts(browser), lambda: console_counts(server), "the counts that the console has")
    expect_same(lambda: {row[0]: row[1:] for row in browser.rows("domains")},
                lambda: {row["domain"]: counts_of(row) for row in server.daemon.console("domains")["domains"]}, "the domains that the console has")
    expect_same(lambda: browser.rows("bindings"),
                lambda: [[row["binding"], *counts_of(row)] for row in server.daemon.console("bindings")["bindings"]], "the console's bindings")
    expect_same(lambda: [browser.figure(name) for name in ("queue", "spooled", "inbound", "outbound")],
                lambda: [str(server.daemon.console("summary")[key]) for key in
                         ("total_queue_size", "spool_messages", "inbound_concurrency", "outbound_concurrency")], "the console's summary")
    wait_until(lambda: {row[0]: row[1] for row in browser.rows("refusals")} == {"451 4.3.2 later": "150", "550 5.1.1 no such user": "150"},
               "what the next hop refused")
    take_pictures(browser, "load", ((360, True), (360, False), (1440, True), (1440, False)))
    expect_no_complaints(browser)


def test_page_shows_one_domain(flow):
    server = arrange(flow)
    browser = open_page(flow, server)
    link = "document.querySelector('[data-table=domains] a[href=\"#/domain/later.test\"]')"
    browser.wait(f"{link} !== null", "a link")
    browser.run(f"{link}.click()")
    browser.wait("document.querySelectorAll('[data-table=answers] tbody tr').length === 1", "an answer")
    shown = server.daemon.console("domain", "later.test")
    expect_equal(browser.figure("delayed"), str(shown["queue"]["delayed"]), "delayed messages")
    expect_equal([row[:2] for row in browser.rows("hosts")], [[h["host"], h["address"]] for h in shown["next_hops"]], "next hops")
    expect_equal([row[0] for row in browser.rows("limits")], [limit["limit"] for limit in shown["limits"]], "limits")
    go(browser, "#/domain/held.test")
    browser.wait("document.querySelector('[data-figure=state]')?.textContent === '■ suspended'", "what holds it")
    expect("suspend_delivery" in browser.figure("why") or "suspended" in browser.figure("why"), f"why: {browser.figure('why')}")
    server.daemon.console("resume", "domain", "held.test")
    server.daemon.wait_lines("D", 10)
    browser.wait("document.querySelector('[data-figure=delivered]')?.textContent === '5'", "that it is held no more")
    expect_equal(browser.rows("answers"), [], "answers of one that refused nothing")
    go(browser, "#/domain/nowhere.test")
    browser.wait("document.querySelector('.problem').textContent.includes('nothing has been queued')", "that there is no such domain")
    go(browser, "#/binding/default")
    browser.wait("document.querySelectorAll('[data-table=queues] tbody tr').length === 1", "the binding's queues")
    expect_no_complaints(browser)


def test_page_shows_as_text_what_others_say(flow):
    server = arrange(flow)
    answers = server.daemon.console("domain", "later.test")["answers"]
    expect_equal([(a["answer"], a["recipients"], a["outcome"], a["domain"], a["address"]) for a in answers],
                 [(f"450 4.2.1 {MARKUP} later", 5, "deferred", "later.test", "127.0.0.1")], "answers")
    expect_equal(server.daemon.console("site", "later.test")["sites"][0]["answers"], answers, "answers of the site")
    expect_equal([(a["answer"], a["outcome"]) for a in server.daemon.console("domain", "bad.test")["answers"]],
                 [("550 5.1.1 no", "failed")], "answers of one that fails")
    browser = open_page(flow, server)
    wait_until(lambda: any("<b>bold" in row[0] for row in browser.rows("refusals")), "markup as text, on the overview")
    go(browser, "#/domain/later.test")
    wait_until(lambda: [row[0] for row in browser.rows("answers")] == [f"450 4.2.1 {MARKUP} later"], "markup as text")
    go(browser, "#/domain/" + "".join(f"%{b:02x}" for b in MARKUP.encode()))
    browser.wait("document.querySelector('#view h2').textContent.includes('<img src=x')", "markup as a domain's name")
    browser.wait("document.querySelector('.problem').textContent !== ''", "what the console says of it")
    expect_equal(browser.run("document.querySelectorAll('#view img, #view script, #view b').length"), 0, "elements made of what was said")
    expect_no_complaints(browser)


def type_token(browser, text):
    browser.run(f"document.getElementById('token').value = {text!r}")
    browser.run("document.querySelector('#ask button').click()")


def test_page_asks_for_the_token(flow):
    token = "Tr0ub4dor&3-and-more"
    (flow.path / "token").write_text(token + "\n")
    server = Server(flow, listen=f'token_file = "{flow.path}/token"')
    browser = open_page(flow, server, token)

    browser.wait("!document.getElementById('ask').hidden && document.activeElement.id === 'token'", "a question for the token")
    type_token(browser, "another")
    browser.wait("document.getElementById('asked').textContent.includes('another one')", "that it is another one")
    type_token(browser, token)
    wait_live(browser)
    browser.wait("document.querySelector('[data-figure=reception]') !== null", "an answer to a command")
    expect_equal(browser.run("[sessionStorage.length, localStorage.length, document.cookie, location.href.includes('and-more')]"), [1, 0, "", False],
                 "where it is kept")
    browser.reload()
    wait_live(browser)
    browser.reload("document.getElementById('forget').click()")
    browser.wait("!document.getElementById('ask').hidden && sessionStorage.length === 0", "that it is forgotten")
    # Only the browser's own words on status 401.
    browser.complaints = [c for c in browser.complaints if "401" not in c]
    expect_no_complaints(browser)


def test_page_keeps_a_token_that_another_one_was_refused_before(flow):
    token = "Tr0ub4dor&3-and-more"
    (flow.path / "token").write_text(token + "\n")
    server = Server(flow, listen=f'token_file = "{flow.path}/token"')
    browser = open_page(flow, server, token)
    browser.wait("!document.getElementById('ask').hidden", "a question for the token")
    # What the console's commands are refused is on its way for as long as we like.
    browser.run("""void (() => {
        const real = window.fetch;
        const go = new Promise((resolve) => { window.letGo = resolve; });
        window.held = window.gone = 0;
        window.fetch = async (path, options) => {
            const answer = await real(path, options);
            if (answer.status === 401 && path !== "events" && "Authorization" in options.headers) {
                window.held++;
                await go;
                window.gone++;
            }
            return answer;
        };
    })()""")
    type_token(browser, "another")
    browser.wait("window.held > 0 && document.getElementById('asked').textContent.includes('another one')", "that it is another one")
    type_token(browser, token)
    wait_live(browser)
    browser.run("window.letGo()")
    browser.wait("window.gone === window.held && document.querySelector('[data-figure=reception]') !== null", "an answer to a command")
    expect_equal(browser.run("[sessionStorage.length, document.getElementById('ask').hidden]"), [1, True], "tokens kept, and nothing asked")
    browser.complaints = [c for c in browser.complaints if "401" not in c]
    expect_no_complaints(browser)


def test_page_says_when_the_stream_is_broken(flow):
    server = Server(flow)
    browser = open_page(flow, server)
    server.daemon.kill()
    browser.wait("document.getElementById('stream').textContent.startsWith('■ stream broken')", "that the stream is broken")
    expect(browser.run("document.title").startswith("▲") and browser.run("document.getElementById('view').className") == "stale", "a page that looks as before")
    server.daemon.start()
    wait_live(browser)
    expect(not browser.run("document.title").startswith("▲"), "a page that looks broken still")


def test_page_fits_screens_and_keyboards(flow):
    server = arrange(flow)
    long_name = "a-name-that-somebody-had-very-much-time-for.of-a-zone-that-is-as-long.example"
    send(server, [f"a@{long_name}"])
    browser = open_page(flow, server)
    wait_until(lambda: any(row[0] == long_name for row in browser.rows("domains")), "a long name")
    browser.run("document.querySelector('[data-table=domains] th button').focus()")
    browser.key("Enter", "\r")
    wait_until(lambda: [row[0] for row in browser.rows("domains")] == sorted(row[0] for row in browser.rows("domains")), "rows by name")
    expect_equal(browser.run("document.querySelector('[data-table=domains] th').getAttribute('aria-sort')"), "ascending", "what is said of the order")
    browser.key("Enter", "\r")
    wait_until(lambda: browser.rows("domains")[0][0] == "later.test", "rows by name, the last first")
    browser.key("Tab")
    expect_equal(browser.run("document.activeElement.textContent.trim()"), "queued", "the next thing by keyboard")
    for name, where, ready in (("overview", "#/", "[data-table=held] tbody tr"), ("domain", "#/domain/later.test", "[data-table=answers] tbody tr"),
                               ("long", f"#/domain/{long_name}", "[data-figure=state]"), ("binding", "#/binding/default", "[data-table=queues] tbody tr")):
        go(browser, where)
        browser.wait(f"document.querySelector({ready!r}) !== null", f"the page {name}")
        take_pictures(browser, name, ((360, True), (360, False), (768, False), (1440, True), (1440, False)))
    expect_no_complaints(browser)
