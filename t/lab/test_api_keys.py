# SPDX-License-Identifier: BSD-2-Clause
"""API keys: scopes on every route, revocation within a second, also by another
daemon, and no secret where none belongs. H15 of the list of cases."""
import os
import re
import signal
import subprocess
import time
import unittest

from labkit import PORTS, TOP, LabTestCase, now, wait_until

RULE = {"fault": {"kind": "error", "code": 550}}


def routes():
    """(method, path, flags) of every row of the daemon's own table."""
    with open(os.path.join(TOP, "admin", "api.c"), encoding="ascii") as source:
        text = source.read()
    rows = re.findall(r'\{CM_METHOD_(\w+),\s*"([^"]+)",\s*\w+,\s*(\w+)\}', text)
    assert len(rows) > 25
    return rows


class KeyCase(LabTestCase):
    once = True

    def call(self, method, path="", body=None, status=200, key=None):
        headers = {"X-API-Key": key} if key else None
        answer = self.lab.http(method, "/api/v1/" + path, body, headers=headers)
        self.assertEqual(answer.status, status, answer)
        return answer

    def make(self, *scopes, name="test", **members):
        answer = self.call("POST", "keys", dict(
            members, name=name, scopes=list(scopes)), 201)
        return answer.json


class Keys(KeyCase):
    seconds = 20

    def test_create_list_revoke(self):
        made = self.make("write", "read", name="ci")
        self.assertRegex(made["key"], r"^cm_[0-9a-f]{64}$")
        self.assertEqual(made["scopes"], ["read", "write"])
        self.assertRegex(made["createdBy"], r"^[0-9a-f]{8}$")
        self.call("GET", "rules", key=made["key"])
        listed = self.call("GET", "keys")
        self.assertNotIn(made["key"], listed.text)
        mine = [key for key in listed.json["keys"] if key["id"] == made["id"]]
        self.assertEqual((mine[0]["name"], mine[0]["settings"]), ("ci", False))
        of_settings = [key for key in listed.json["keys"] if key["settings"]]
        self.assertEqual(len(of_settings), 1)
        self.call("DELETE", "keys/" + of_settings[0]["id"], status=409)
        self.call("DELETE", "keys/" + made["id"], status=204)
        self.call("GET", "rules", key=made["key"], status=401)
        self.call("DELETE", "keys/" + made["id"], status=404)

    def test_every_route_asks_for_its_scope(self):
        keys = {scope: self.make(scope)["key"]
                for scope in ("read", "write", "halt")}
        both = self.make("read", "write")["key"]
        for method, path, flags in routes():
            if flags == "0":
                continue
            safe = method == "GET"
            fits = {"read"} if safe else {"write"}
            if flags == "ANY":
                fits = {"read", "write", "halt"}
            elif flags == "HALT":
                fits = {"halt", "read"} if safe else {"halt"}
            elif flags == "MASTER":
                fits = set()
            elif flags == "READ":
                fits = {"read"}
            for scope, key in keys.items():
                if path.endswith("/stream") and scope in fits:
                    continue  # it would not end; test_events opens it
                answer = self.lab.http(
                    method, re.sub(r":\w+", "nothing@example.net", path),
                    None if safe else "!", headers={"X-API-Key": key})
                if scope in fits:
                    self.assertNotIn(answer.status, (401, 403),
                                     (method, path, scope, str(answer)))
                else:
                    self.assertEqual(answer.status, 403, (method, path, scope))
                    self.assertIn("scope", answer.text)
            if flags == "MASTER":
                answer = self.lab.http(
                    method, path.replace(":id", "x"), None if safe else "!",
                    headers={"X-API-Key": both})
                self.assertEqual(answer.status, 403)

    def test_a_key_for_the_halt_alone_can_halt(self):
        key = self.make("halt", name="panic button")["key"]
        halted = self.call("POST", "halt", {"reason": "fire"}, key=key).json
        self.assertRegex(halted["by"], r"^key:[0-9a-f]{8} panic button$")
        self.call("GET", "halt", key=key)
        self.call("POST", "resume", key=key)
        self.call("GET", "rules", key=key, status=403)

    def test_what_it_did_carries_its_name(self):
        made = self.make("write", name="robot")
        self.call("PUT", "rules/named", RULE, 201, key=made["key"])
        entry = self.call("GET", "audit?key=rule:named").json["entries"][0]
        self.assertEqual(entry["actor"], f"key:{made['id']} robot")

    def test_no_secret_in_redis_audit_or_log(self):  # H15
        made = self.make("read", name="secret")
        self.call("GET", "rules", key=made["key"])
        self.call("DELETE", "keys/" + made["id"], status=204)
        again = self.make("read", name="secret")
        dump = []
        for name in self.lab.redis("KEYS", "*"):
            kind = self.lab.redis("TYPE", name)
            dump.append(str(self.lab.redis(*{
                "string": ("GET", name), "hash": ("HGETALL", name),
                "zset": ("ZRANGE", name, "0", "-1"),
                "stream": ("XRANGE", name, "-", "+")}[kind])))
        for key in (made["key"], again["key"]):
            for text in dump + [self.lab.log("chaosadmin"),
                                self.lab.log("redis-server")]:
                self.assertNotIn(key, text)
                self.assertNotIn(key[3:], text)
        audit = self.call("GET", "audit?key=key:" + made["id"])
        self.assertEqual([e["op"] for e in audit.json["entries"]], ["del", "set"])
        self.assertNotIn("sha256", audit.text)

    def test_wrong_requests(self):
        for body, pointer in (
                ({"scopes": ["read"]}, "#/name"), ({"name": "x"}, "#/scopes"),
                ({"name": "", "scopes": ["read"]}, "#/name"),
                ({"name": "a\nb", "scopes": ["read"]}, "#/name"),
                ({"name": "x" * 65, "scopes": ["read"]}, "#/name"),
                ({"name": "x", "scopes": []}, "#/scopes"),
                ({"name": "x", "scopes": ["root"]}, "#/scopes"),
                ({"name": "x", "scopes": "read"}, "#/scopes"),
                ({"name": "x", "scopes": ["read"], "key": "k"}, "#/key"),
                ({"name": "x", "scopes": ["read"], "expiresAt": "soon"},
                 "#/expiresAt")):
            answer = self.call("POST", "keys", body, 422)
            self.assertIn(pointer, [e["pointer"] for e in answer.json["errors"]])
        self.call("DELETE", "keys/nothing", status=404)

    def test_expired_key_opens_nothing(self):
        past = self.make("read", expiresAt="2020-01-01T00:00:00Z")
        future = self.make("read", expiresAt="2999-01-01T00:00:00Z")
        self.call("GET", "rules", key=past["key"], status=401)
        self.call("GET", "rules", key=future["key"])

    def test_junk_in_redis_opens_nothing_and_breaks_nothing(self):
        key = self.make("read")["key"]
        for field, value in (("x", "y"), ("deadbeef", "sha256:zz {}"),
                             ("deadbee0", "sha256:" + "0" * 64 + " {]"),
                             ("deadbee1", "sha256:" + "0" * 64 + ' {"scopes":7}')):
            self.lab.redis("HSET", "{cm}:keys", field, value)
        time.sleep(1)
        self.call("GET", "rules", key=key)
        self.assertIn("error", self.call("GET", "keys").text)


