"""All cases, in the order in which they are measured."""

from bench import accept, counts, find, logging, micro, open_loop, policy, queued, relay, scale, secured
from bench.process import BenchError

ALL = [*relay.CASES, *secured.CASES, *accept.CASES, *open_loop.CASES, *scale.CASES, *queued.CASES,
       *find.CASES, *counts.CASES, *logging.CASES, *policy.CASES, *micro.CASES]


def choose(names):
    """The cases of these names, in their usual order; all without a name."""
    unknown = set(names) - {case.name for case in ALL}
    if unknown:
        raise BenchError(f"no case {' '.join(sorted(unknown))}; there are "
                         f"{' '.join(case.name for case in ALL)}")
    return [case for case in ALL if not names or case.name in names]
