# SPDX-License-Identifier: BSD-2-Clause
"""LocalStack's API: the list of fault rules and the effects, line by line over
HTTP, and what they do to mail. Names like H6 are the cases a test covers."""
import json
import threading
import time
import unittest

from labkit import LabTestCase, Smtp, make_message, wait_until
from mtas import MTA
from test_http import Case

FAULTS = "/chaos/faults"
EFFECTS = "/chaos/effects"
A = {"inbox": "a@example.com"}
B = {"inbox": "b@example.com", "probability": 0.5}
C = {"service": "*@example.net", "error": {"statusCode": 550, "code": "5.7.1", "message": "no"}}


# ------------------------------------------------------------------- the list

class Faults(Case):

    def setUp(self):
        # Redis may be busy with ten thousand rules of the test before.
        wait_until("an empty list", lambda: self.admin.post(FAULTS, []).status == 200)

    def patch(self, rules, query="", **headers):
        return self.admin.call("PATCH", FAULTS + query, rules, **headers)

    def remove(self, rules, **headers):
        return self.admin.call("DELETE", FAULTS, rules, **headers)

    def rules(self, query=""):
        answer = self.admin.get(FAULTS + query)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json

    def stored(self):
        """The documents in Redis, by name."""
        names = self.redis.ask("ZRANGEBYLEX", "{cm}:idx", "[fault:", "(fault;")
        return {name: self.redis.ask("GET", "{cm}:cfg:" + name) for name in names}

    def test_nothing_to_begin_with(self):
        answer = self.new_admin(self.new_redis()).get(FAULTS)
        self.assertEqual((answer.status, answer.text), (200, "[]"))

    def test_post_replaces_all_and_answers_the_array(self):
        answer = self.admin.post(FAULTS, [A, B])
        self.assertEqual((answer.status, answer.json), (200, [A, B]))
        answer = self.admin.post(FAULTS, [C])
        self.assertEqual((answer.status, answer.json), (200, [C]))
        self.assertEqual(self.rules(), [C])
        self.assertEqual(len(self.stored()), 1)

    def test_empty_array_turns_faults_off(self):
        self.admin.post(FAULTS, [A, B])
        self.assertEqual(self.admin.post(FAULTS, []).text, "[]")
        self.assertEqual(self.rules(), [])
        self.assertEqual(self.stored(), {})

    def test_patch_appends_what_is_not_there_yet(self):
        self.admin.post(FAULTS, [A])
        answer = self.patch([B, A, C])
        self.assertEqual((answer.status, answer.json), (200, [A, B, C]))
        self.assertEqual(self.rules(), [A, B, C])
        self.assertEqual(self.patch([B]).json, [A, B, C])

    def test_patch_first_puts_new_rules_in_front(self):
        self.admin.post(FAULTS, [A])
        answer = self.patch([B, A, C], "?position=first")
        self.assertEqual((answer.status, answer.json), (200, [B, C, A]))
        self.assertEqual(self.rules(), [B, C, A])
        d, e = {"inbox": "d@example.com"}, {"inbox": "e@example.com"}
        self.patch([d], "?position=first")
        self.patch([e])
        self.assertEqual(self.rules(), [d, B, C, A, e])
        self.fails(self.patch([A], "?position=last"), 400)

    def test_position_first_is_possible_without_end(self):
        for i in range(40):
            self.patch([{"inbox": f"u{i}@example.com"}], "?position=first")
            self.patch([{"inbox": f"v{i}@example.com"}])
        self.assertEqual(self.rules(),
                         [{"inbox": f"u{i}@example.com"} for i in reversed(range(40))]
                         + [{"inbox": f"v{i}@example.com"} for i in range(40)])

    def test_delete_removes_each_rule_that_equals_one_given(self):
        self.admin.post(FAULTS, [A, B, C])
        answer = self.remove([C, A])
        self.assertEqual((answer.status, answer.json), (200, [B]))
        self.assertEqual(self.rules(), [B])

    def test_delete_of_an_absent_rule_or_of_nothing_changes_nothing(self):
        self.admin.post(FAULTS, [A, B])
        seq = self.redis.ask("GET", "{cm}:seq")
        self.assertEqual(self.remove([C]).json, [A, B])
        self.assertEqual(self.remove([]).json, [A, B])
        self.assertEqual(self.redis.ask("GET", "{cm}:seq"), seq)

    def test_equality_is_by_json_value(self):
        one = '[{"inbox":"a@example.com","probability":1,"error":{"statusCode":451,"code":"4.3.0"}}]'
        same = '[{"error":{"code":"4.3.0","statusCode":451},"probability":1.0,"inbox":"a@example.com"}]'
        self.admin.post(FAULTS, one)
        self.assertEqual(len(self.patch(same).json), 1)
        self.assertEqual(self.remove(same).json, [])

    def test_an_omitted_member_does_not_equal_its_default(self):
        self.admin.post(FAULTS, [A])
        self.assertEqual(self.remove([{**A, "probability": 1}]).json, [A])
        self.assertEqual(len(self.patch([{**A, "probability": 1}]).json), 2)
        other_name = {"service": "a@example.com"}
        self.assertEqual(self.remove([other_name]).json, [A, {**A, "probability": 1}])

    def test_answers_echo_rules_as_given(self):
        given = '[{"operation":"RCPT","service":"A@Example.COM","probability":1.0,"description":"\\u00fc x"},{}]'
        self.assertEqual(self.admin.post(FAULTS, given).json, json.loads(given))
        text = self.admin.get(FAULTS).text
        self.assertEqual(json.loads(text), json.loads(given))
        self.assertIn('{"operation":"RCPT","service":"A@Example.COM","probability":1.0,', text)
        self.assertTrue(text.endswith(",{}]"), text)

    def test_full_view_adds_ids(self):
        self.admin.post(FAULTS, [A, B])
        full = self.rules("?view=full")
        self.assertEqual([{k: v for k, v in rule.items() if k in A or k in B} for rule in full], [A, B])
        ids = [rule["id"] for rule in full]
        self.assertEqual(len(set(ids)), 2)
        self.assertEqual(set(self.stored()), {"fault:" + name for name in ids})
        self.patch([C], "?position=first")
        self.assertEqual([rule["id"] for rule in self.rules("?view=full")][1:], ids)
        self.admin.post(FAULTS, [A, B])
        self.assertFalse(set(ids) & {rule["id"] for rule in self.rules("?view=full")})
        self.fails(self.admin.get(FAULTS + "?view=brief"), 400)

    def test_both_paths_are_one_list(self):
        self.admin.post("/_localstack" + FAULTS, [A])
        self.assertEqual(self.rules(), [A])
        self.assertEqual(self.admin.get("/_localstack" + FAULTS).json, [A])
        self.assertEqual(self.admin.call("PATCH", "/_localstack" + FAULTS, [B]).json, [A, B])
        self.assertEqual(self.admin.call("DELETE", "/_localstack" + FAULTS, [A]).json, [B])

    # --- what is refused

    def test_bad_requests_change_nothing(self):
        """H1 H5 H6 H7 H8"""
        self.admin.post(FAULTS, [A, B])
        before = self.admin.get(FAULTS)
        bodies = [b"", b"{", b"{}", b'"x"', b"null", b"5", b"[5]", b"[[]]", b"[null]", b'[{"x":1}]', b"[{},]",
                  b"[{}]x", b'[{"probability":2}]', b'[{"probability":-0.1}]', b'[{"probability":"1"}]',
                  b'[{"probability":NaN}]', b'[{"probability":1e309}]', b'[{"inbox":"a@b.c","inbox":"a@b.c"}]',
                  b'[{"inbox":"a@b.c","\\u0069nbox":"a@b.c"}]', b"[" * 100000, b'[{"error":{"statusCode":250}}]',
                  b'[{"error":{"statusCode":451.0}}]', b'[{"error":{"message":"x\\r\\n250 ok"}}]',
                  b'[{"error":{"message":"\\u2028"}}]', b'[{"error":{"code":"5.0.0"}}]', b'[{"stage":"body"}]',
                  b'[{"maxHits":0}]', b'[{"expiresAt":"soon"}]', b'[{"mode":"x"}]', b'[{"client":"300.0.0.1"}]',
                  b'[{"inbox":"\\u0000@b"}]', b'[{"inbox":"\xff@b"}]', b'\xef\xbb\xbf[]', b"[]\0",
                  b'[{"fault":{"kind":"nonsense"}}]', b'[{"description":"' + b"x" * 8193 + b'"}]',
                  b'[{"inbox":"c@d.e"},{"probability":7}]']
        for verb in ("POST", "PATCH", "DELETE"):
            for body in bodies:
                with self.subTest(verb=verb, body=body[:60]):
                    self.fails(self.admin.call(verb, FAULTS, body), 400)
        after = self.admin.get(FAULTS)
        self.assertEqual((after.text, after.headers["ETag"]), (before.text, before.headers["ETag"]))

    def test_every_fault_is_named_with_its_place_and_member(self):
        answer = self.admin.post(FAULTS, [{}, {"region": "x y", "foo": 1}, {"error": {"statusCode": 200}}])
        self.fails(answer, 400, error="Bad Request")
        message = answer.json["message"]
        self.assertEqual(message[0], "[1].property foo should not exist")
        self.assertTrue(message[1].startswith("[1].region must be a domain"), message)
        self.assertEqual(message[2], "[2].error.statusCode must not be less than 400")

    def test_two_equal_rules_in_one_request(self):
        for verb in ("POST", "PATCH", "DELETE"):
            answer = self.admin.call(verb, FAULTS, '[{"inbox":"a@b.c","probability":1},{},'
                                                   '{"probability":1.0,"inbox":"a@b.c"}]')
            self.fails(answer, 400, message=["[2] must not equal [0]"])
        self.assertEqual(self.rules(), [])

    def test_the_example_of_localstacks_own_page_is_no_json(self):
        body = """[
            {"region": "us-east-1", "service": "s3", "operation": "PutObject", "probability": 0.5,
             "error": {"statusCode": 500, "code": "InternalError"}},
            {"service": "lambda",},
            {"service": "kinesis", "operation": "PutRecord"}]"""
        self.fails(self.admin.post(FAULTS, body), 400)

    def test_text_that_is_not_json_by_its_type(self):
        """H12"""
        answer = self.admin.post(FAULTS, "[]", Content_Type="text/plain")
        self.fails(answer, 415)

    def test_the_list_has_an_end(self):
        """H23"""
        rules = [{"inbox": f"u{i:05}@example.com"} for i in range(10000)]
        answer = self.admin.post(FAULTS, rules)
        self.assertEqual(answer.status, 200, answer.text[:300])
        self.assertEqual(answer.json, rules)
        self.assertEqual(self.rules(), rules)
        self.fails(self.patch([A]), 400)
        self.assertEqual(self.patch([rules[77]]).json, rules)
        answer = self.admin.post(FAULTS, [A] + rules)
        self.fails(answer, 400, message=["body must have at most 10000 rules"])
        self.assertEqual(self.remove(rules[5000:]).json, rules[:5000])
        answer = self.admin.post(FAULTS, [{**rule, "probability": 0} for rule in rules])
        self.assertEqual(answer.status, 200, answer.text[:300])
        self.admin.post(FAULTS, [])

    # --- verbs, keys, tags

    def test_other_verbs(self):
        """H11"""
        for path in (FAULTS, "/_localstack" + FAULTS):
            answer = self.admin.call("PUT", path, [])
            self.fails(answer, 405)
            self.assertEqual(answer.headers["Allow"], "GET, HEAD, POST, PATCH, DELETE")
        for path in (EFFECTS, "/_localstack" + EFFECTS):
            for verb in ("PUT", "PATCH", "DELETE", "OPTIONS"):
                answer = self.admin.call(verb, path)
                self.fails(answer, 405)
                self.assertEqual(answer.headers["Allow"], "GET, HEAD, POST")
        head, get = self.admin.call("HEAD", FAULTS), self.admin.get(FAULTS)
        self.assertEqual((head.status, head.text), (200, ""))
        self.assertEqual(head.headers["Content-Length"], str(len(get.text)))

    def test_a_key_is_needed(self):
        for verb, path in (("GET", FAULTS), ("POST", FAULTS), ("GET", EFFECTS), ("POST", "/_localstack" + EFFECTS)):
            self.fails(self.admin.call(verb, path, None if verb == "GET" else [], key=None), 401)

    def test_etag_on_every_answer_and_new_with_every_change(self):
        tags = []
        for verb, rules in (("POST", [A, B, C]), ("PATCH", [{"inbox": "d@example.com"}]), ("DELETE", [A]),
                            ("DELETE", [C]), ("POST", [])):
            answer = self.admin.call(verb, FAULTS, rules)
            self.assertEqual(answer.status, 200)
            tags.append(answer.headers["ETag"])
            self.assertEqual(self.admin.get(FAULTS).headers["ETag"], tags[-1])
        self.assertEqual(len(set(tags)), len(tags))
        self.assertRegex(tags[0], r'^"\d+"$')

    def test_if_match(self):
        """H22"""
        old = self.admin.post(FAULTS, [A]).headers["ETag"]
        new = self.patch([B], If_Match=old)
        self.assertEqual(new.status, 200)
        for verb in ("POST", "PATCH", "DELETE"):
            answer = self.admin.call(verb, FAULTS, [C], If_Match=old)
            self.fails(answer, 412)
            self.assertEqual(answer.headers["ETag"], new.headers["ETag"])
        self.assertEqual(self.rules(), [A, B])
        self.assertEqual(self.remove([A], If_Match=new.headers["ETag"]).json, [B])
        self.assertEqual(self.remove([A], If_Match="*").json, [B])

    def test_edits_from_many_sides_lose_nothing(self):
        """H22"""
        def add(n):
            for i in range(10):
                answer = self.patch([{"inbox": f"u{n}-{i}@example.com"}])
                while answer.status == 412:      # crowded out five times
                    answer = self.patch([{"inbox": f"u{n}-{i}@example.com"}])
                answers.append(answer.status)
        answers = []
        threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [200] * 40)
        inboxes = [rule["inbox"] for rule in self.rules()]
        self.assertEqual(sorted(inboxes), sorted(f"u{n}-{i}@example.com" for n in range(4) for i in range(10)))

    # --- beside other writers

    def test_rules_by_redis_cli_are_in_the_list(self):
        self.admin.post(FAULTS, [A])
        self.redis.ask("FCALL", "cm_set", 0, "fault", "mine", json.dumps(B))
        self.assertEqual(self.rules(), [A, B])
        self.assertEqual(self.patch([C], "?position=first").json, [C, A, B])
        self.assertEqual(self.remove([B]).json, [C, A])

    def test_what_is_no_document_goes_with_a_replacement(self):
        self.admin.post(FAULTS, [A, B])
        self.redis.ask("SET", "{cm}:cfg:" + sorted(self.stored())[0], "garbage")
        self.assertEqual(self.rules(), [B])
        self.assertEqual(self.patch([C]).json, [B, C])
        self.assertEqual(len(self.stored()), 3)
        self.assertEqual(self.admin.post(FAULTS, [A]).json, [A])
        self.assertEqual(len(self.stored()), 1)

    def test_redis_away_is_503_and_changes_nothing(self):
        redis = self.new_redis()
        admin = self.new_admin(redis)
        admin.post(FAULTS, [A])
        redis.freeze()
        for verb, body in (("GET", None), ("POST", [B]), ("PATCH", [B]), ("DELETE", [A])):
            answer = admin.call(verb, FAULTS, body)
            self.fails(answer, 503)
            self.assertIn("Retry-After", answer.headers)
        redis.thaw()
        wait_until("an answer", lambda: admin.get(FAULTS).status == 200)
        self.assertEqual(admin.get(FAULTS).json, [A])


