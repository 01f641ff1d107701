# SPDX-License-Identifier: BSD-2-Clause
"""chaosctl as a person and a script use it: what it sets is what mail meets,
what it shows is what is there, and its exit status tells how it went."""
import json
import os
import signal
import subprocess
import threading
import unittest

from labkit import LabTestCase, wait_until

CHAOSCTL = os.path.join(os.environ.get("LAB_BUILD", ""), "chaosctl")
OK, NO, USAGE, REFUSED, UNAVAILABLE, FORBIDDEN = 0, 1, 64, 65, 69, 77


class Chaosctl(LabTestCase):
    once = True
    seconds = 25

    def environ(self, **more):
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith("CHAOSCTL_")}
        return {**clean, "CHAOSCTL_URL": f"http://127.0.0.1:{self.lab.http_port}",
                "CHAOSCTL_KEY": self.lab.env["API_KEY"], **more}

    def run_ctl(self, *words, text=None, **environ):
        return subprocess.run(
            [CHAOSCTL, *words], env=self.environ(**environ), text=True,
            input=text or "", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=60, check=False)

    def ctl(self, *words, code=OK, **options):
        """What it printed; the exit status is as expected, and a message stands
        on standard error exactly when something is wrong."""
        done = self.run_ctl(*words, **options)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertEqual(bool(done.stderr), code not in (OK, NO), done.stderr)
        return done.stdout if code in (OK, NO) else done.stderr

    # --- inboxes

    def test_inbox_set_by_flags_is_the_document_that_they_name(self):
        inbox = self.inbox()
        self.ctl("inbox", "set", inbox, "--latency", "1s..5s:50%", "--error",
                 "451:30%", "--error-text", "100% full", "--greylist", "3:10m",
                 "--drop", "rst:0.1", "--blackhole", "--seed", "7",
                 "--description", "all of it")
        config = self.lab.http("GET", self.lab.chaos_path(inbox)).json
        self.assertEqual(config, {
            "enabled": True,
            "latency": {"enabled": True, "minDelayMs": 1000, "maxDelayMs": 5000,
                        "jitter": True, "probability": 0.5},
            "connectionDrop": {"enabled": True, "probability": 0.1, "graceful": False},
            "randomError": {"enabled": True, "errorRate": 0.3,
                            "errorTypes": ["temporary"], "code": 451,
                            "text": "100% full"},
            "greylist": {"enabled": True, "retryWindowMs": 600000,
                         "maxAttempts": 3, "trackBy": "ip_sender"},
            "blackhole": {"enabled": True, "triggerWebhooks": False},
            "seed": 7, "description": "all of it"})

    def test_mail_meets_what_was_set_and_no_more_after_clear(self):
        inbox = self.inbox()
        self.ctl("inbox", "set", inbox, "--error", "552", "--error-text", "50% off")
        self.lab.settle()
        reply = self.send(inbox).rcpts[0]
        self.assertEqual(reply.code, 552)
        self.assertIn("50% off", reply.text)
        self.assertIn("552", self.ctl("inbox", "get", inbox))
        self.ctl("inbox", "clear", inbox)
        self.lab.settle()
        self.assertIn("quiet", self.ctl("inbox", "get", inbox, code=NO))
        self.assert_passes(inbox)

    def test_for_expires(self):
        inbox = self.inbox()
        shown = self.ctl("inbox", "set", inbox, "--error", "550", "--for", "1500ms")
        self.assertIn(", until 20", shown)
        self.lab.settle()
        self.assertEqual(self.send(inbox).rcpts[0].code, 550)
        wait_until("the end of the chaos",
                   lambda: self.send(inbox).rcpts[0].code == 250, 10, 0.3)

    def test_list_pages_and_stops_where_told(self):
        boxes = [self.inbox("paged") for _ in range(3)]
        self.ctl("inbox", "set", *boxes, "--blackhole")
        shown = self.ctl("inbox", "list", "paged-")
        for box in boxes:
            self.assertIn(box, shown)
        self.assertIn("and more", self.ctl("inbox", "list", "paged-", "--limit", "2"))
        listed = json.loads(self.ctl("inbox", "list", "paged-", "--json"))
        self.assertEqual([box["emailAddress"] for box in listed["inboxes"]],
                         sorted(boxes))

    # --- rules

    def test_rules_are_added_ordered_switched_and_removed(self):
        inbox = self.inbox()
        self.assertEqual(self.ctl("rule", "add", "--id", "b", "--error",
                                  "451 4.7.1 second", "--inbox", inbox), "added b\n")
        self.ctl("rule", "add", "--id", "a", "--error", "550 5.1.1 first",
                 "--inbox", inbox, "--before", "b")
        self.lab.settle()
        self.assertEqual(self.send(inbox).rcpts[0].code, 550)
        self.ctl("rule", "move", "a", "--after", "b")
        self.lab.settle()
        self.assertEqual(self.send(inbox).rcpts[0].code, 451)
        self.ctl("rule", "disable", "b")
        self.lab.settle()
        self.assertEqual(self.send(inbox).rcpts[0].code, 550)
        lines = self.ctl("rule", "list").splitlines()
        self.assertEqual([line.split()[:2] for line in lines[1:]],
                         [["b", "off"], ["a", "live"]])
        self.ctl("rule", "enable", "b")
        self.assertNotIn(" off ", self.ctl("rule", "list"))
        self.ctl("rule", "rm", "a", "b")
        self.assertIn("No rules", self.ctl("rule", "list"))
        self.lab.settle()
        self.assert_passes(inbox)

    def test_rule_flags_are_the_document_that_they_name(self):
        cases = {
            ("--latency", "1s..5s"): {"kind": "latency", "min": 1000, "max": 5000},
            ("--latency", "2s"): {"kind": "latency", "ms": 2000},
            ("--latency", "median 2s sigma 0.5"):
                {"kind": "latency", "median": 2000, "sigma": 0.5},
            ("--latency", "justOver data"):
                {"kind": "latency", "limit": "justOver", "of": "data"},
            ("--drop", "rst ackLost"):
                {"kind": "drop", "how": "rst", "outcome": "ackLost"},
            ("--greylist", "3"): {"kind": "greylist", "maxAttempts": 3},
            ("--blackhole",): {"kind": "blackhole"},
            ("--throttle", "0.5/s burst 10 per sender"):
                {"kind": "throttle", "rate": 0.5, "burst": 10, "per": "sender"},
            ("--sequence", "451 4.7.1 later; 421; ok"):
                {"kind": "sequence", "steps": ["451 4.7.1 later", "421", "ok"]},
            ("--quarantine", "look at it"):
                {"kind": "quarantine", "reason": "look at it"},
            ("--duplicate",): {"kind": "duplicate"},
            ("--misdeliver", "x@example.net"):
                {"kind": "misdeliver", "to": "x@example.net"},
            ("--mutate", "truncateBody=10"): {"kind": "mutate", "truncateBody": 10},
            ("--mutate", "addHeader=X-A: b: c"):
                {"kind": "mutate", "addHeader": {"X-A": "b: c"}},
            ("--error", "451 4.7.1 try later"):
                {"kind": "error", "code": 451, "enhanced": "4.7.1",
                 "text": "try later"},
            ("--error", "550"): {"kind": "error", "code": 550},
            ("--error", "permanent"): {"kind": "error", "types": ["permanent"]},
        }
        for flags, fault in cases.items():
            with self.subTest(flags):
                self.ctl("rule", "add", "--id", "one", "--disabled", *flags)
                rule = json.loads(self.ctl("rule", "get", "one"))
                self.assertEqual(rule["fault"], fault)
                self.ctl("rule", "rm", "one")

    def test_rule_conditions_and_bounds(self):
        self.ctl("rule", "add", "--id", "all", "--error", "451", "--stage", "message",
                 "--domain", "example.com", "--sender", "<>", "--client",
                 "192.0.2.0/24", "--helo", "*.example", "--user", "u", "--header",
                 "X-Campaign: spring*", "--header", "List-Id: *", "--size", "10..",
                 "--attempt", "..2", "--probability", "30%", "--seed", "4",
                 "--max-hits", "9", "--shadow", "--description", "d", "--until",
                 "2030-01-01T12:00:00Z")
        self.assertEqual(json.loads(self.ctl("rule", "get", "all")), {
            "id": "all", "stage": "message", "domain": "example.com", "sender": "<>",
            "client": "192.0.2.0/24", "helo": "*.example", "user": "u",
            "expiresAt": "2030-01-01T12:00:00Z", "description": "d",
            "header": {"X-Campaign": "spring*", "List-Id": "*"},
            "size": {"gte": 10}, "attempt": {"lte": 2}, "probability": 0.3,
            "mode": "shadow", "seed": 4, "maxHits": 9,
            "fault": {"kind": "error", "code": 451}})
        self.ctl("rule", "rm", "all")

    def test_rule_from_a_pipe(self):
        rule = {"id": "piped", "enabled": False, "fault": {"kind": "blackhole"}}
        self.ctl("rule", "add", "--file", "-", text=json.dumps(rule))
        self.assertEqual(json.loads(self.ctl("rule", "get", "piped")), rule)
        self.ctl("rule", "rm", "piped")

    # --- the other faces

    def test_trigger_set_leaves_the_others(self):
        self.addCleanup(self.run_ctl, "trigger", "set", "--off")
        self.ctl("trigger", "set", "--sender", "451:0%", "--recipient", "450:1%")
        self.ctl("trigger", "set", "--auth", "535:2%")
        self.assertEqual(json.loads(self.ctl("trigger", "get", "--json")), {
            "Sender": {"ErrorCode": 451, "Probability": 0},
            "Recipient": {"ErrorCode": 450, "Probability": 1},
            "Authentication": {"ErrorCode": 535, "Probability": 2}})

    def test_faults_and_effects(self):
        rules = [{"inbox": self.inbox(), "probability": 0}]
        self.assertEqual(json.loads(self.ctl("faults", "--set", "-",
                                             text=json.dumps(rules))), rules)
        self.assertEqual(json.loads(self.ctl("faults")), rules)
        self.assertEqual(json.loads(self.ctl("faults", "--clear")), [])
        self.assertEqual(json.loads(self.ctl("effects", "--latency", "0")),
                         {"latency": 0})

    # --- the fleet

    def test_halt_spares_and_resume_hurts_again(self):
        inbox = self.inbox()
        self.ctl("inbox", "set", inbox, "--error", "550")
        self.lab.settle()
        self.ctl("halt", "--reason", "a test")
        self.assertIn("HALTED", self.ctl("status", code=NO))
        self.assert_passes(inbox)
        self.ctl("resume")
        wait_until("the rules to act again",
                   lambda: self.send(inbox).rcpts[0].code == 550)

    def test_events_shows_and_follows(self):
        inbox = self.inbox()
        self.ctl("inbox", "set", inbox, "--error", "554")
        self.lab.settle()
        follower = subprocess.Popen(
            [CHAOSCTL, "events", "--follow", "--inbox", inbox],
            env=self.environ(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(
            iter(follower.stdout.readline, "")), daemon=True)
        reader.start()
        try:
            # What happened before it was connected is not shown.
            wait_until("an event", lambda: self.send(inbox) and lines, pause=0.3)
            self.assertIn(inbox, lines[0])
            self.assertIn('"554 5.3.0', lines[0])
        finally:
            follower.send_signal(signal.SIGTERM)
            follower.wait(10)
            reader.join(10)
            follower.stdout.close()
            follower.stderr.close()
        self.assertIn(inbox, self.ctl("events", "--inbox", inbox, "--limit", "1"))
        self.assertIn("No events", self.ctl("events", "--inbox", self.inbox()))

    def test_keys_are_made_used_and_revoked(self):
        made = json.loads(self.ctl("keys", "add", "ci", "--scope", "read"))
        self.assertIn("ci", self.ctl("keys", "list"))
        self.ctl("status", CHAOSCTL_KEY=made["key"])
        self.ctl("inbox", "set", self.inbox(), "--blackhole", code=FORBIDDEN,
                 CHAOSCTL_KEY=made["key"])
        self.ctl("keys", "revoke", made["id"])
        wait_until("the key to be refused", lambda: self.run_ctl(
            "status", CHAOSCTL_KEY=made["key"]).returncode == FORBIDDEN)

    def test_reset_asks_for_yes(self):
        inbox = self.inbox()
        self.ctl("inbox", "set", inbox, "--blackhole")
        self.assertIn("--yes", self.ctl("reset", code=USAGE))
        self.assertIn("on", self.ctl("inbox", "get", inbox))
        self.ctl("reset", "--yes")
        self.ctl("inbox", "get", inbox, code=NO)

    # --- mistakes

    def test_wrong_usage_sends_nothing_and_says_what(self):
        cases = {
            (): "which command",
            ("frobnicate",): "no command 'frobnicate'",
            ("inbox",): "which command",
            ("inbox", "frob"): "no command 'inbox frob'",
            ("inbox", "set"): "ADDRESS",
            ("inbox", "set", "a@b.example"): "nothing to set",
            ("inbox", "set", "a@b.example", "--latency", "5"): "'5'",
            ("inbox", "set", "a@b.example", "--latency", "5s..1s"): "5s..1s",
            ("inbox", "set", "a@b.example", "--error", "200"): "200",
            ("inbox", "set", "a@b.example", "--error", "451:130%"): "130%",
            ("inbox", "set", "a@b.example", "--frob"): "--frob",
            ("inbox", "set", "a@b.example", "--greylist"): "needs a value",
            ("inbox", "set", "a@b.example", "--blackhole=1"): "takes no value",
            ("rule", "add"): "one fault",
            ("rule", "add", "--blackhole", "--duplicate"): "one fault",
            ("rule", "move", "r1"): "where to",
            ("trigger", "set"): "which trigger",
            ("trigger", "set", "--sender", "451:0.5%"): "whole percents",
            ("--frob",): "--frob",
        }
        for words, said in cases.items():
            with self.subTest(words):
                self.assertIn(said, self.ctl(*words, code=USAGE,
                                             CHAOSCTL_URL="http://127.0.0.1:1"))

    def test_refusals_name_each_member(self):
        said = self.ctl("rule", "add", "--drop", "gone", "--stage", "nowhere",
                        code=REFUSED)
        self.assertIn("fault.how", said)
        said = self.ctl("inbox", "set", "no address", "--blackhole", code=REFUSED)
        self.assertIn("address", said)
        done = self.run_ctl("rule", "get", "nobody")
        self.assertEqual(done.returncode, NO)
        self.assertIn("nobody", done.stderr)

    def test_nobody_there_and_no_key(self):
        self.assertIn("127.0.0.1:1", self.ctl(
            "status", code=UNAVAILABLE, CHAOSCTL_URL="http://127.0.0.1:1"))
        self.assertIn("CHAOSCTL_KEY", self.ctl("status", code=FORBIDDEN,
                                               CHAOSCTL_KEY=""))
        self.assertIn("CHAOSCTL_KEY", self.ctl("status", code=FORBIDDEN,
                                               CHAOSCTL_KEY="cm_wrong"))

    def test_key_from_a_file(self):
        path = os.path.join(self.lab.dir, "key-of-a-person")
        with open(path, "w", encoding="ascii") as file:
            file.write(self.lab.env["API_KEY"] + "\n")
        self.ctl("status", "--key-file", path, CHAOSCTL_KEY="")
        self.ctl("status", CHAOSCTL_KEY="", CHAOSCTL_KEY_FILE=path)
        self.ctl("status", "--key-file", path + "x", code=USAGE)

    def test_help_of_every_command_and_completion(self):
        overview = self.ctl("--help", CHAOSCTL_URL="http://127.0.0.1:1")
        names = [line for line in self.ctl("__complete").splitlines()
                 if not line.startswith("--")]
        self.assertGreater(len(names), 15)
        for name in names:
            with self.subTest(name):
                self.assertIn(name, overview)
                shown = self.ctl(*name.split(), "--help")
                self.assertIn("usage: chaosctl " + name, shown)
                self.assertIn("chaosctl " + name, shown.partition("usage:")[2])
                for flag in self.ctl("__complete", *name.split()).splitlines():
                    self.assertTrue(flag.startswith("--"), flag)


if __name__ == "__main__":
    unittest.main()
