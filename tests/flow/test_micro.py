"""fwmicro: every group runs, every row is there, and knows what it is compared with. The figures of a
quick run mean nothing; none is asserted."""

import json
import os

from flow import expect, expect_equal, Skip

# Its threads spin, each on a core.
alone = True
GROUPS = ["ring", "agent", "doorbell", "wheel", "commit", "fsync", "smtp", "reply", "address",
          "header", "event", "message", "dkim", "seal", "bounce", "jlog"]
# What make bench looks for.
KNOWN = {"ring.hop.p50": "ns", "ring.hop.p99": "ns", "ring.one-way.64": "M/s", "agent.hop.p50": "ns",
         "doorbell.wake.p50": "ns", "wheel.expire": "ns", "commit.10k.64": "msg/s",
         "commit.10k.64.syncs": "/s", "fsync.p99": "ns", "smtp.data-10k": "MB/s",
         "reply.message.replies": "/s", "event.text-r": "ns", "message.build": "ns",
         "jlog.write.256": "ns", "jlog.read": "ns", "jlog.follow.p99": "ns"}


def need_two_cores():
    if len(os.sched_getaffinity(0)) < 2:
        raise Skip("one core only")


def listed(flow):
    """Names and units of all rows, in order."""
    return [tuple(line.split()) for line in flow.run("fwmicro", "--list").splitlines()]


def test_micro_measures_every_row(flow):
    need_two_cores()
    rows = [json.loads(line) for line in
            flow.run("fwmicro", "--quick", "--runs", "3", "--json").splitlines()]
    expect_equal([(r["name"], r["unit"]) for r in rows], listed(flow), "rows")
    expect_equal(list(dict.fromkeys(r["group"] for r in rows)), GROUPS, "groups")
    by_name = {r["name"]: r for r in rows}
    expect_equal(len(by_name), len(rows), "names that differ")
    expect_equal({n: by_name[n]["unit"] for n in KNOWN if n in by_name}, KNOWN, "rows that others want")
    for r in rows:
        runs = sorted(r["runs"])
        expect(len(runs) == 3 and runs[0] > 0, f"{r['name']} has three runs that took some time: {runs}")
        expect_equal((r["min"], r["median"], r["max"]), tuple(runs), r["name"])
        expect(r["name"].startswith(r["group"] + "."), f"{r['name']} is named after {r['group']}")
        if "beside" in r:
            beside = by_name[r["beside"]]
            expect_equal((beside["unit"], beside["group"]), (r["unit"], r["group"]),
                         f"what {r['name']} is compared with")
            ratio = r["median"] / beside["median"]
            expect(abs(r["ratio"] - ratio) <= 0.01 * ratio + 0.001, f"ratio of {r['name']}: {r['ratio']}")


def test_micro_prints_a_table_and_leaves_nothing(flow):
    need_two_cores()
    table = flow.run("fwmicro", "--quick", "--runs", "1", "commit", "fsync", "smtp", "jlog").splitlines()
    wanted = [name for name, _ in listed(flow) if name.split(".")[0] in ("commit", "fsync", "smtp", "jlog")]
    expect_equal(table[0].split(), ["name", "unit", "median", "min", "max", "beside"], "heading")
    expect_equal([line.split()[0] for line in table[1:]], wanted, "rows")
    for line in table[1:]:
        words = line.split()
        expect(words[2] == words[3] == words[4], f"one run is its own median: {line}")
    left = [p.name for p in flow.path.iterdir() if p.name.startswith("fwmicro-") and p.is_dir()]
    expect_equal(left, [], "directories left behind")


def test_micro_refuses_what_it_does_not_know(flow):
    for options, said in ((["rings"], 'there is no group "rings"'), (["--runs", "0"], "--runs"),
                          (["--cores", "1,1"], "--cores"), (["--dir", "/nowhere"], "/nowhere")):
        text = flow.run("fwmicro", *options, wanted=2)
        expect(said in text, f"{options}: {text}")