class Effects(Case):

    def setUp(self):
        self.assertEqual(self.admin.post(EFFECTS, {"latency": 0}).status, 200)

    def test_none_to_begin_with(self):
        answer = self.new_admin(self.new_redis()).get(EFFECTS)
        self.assertEqual((answer.status, answer.text), (200, '{"latency":0}'))

    def test_post_is_answered_and_kept(self):
        answer = self.admin.post(EFFECTS, {"latency": 200})
        self.assertEqual((answer.status, answer.text), (200, '{"latency":200}'))
        for path in (EFFECTS, "/_localstack" + EFFECTS):
            self.assertEqual(self.admin.get(path).text, '{"latency":200}')
        self.admin.post("/_localstack" + EFFECTS, {"latency": 5})
        self.assertEqual(self.admin.get(EFFECTS).text, '{"latency":5}')

    def test_optional_members(self):
        body = {"latency": 200, "jitter": 100, "distribution": "lognormal", "stage": "rcpt"}
        self.assertEqual(self.admin.post(EFFECTS, body).json, body)
        self.assertEqual(self.admin.get(EFFECTS).json, body)

    def test_bad_requests_change_nothing(self):
        self.admin.post(EFFECTS, {"latency": 7})
        for body in (b"", b"{}", b"[]", b"7", b"null", b'{"latency":-1}', b'{"latency":"7"}', b'{"latency":1.5}',
                     b'{"latency":null}', b'{"latency":60001}', b'{"latency":1,"foo":1}', b'{"latency":1',
                     b'{"latency":1,"latency":2}', b'{"latency":1,"stage":"quit"}', b'{"latency":1,"jitter":-1}',
                     b'{"latency":0,"distribution":"lognormal"}', b'{"latency":59999,"jitter":2}'):
            with self.subTest(body=body):
                answer = self.admin.post(EFFECTS, body)
                self.fails(answer, 400)
        self.assertIn("latency", self.admin.post(EFFECTS, "{}").json["message"][0])
        self.assertEqual(self.admin.get(EFFECTS).text, '{"latency":7}')

    def test_if_match(self):
        """H22"""
        old = self.admin.get(EFFECTS).headers["ETag"]
        new = self.admin.post(EFFECTS, {"latency": 1}, If_Match=old)
        self.assertEqual(new.status, 200)
        self.assertNotEqual(new.headers["ETag"], old)
        self.fails(self.admin.post(EFFECTS, {"latency": 2}, If_Match=old), 412)
        self.assertEqual(self.admin.get(EFFECTS).text, '{"latency":1}')

    def test_broken_by_redis_cli_is_said(self):
        self.redis.ask("FCALL", "cm_set", 0, "effect", "latency", '{"latency":"x"}')
        answer = self.admin.get(EFFECTS)
        self.fails(answer, 500)
        self.assertIn("latency must be an integer", answer.json["message"])


