"""The page at /: what it shows, that it shows what others say as text, who may see it, and on which screens. The tests
that look at it need a browser (Debian: chromium-headless-shell), and are skipped without one."""

import base64
import hashlib
import re

from browser import Browser, browser_program
from flow import ROOT, Skip, expect, expect_equal, wait_until
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
    server = Server(flow, sink_port=peer.port, text='retry_interval = "1h"\ngenerate_bounces = false\nmetrics_interval = "200ms"\n'
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
    rows = {row["domain"]: row for row in server.daemon.console("domains")["domains"]}
    wanted = {name: [str(n) for n in (r["active"] + r["delayed"], r["active"], r["delayed"], 0, r["connections"], r["delivered"], r["transient"], r["failed"])]
              for name, r in rows.items()}
    wait_until(lambda: {row[0]: row[1:] for row in browser.rows("domains")} == wanted, "the domains that the console has")
    binding = server.daemon.console("bindings")["bindings"][0]
    expect_equal(browser.rows("bindings"), [["default", "13", str(binding["active"]), str(binding["delayed"]), "0", str(binding["connections"]),
                                             str(binding["delivered"]), str(binding["transient"]), str(binding["failed"])]], "bindings")
    totals = {name: browser.run(f"document.querySelector('[data-figure={name}]').closest('section').querySelector('.under').textContent")
              for name in ("received", "delivered", "deferred", "failed")}
    expect_equal(totals, {"received": f"{summary['received_messages']} since the start", "delivered": "8 since the start",
                          "deferred": "5 since the start", "failed": "5 since the start"}, "totals")
    expect_equal(browser.figure("spooled"), str(summary["spool_messages"]), "messages in the spool")
    agents = {row["agent"] for row in server.daemon.console("threads")["agents"]}
    expect_equal({row[0] for row in browser.rows("agents")}, agents, "agents")
    expect_equal({row[0]: row[1] for row in browser.rows("refusals")}["550 5.1.1 no"], "5", "what next hops refuse")
    browser.wait("/^[1-9][0-9.]* .iB of [1-9]/.test(document.querySelector('[data-figure=disk]').textContent)", "the disk")
    wait_until(lambda: {row[0]: row[1:3] for row in browser.rows("held")} == {"held.test": ["8", "0"], "later.test": ["0", "5"]}, "the longest queues")
    held = {row[0]: row[3] for row in browser.rows("held")}
    expect("suspend" in held["held.test"], f"what mail waits for: {held}")
    expect_no_complaints(browser)


def test_page_shows_one_domain(flow):
    server = arrange(flow)
    browser = open_page(flow, server)
    browser.wait("document.querySelector('[data-table=domains] a[href=\"#/domain/later.test\"]')?.click() ?? true", "a link")
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


def test_page_asks_for_the_token(flow):
    token = "Tr0ub4dor&3-and-more"
    (flow.path / "token").write_text(token + "\n")
    server = Server(flow, listen=f'token_file = "{flow.path}/token"')
    browser = open_page(flow, server, token)

    def type_token(text):
        browser.run(f"document.getElementById('token').value = {text!r}")
        browser.run("document.querySelector('#ask button').click()")

    browser.wait("!document.getElementById('ask').hidden && document.activeElement.id === 'token'", "a question for the token")
    type_token("another")
    browser.wait("document.getElementById('asked').textContent.includes('another one')", "that it is another one")
    type_token(token)
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
        for width, dark in ((360, True), (360, False), (768, False), (1440, True), (1440, False)):
            browser.resize(width, 740, dark, still=True)
            expect_equal(browser.run("document.documentElement.scrollWidth"), width, f"width of the page {name}")
            cut = browser.run("[...document.querySelectorAll('#view td, #view dd, #view .under, #view h2')].filter((e) =>"
                              " e.getClientRects().length && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline').map((e) => e.textContent)")
            expect_equal(cut, [], f"what does not fit at {width} on the page {name}")
            browser.picture(ROOT / "build" / "page" / f"{name}-{width}{'-dark' if dark else ''}.png")
    expect_no_complaints(browser)