class KeysElsewhere(KeyCase):
    apart = True
    seconds = 30

    def test_revoked_by_another_daemon_within_a_second(self):
        port = PORTS.take()
        binary = os.readlink(f"/proc/{self.lab.pid('chaosadmin')}/exe")
        with open(os.path.join(self.lab.dir, "other.log"), "wb") as log:
            other = subprocess.Popen(
                [binary, "-c", os.path.join(self.lab.dir, "chaosmilter.conf")],
                env=dict(os.environ,
                         CHAOSMILTER_ADMIN_LISTEN=f"127.0.0.1:{port}"),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")
        here = self.lab.http_port
        try:
            made = self.make("read")
            self.lab.http_port = port
            wait_until("the other daemon", self.answers)
            self.call("GET", "rules", key=made["key"])
            self.lab.http_port = here
            self.call("DELETE", "keys/" + made["id"], status=204)
            start = now()
            self.lab.http_port = port
            while self.lab.http("GET", "/api/v1/rules", headers={
                    "X-API-Key": made["key"]}).status != 401:
                self.assertLess(now() - start, 3)
                time.sleep(0.01)
            print(f"revoked elsewhere after {now() - start:.2f} s")
            self.assertLess(now() - start, 1.2)
        finally:
            self.lab.http_port = here
            other.send_signal(signal.SIGTERM)
            other.wait()

    def answers(self):
        try:
            return self.lab.http("GET", "/readyz", key=False).status == 200
        except OSError:
            return False

    def test_redis_away_leaves_the_keys_of_the_settings(self):
        key = self.make("read")["key"]
        self.lab.kill_and_wait("redis-server")
        time.sleep(1)
        answer = self.call("GET", "status", key=key, status=503)
        self.assertEqual(answer.headers["Retry-After"], "1")
        self.assertIs(self.call("GET", "status").json["redis"]["up"], False)
        self.lab.up()
        wait_until("Redis", self.answers)
        self.call("GET", "status", key=key)


if __name__ == "__main__":
    unittest.main()