class Unarmed(Case):
    settings = {"armed": False}

    def test_nothing_can_be_set(self):
        for verb, path, body in (("GET", FAULTS, None), ("POST", FAULTS, [{}]), ("PATCH", FAULTS, [{}]),
                                 ("GET", EFFECTS, None), ("POST", EFFECTS, {"latency": 1}),
                                 ("POST", "/_localstack" + FAULTS, [{}])):
            self.fails(self.admin.call(verb, path, body), 403)
        self.assertEqual(self.redis.ask("EXISTS", "{cm}:seq"), 0)


# ------------------------------------------------------------------- the mail

class FaceCase(LabTestCase):
    """A lab whose rules of all faces are gone again after each test."""

    def setUp(self):
        super().setUp()
        self.addCleanup(self.quiet)

    def put(self, method, path, body):
        answer = self.lab.http(method, path, body)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json

    def faults(self, *rules):
        self.put("POST", FAULTS, list(rules))
        self.lab.settle()

    def rule(self, name, **document):
        self.lab.redis_cli("FCALL", "cm_set", "0", "rule", name, json.dumps(document))

    def quiet(self):
        self.put("POST", FAULTS, [])
        self.put("POST", EFFECTS, {"latency": 0})
        self.put("PUT", "/api/v1/chaos", {})
        for name in self.lab.redis("FCALL", "cm_list", 0, "rule"):
            self.lab.redis("FCALL", "cm_del", 0, "rule", name)
        self.lab.settle()

    def reply(self, recipient, sender="sender@example.org", **options):
        """What RCPT is answered."""
        client = self.smtp(**options)
        self.assertEqual(client.mail(sender).code, 250)
        return client.rcpt(recipient).text

    def refused(self, text, recipient):
        self.assertEqual(self.reply(recipient), MTA.refused(text, recipient))

    def accepted(self, recipient, **options):
        self.assertEqual(self.reply(recipient, **options), MTA.accepted(recipient))

    def events(self, rule):
        entries = self.lab.redis("XRANGE", "{cm}:ev", "-", "+") or []
        events = [dict(zip(fields[::2], fields[1::2])) for _, fields in entries]
        return [event for event in events if event["rule"].startswith(rule)]


