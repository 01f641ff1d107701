#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""
runner.py [-j N] [--mta MTA] [MODULE | MODULE.CLASS ..] - run the lab tests on
Postfix (or Sendmail) and count.

Each TestCase class has a lab of its own, so classes run side by side, each in a
process and with a temporary folder of its own; what is still in that folder
afterwards was left behind, and that is a failure. A class may say

    alone = True    it measures times: nothing runs beside it; such go first
    apart = True    each test has its own lab, and so its own process
    seconds = 70    about how long it takes: the longest begin first
    once = True     the mail server does not matter: not run on Sendmail, unless
                    it is named

Ends with the reasons of what was skipped and "N passed, N failed". Plain unittest was rejected for its serial
order: most of the time here is waiting.
"""
import argparse
import collections
import concurrent.futures
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
LAB = os.path.join(HERE, "..", "..", "contrib", "lab")
UNIT_SECONDS_MAX = 300


def load(name):
    """The tests of a module, a class or one method as {unit's name: suite}."""
    units = {}

    def add(suite):
        for item in suite:
            if isinstance(item, unittest.TestSuite):
                add(item)
            else:
                key = item.id()
                if not getattr(item, "apart", False):
                    key = key.rpartition(".")[0]
                units.setdefault(key, unittest.TestSuite()).addTest(item)

    add(unittest.defaultTestLoader.loadTestsFromName(name))
    return units


# ------------------------------------------------ one unit, in its own process

class Counted(unittest.TextTestResult):
    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def run_unit(name, report):
    """A test that did not run, because its lab did not come up, has failed; a
    lab that did not go down as it should is one failure more."""
    suite = load(name)[name]
    total = suite.countTestCases()
    result = unittest.TextTestRunner(sys.stdout, verbosity=2,
                                     resultclass=Counted).run(suite)
    skipped = len(result.skipped)
    failed = total - result.passed - skipped + sum(
        test.id().startswith("tearDownClass") for test, _ in result.errors)
    reasons = collections.Counter(reason for _, reason in result.skipped)
    with open(report, "w", encoding="ascii") as file:
        json.dump({"passed": result.passed, "failed": failed,
                   "skipped": reasons}, file)


# --------------------------------------------------------------- all the units

def left_behind(folder):
    """Takes down what a unit has left, and says what it was."""
    rest = sorted(os.listdir(folder))
    for lab in glob.glob(os.path.join(folder, "*", "lab")):
        subprocess.run([LAB, "down"], env=dict(os.environ, LAB_DIR=lab),
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       check=False)
    return rest


def start_unit(name):
    """Runs a unit; (counts, output, seconds)."""
    folder = tempfile.mkdtemp(prefix="cm-")
    os.chmod(folder, 0o755)
    report, counts = folder + ".json", None
    begin = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), "--unit", name, report],
        env=dict(os.environ, TMPDIR=folder), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HERE,
        errors="replace", start_new_session=True)
    try:
        output, _ = child.communicate(timeout=UNIT_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output = child.communicate()[0] + f"\nkilled after {UNIT_SECONDS_MAX} s"
    try:
        with open(report, encoding="ascii") as file:
            counts = json.load(file)
        os.unlink(report)
    except FileNotFoundError:
        counts = {"passed": 0, "failed": 1, "skipped": {}}
        output += f"\n{name} did not come to its end (exit {child.returncode})"
    rest = left_behind(folder)
    if rest:
        counts["failed"] += 1
        output += f"\nFAIL: {name} left behind: {', '.join(rest)}"
    shutil.rmtree(folder, ignore_errors=True)
    return counts, output, time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-j", type=int, default=6, metavar="N")
    parser.add_argument("--unit", nargs=2, dest="one", help=argparse.SUPPRESS)
    parser.add_argument("--mta", choices=("postfix", "sendmail"),
                        default=os.environ.get("LAB_MTA") or "postfix")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    sys.path.insert(0, HERE)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["LAB_MTA"] = options.mta
    os.environ.setdefault("CHAOSADMIN", os.path.join(
        os.environ.get("LAB_BUILD", os.path.join(HERE, "..", "..", "build")),
        "chaosadmin"))
    if options.one:
        return run_unit(*options.one)

    names = options.names or sorted(
        os.path.basename(path)[:-3]
        for path in glob.glob(os.path.join(HERE, "test_*.py")))
    units = {}
    for name in names:
        units.update(load(name))
    if options.mta != "postfix" and not options.names:
        units = {name: suite for name, suite in units.items()
                 if not getattr(next(iter(suite)), "once", False)}

    def trait(name, what):
        return getattr(next(iter(units[name])), what, 0)

    alone = [name for name in units if trait(name, "alone")]
    together = sorted((name for name in units if name not in alone),
                      key=lambda name: -trait(name, "seconds"))
    sums = collections.Counter()
    skipped = collections.Counter()

    def tell(name, outcome):
        counts, output, seconds = outcome
        print(f"=== {name} ({seconds:.1f} s)\n{output.rstrip()}\n", flush=True)
        skipped.update(counts.pop("skipped"))
        sums.update(counts)

    for name in alone:
        tell(name, start_unit(name))
    with concurrent.futures.ThreadPoolExecutor(options.j) as pool:
        jobs = {pool.submit(start_unit, name): name for name in together}
        for job in concurrent.futures.as_completed(jobs):
            tell(jobs[job], job.result())
    if skipped:
        print(f"Skipped on {options.mta}:")
    for reason, count in skipped.most_common():
        print(f"  {count:3}  {reason}")
    print(f"{sums['passed']} passed, {sums['failed']} failed")
    return sums["failed"] > 0 or sums["passed"] == 0


if __name__ == "__main__":
    sys.exit(main())
