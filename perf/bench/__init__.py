"""The parts of the benchmark; perf/bench.py is the program."""