class Conditions(FaceCase):
    seconds = 40

    def test_the_recipient_and_the_default_error(self):
        a, b = self.inbox("a"), self.inbox("b")
        self.faults({"service": a})
        self.refused("451 4.3.0 Service unavailable", a)
        self.refused("451 4.3.0 Service unavailable", a.upper())
        self.accepted(b)
        event = wait_until("the event", lambda: self.events("fault:"))[-1]
        self.assertRegex(event["rule"], r"^fault:\d+\.1$")

    def test_error_as_asked_for(self):
        a = self.inbox("a")
        self.faults({"inbox": a, "error": {"statusCode": 554, "code": "5.7.1", "message": ["100% no", "go away"]}})
        self.assertEqual(self.reply(a), "554-5.7.1 100% no\n554 5.7.1 go away")
        self.faults({"inbox": a, "error": {"statusCode": 452}})
        self.refused("452 4.3.0 Service unavailable", a)
        self.faults({"inbox": a, "error": {"statusCode": 554}})
        self.refused("554 5.3.0 Service unavailable", a)

    def test_everything_fails_but_for_the_protected(self):
        a = self.inbox("a")
        self.faults({})
        self.refused("451 4.3.0 Service unavailable", a)
        self.accepted("postmaster@example.com")
        self.faults()
        self.accepted(a)

    def test_globs_domains_senders_and_clients(self):
        a = self.inbox("a")
        other = a.replace("@example.com", "@example.net")
        text = "451 4.3.0 Service unavailable"
        for rule, hits, passes in (
                ({"inbox": "a-*@example.com"}, [(a, {})], [(other, {})]),
                ({"region": "example.com"}, [(a, {})], [(other, {})]),
                ({"sender": "<>"}, [(a, {"sender": ""})], [(a, {})]),
                ({"sender": "*@bad.example"}, [(a, {"sender": "x@bad.example"})], [(a, {})]),
                ({"client": "127.0.5.0/24"}, [(a, {"source": "127.0.5.9"})], [(a, {"source": "127.0.6.9"})]),
                ({"client": "127.0.5.1", "inbox": a}, [(a, {"source": "127.0.5.1"})],
                 [(a, {}), (other, {"source": "127.0.5.1"})])):
            with self.subTest(rule=rule):
                self.faults(rule)
                for recipient, how in hits:
                    self.assertEqual(self.reply(recipient, **how), MTA.refused(text, recipient))
                for recipient, how in passes:
                    self.accepted(recipient, **how)

    def test_stages(self):
        a, source = self.inbox("a"), "127.0.7.1"
        refusal = {"client": source, "error": {"statusCode": 452, "message": "here"}}
        for stage, step in (("MAIL", 0), ("mail", 0), ("RCPT", 1), ("DATA", 2), ("message", 3)):
            with self.subTest(stage=stage):
                self.faults({**refusal, "operation": stage})
                client = self.smtp(source=source)
                replies = [client.mail().code]
                if replies[-1] == 250:
                    replies.append(client.rcpt(a).code)
                if replies[-1] == 250:
                    replies.append(client.command("DATA").code)
                if replies[-1] == 354:
                    replies.append(client.message(make_message()).code)
                self.assertEqual(replies, [250, 250, 354, 250][:step] + [452])
                self.accepted(a)     # somebody else
        self.faults({**refusal, "stage": "helo"})
        self.assertEqual(self.reply_after_greeting(source), 452)
        self.faults({**refusal, "stage": "connect"})
        self.assertEqual(self.reply_after_greeting(source), 452 if MTA.keeps_error_at_connect else None)

    def reply_after_greeting(self, source):
        """A refusal at CONNECT or HELO is shown at MAIL at the latest."""
        client = self.smtp_raw(source)
        for reply in (client.banner, client.ehlo(), client.mail()):
            if reply.code >= 400:
                return reply.code
        return None

    def smtp_raw(self, source):
        client = Smtp(self.lab.smtp_port, source=source)
        self.clients.append(client)
        return client

    def test_the_first_match_wins_and_the_coin_is_part_of_it(self):
        a = self.inbox("a")
        text = "45{} 4.7.{} number {}"

        def rule(n, **members):
            return {"inbox": a, "error": {"statusCode": 450 + n, "code": f"4.7.{n}", "message": f"number {n}"},
                    **members}

        self.faults(rule(1, probability=0), rule(2, probability=1), rule(0))
        self.refused(text.format(2, 2, 2), a)
        self.put("PATCH", FAULTS + "?position=first", [rule(1)])
        self.lab.settle()
        self.refused(text.format(1, 1, 1), a)
        self.faults(rule(1, probability=0.5), rule(2))
        replies = [self.reply(a) for _ in range(60)]
        self.assertEqual(set(replies), {text.format(n, n, n) for n in (1, 2)})

    def test_any_fault_by_its_kind(self):
        a, b = self.inbox("a"), self.inbox("b")
        self.faults({"inbox": a, "fault": {"kind": "blackhole"}},
                    {"inbox": b, "fault": {"kind": "latency", "ms": 300}})
        sent = self.send(a)
        self.assertEqual(sent.end.code, 250)
        self.assert_not_delivered(a)
        client = self.smtp()
        client.mail()
        self.assertGreaterEqual(client.rcpt(b).seconds, 0.3)

    def test_bounds(self):
        hits, past, shadow, later = (self.inbox(name) for name in ("hits", "past", "shadow", "later"))
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
        self.faults({"inbox": hits, "maxHits": 2}, {"inbox": past, "expiresAt": "2001-01-01T00:00:00Z"},
                    {"inbox": shadow, "mode": "shadow"}, {"inbox": later, "expiresAt": soon})
        self.assertEqual(self.reply(later)[:3], "451")
        self.assertEqual([self.reply(hits)[:3] for _ in range(4)], ["451", "451", "250", "250"])
        self.accepted(past)
        self.accepted(shadow)
        wait_until("the shadow's event", lambda: [e for e in self.events("fault:") if e["outcome"] == "shadow"])
        wait_until("the end of a rule", lambda: self.reply(later)[:3] == "250")

    def test_of_ten_thousand_rules_the_right_one_acts_at_once(self):
        rules = [{"inbox": f"u{i}@example.com", "error": {"statusCode": 450, "message": f"I am {i}"}}
                 for i in range(10000)]
        self.faults(*rules)
        client = self.smtp()
        client.mail()
        for i in (9999, 0, 5000):
            reply = client.rcpt(f"u{i}@example.com")
            self.assertEqual(reply.text, MTA.refused(f"450 4.3.0 I am {i}", f"u{i}@example.com"))
            self.assertLess(reply.seconds, 0.2)
        self.assertEqual(client.rcpt("u10000@example.com").code, 250)


