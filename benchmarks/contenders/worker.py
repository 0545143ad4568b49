"""The loop of a contender: read a task from stdin, run it, answer with its times.

A task is one line: its name, a tab, and its arguments separated by tabs. The answer is one line of
JSON: wall and CPU seconds, and what the task returned.
"""

import json
import sys
import time


def serve(tasks):
    """Run until stdin ends. `tasks` maps names to functions of strings."""
    print("ready", flush=True)
    for line in sys.stdin:
        name, *arguments = line.rstrip("\n").split("\t")
        wall, cpu = time.perf_counter(), time.process_time()
        result = tasks[name](*arguments)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "result": result}), flush=True)