class Authority(FaceCase):
    """An inbox's configuration, then rules, faults, triggers; effects add."""

    seconds = 30

    def test_inbox_rule_fault_trigger(self):
        a, b = self.inbox("a"), self.inbox("b")
        self.put("PUT", "/api/v1/chaos", {"Recipient": {"ErrorCode": 459, "Probability": 100}})
        self.lab.settle()
        self.refused("459 Chaos recipient error", a)
        self.faults({"error": {"statusCode": 458, "message": "fault"}})
        self.refused("458 4.3.0 fault", a)
        self.rule("r1", fault={"kind": "error", "code": 457, "text": "rule"})
        self.lab.settle()
        self.refused("457 4.3.0 rule", a)
        self.lab.set_chaos(a, randomError={"enabled": True, "errorRate": 1, "code": 456, "text": "inbox"})
        self.lab.settle()
        self.assertEqual(self.reply(a)[:3], "456")
        self.refused("457 4.3.0 rule", b)      # an inbox is nobody else's
        self.lab.set_chaos(a, enabled=False)
        self.lab.redis("FCALL", "cm_del", 0, "rule", "r1")
        self.lab.settle()
        self.refused("458 4.3.0 fault", a)
        self.faults()
        self.refused("459 Chaos recipient error", a)
        self.put("PUT", "/api/v1/chaos", {})
        self.lab.settle()
        self.accepted(a)

    def test_who_fails_to_act_leaves_it_to_the_next(self):
        a = self.inbox("a")
        self.lab.set_chaos(a, randomError={"enabled": True, "errorRate": 0})
        self.rule("r1", probability=0, fault={"kind": "error", "code": 457})
        self.faults({"inbox": a, "probability": 0})
        self.put("PUT", "/api/v1/chaos", {"Recipient": {"ErrorCode": 459, "Probability": 100}})
        self.lab.settle()
        self.refused("459 Chaos recipient error", a)

    def test_every_face_is_seen_by_the_others(self):
        a = self.inbox("a")
        self.lab.set_chaos(a, blackhole={"enabled": True})
        self.rule("r1", enabled=False, fault={"kind": "error"})
        self.faults({"inbox": a})
        self.put("PUT", "/api/v1/chaos", {"Sender": {"Probability": 0}})
        self.put("POST", EFFECTS, {"latency": 1})
        kinds = {kind: self.lab.redis("FCALL", "cm_list", 0, kind)
                 for kind in ("inbox", "rule", "fault", "trigger", "effect")}
        self.assertIn(a, kinds["inbox"])
        self.assertEqual(kinds["rule"], ["r1"])
        self.assertEqual([r["id"] for r in self.lab.http("GET", FAULTS + "?view=full").json], kinds["fault"])
        self.assertEqual(kinds["trigger"], ["authentication", "recipient", "sender"])
        self.assertEqual(kinds["effect"], ["latency"])

    def test_broken_documents_of_a_face_are_an_alarm_and_hurt_nobody(self):
        a = self.inbox("a")
        self.faults({"inbox": a})
        self.lab.redis("FCALL", "cm_set", 0, "fault", "bad", '{"nonsense":1}')
        self.lab.redis("FCALL", "cm_set", 0, "trigger", "sender", '{"Probability":1000}')
        self.lab.redis("FCALL", "cm_set", 0, "effect", "latency", '{"latency":-5}')
        self.lab.settle()
        broken = wait_until("the alarm", lambda: self.lab.status()["hosts"][0]["broken"])
        self.assertEqual({entry["key"] for entry in broken}, {"fault:bad", "trigger:sender", "effect:latency"})
        self.refused("451 4.3.0 Service unavailable", a)
        self.accepted(self.inbox("b"))


class Latency(FaceCase):
    seconds = 30
    alone = True

    def effects(self, **body):
        self.put("POST", EFFECTS, body)
        self.lab.settle()

    def test_every_transaction_once_at_the_end_of_the_message(self):
        a, b = self.inbox("a"), self.inbox("b")
        self.effects(latency=400)
        client = self.smtp()
        for reply in (client.mail(), client.rcpt(a), client.rcpt(b), client.command("DATA")):
            self.assertLess(reply.seconds, 0.3)
        end = client.message(make_message())
        self.assertEqual(end.code, 250)
        self.assertTrue(0.4 <= end.seconds < 0.7, str(end))
        event, = wait_until("the event", lambda: [
            event for event in self.events("effect:latency") if event["asked"] == "400"])
        self.assertEqual((event["kind"], event["outcome"], event["stage"]),
                         ("latency", "applied", "message"))
        self.effects(latency=0)
        self.assertLess(self.send(a).end.seconds, 0.3)

    def test_it_adds_to_an_inboxs_own_and_not_to_a_refusal(self):
        slow, refused = self.inbox("slow"), self.inbox("refused")
        self.lab.set_chaos(slow, latency={"enabled": True, "jitter": False, "maxDelayMs": 300})
        self.faults({"inbox": refused, "stage": "message"})
        self.effects(latency=400)
        end = self.send(slow).end
        self.assertTrue(0.7 <= end.seconds < 1.0, str(end))
        event = self.lab.wait_incident(slow, "latency")
        self.assertTrue(300 <= int(event["measured"]) < 400, event)
        end = self.send(refused).end
        self.assertEqual(end.code, 451)
        self.assertLess(end.seconds, 0.3)

    def test_it_adds_to_a_blackhole(self):
        hole = self.inbox("hole")
        self.lab.set_chaos(hole, blackhole={"enabled": True})
        self.effects(latency=300)
        end = self.send(hole).end
        self.assertEqual(end.code, 250)
        self.assertGreaterEqual(end.seconds, 0.3)
        self.assert_not_delivered(hole)

    def test_jitter_spreads_it(self):
        self.effects(latency=150, jitter=100)
        client = self.smtp()
        times = [self.send(self.inbox("j"), client=client).end.seconds for _ in range(20)]
        self.assertGreaterEqual(min(times), 0.05)
        self.assertLess(min(times), 0.15)
        self.assertGreater(max(times), 0.15)

    def test_another_stage(self):
        a = self.inbox("a")
        self.effects(latency=300, stage="rcpt")
        client = self.smtp()
        client.mail()
        self.assertGreaterEqual(client.rcpt(a).seconds, 0.3)
        self.assertGreaterEqual(client.rcpt(self.inbox("b")).seconds, 0.3)
        self.assertLess(client.rcpt("postmaster@example.com").seconds, 0.3)


if __name__ == "__main__":
    unittest.main()
