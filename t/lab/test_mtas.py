# SPDX-License-Identifier: BSD-2-Clause
"""What the mail servers can and cannot: the rows of the table in README.md that
no test of a single fault holds."""
import time
import unittest

from labkit import Gone, LabTestCase, Smtp, make_message, wait_until
from mtas import MTA

TEXT = "Odd text: 100% of <it> (really)"
LINES = ("first line", "second one")


class MtaCase(LabTestCase):

    sources = 0

    def refuse(self, cases, **more):
        """Rules for (stage, code, text) and more of the fault, each for a client
        of its own; the address of that client by the case."""
        sources = {}
        for case in cases:
            MtaCase.sources += 1
            sources[case] = f"127.0.{10 + MtaCase.sources // 200}" \
                            f".{1 + MtaCase.sources % 200}"
        self.rules(*({"stage": stage, "client": source,
                      "fault": {"kind": "error", "code": code, "text": text,
                                **more}}
                     for (stage, code, text), source in sources.items()))
        return sources

    def refuse_at(self, stage, code):
        return self.refuse([(stage, code, TEXT)])[stage, code, TEXT]

    def connect(self, source):
        client = Smtp(self.lab.smtp_port, source=source)
        self.clients.append(client)
        return client

    def event_of(self, source):
        return self.lab.wait_incident("", "error", lambda event:
                                      event["client"] == source)

    def assert_gone(self, client):
        with self.assertRaises(Gone):
            client.read_line()

    def talk(self, client, stage, recipient="x@example.com"):
        """All steps up to this one; its reply."""
        steps = {"helo": client.ehlo, "mail": client.mail,
                 "rcpt": lambda: client.rcpt(recipient),
                 "data": lambda: client.command("DATA"),
                 "message": lambda: client.message(make_message())}
        for name, step in steps.items():
            reply = step()
            if name == stage:
                return reply
            self.assertLess(reply.code, 400, name)
        return None


class Replies(MtaCase):
    """Any code and text at MAIL, RCPT, DATA and after the message."""

    STAGES = ("mail", "rcpt", "data", "message")
    CODES = (421, 450, 451, 452, 471, 500, 521, 550, 551, 552, 553, 554, 599)

    def expected(self, stage, lines):
        """The first line is where an MTA puts something in."""
        address = {"mail": "sender@example.org", "rcpt": "x@example.com"}
        if stage in address:
            lines = [MTA.refused(lines[0], address[stage])] + lines[1:]
        return lines

    def test_code_and_text_arrive(self):
        cases = self.refuse((stage, code, TEXT) for stage in self.STAGES
                            for code in self.CODES)
        for (stage, code, _), source in cases.items():
            with self.subTest(stage=stage, code=code):
                client = self.connect(source)
                reply = self.talk(client, stage)
                line = f"{code} {code // 100}.3.0 {TEXT}"
                self.assertEqual(reply.lines, self.expected(stage, [line]))
                if code == 421 or code == 521 and MTA.closes_after_521:
                    self.assert_gone(client)
                else:
                    self.assertEqual(client.command("RSET").code, 250)

    def test_reply_without_an_enhanced_code(self):
        cases = self.refuse(((stage, code, TEXT) for stage in self.STAGES
                             for code in (451, 550)), enhanced="")
        for (stage, code, _), source in cases.items():
            with self.subTest(stage=stage, code=code):
                reply = self.talk(self.connect(source), stage)
                self.assertEqual(reply.lines, self.expected(
                    stage, [MTA.shown(f"{code} {TEXT}")]))

    def test_lines_arrive(self):
        cases = self.refuse((stage, code, LINES) for stage in self.STAGES
                            for code in (450, 554))
        for (stage, code, _), source in cases.items():
            with self.subTest(stage=stage, code=code):
                enhanced = f"{code // 100}.3.0"
                self.assertEqual(
                    self.talk(self.connect(source), stage).lines,
                    self.expected(stage, [f"{code}-{enhanced} {LINES[0]}",
                                          f"{code} {enhanced} {LINES[1]}"]))


class Greeting(MtaCase):
    """Errors before there is a mail."""

    def test_error_at_helo_is_told_at_mail(self):
        for code in (450, 451, 550, 554):
            with self.subTest(code):
                source = self.refuse_at("helo", code)
                client = self.connect(source)
                self.assertEqual(client.ehlo().code, 250)
                line = f"{code} {code // 100}.3.0 {TEXT}"
                self.assertEqual(client.mail().lines, [line])
                event = self.event_of(source)
                self.assertEqual((event["stage"], event["outcome"],
                                  event["reply"]), ("helo", "applied", line))

    def test_421_at_helo_is_told_at_once(self):
        client = self.connect(self.refuse_at("helo", 421))
        self.assertEqual(client.ehlo().lines, [f"421 4.3.0 {TEXT}"])
        self.assert_gone(client)

    def test_421_at_connect_closes_with_a_text_of_the_servers_own(self):
        source = self.refuse_at("connect", 421)
        client = self.connect(source)
        self.assertEqual(client.banner.code, 421)
        self.assertNotIn(TEXT, client.banner.text)
        self.assert_gone(client)
        self.assertEqual(self.event_of(source)["outcome"], "applied")

    def test_error_at_connect_is_told_at_mail_or_not_done_at_all(self):
        for code, banner in ((450, 220), (451, 220), (550, 554), (554, 554)):
            with self.subTest(code):
                source = self.refuse_at("connect", code)
                client = self.connect(source)
                event = self.event_of(source)
                if not MTA.keeps_error_at_connect:
                    self.assertEqual(event["outcome"], "unavailable")
                    self.assertIn("of its own at connect", event["detail"])
                    self.assertEqual(client.banner.code, 220)
                    self.assertEqual(client.ehlo().code, 250)
                    self.assert_passes(self.inbox(), client=client)
                    continue
                line = f"{code} {code // 100}.3.0 {TEXT}"
                self.assertEqual((event["outcome"], event["reply"]),
                                 ("applied", line))
                self.assertEqual(client.banner.code, banner)
                client.ehlo()
                self.assertEqual(client.mail().lines, [line])


class Copies(MtaCase):

    def test_duplicate_that_cannot_be_had_is_not_claimed(self):
        inbox = self.inbox("twice")
        self.rule("duplicate", inbox=inbox)
        sent = self.send(inbox)
        self.lab.wait_idle()
        count = 2 if MTA.delivers_twice else 1
        self.assert_delivered(inbox, sent.message, count)
        self.assertEqual(
            self.lab.wait_incident(inbox, "duplicate")["outcome"],
            "applied" if MTA.delivers_twice else "unavailable")


class Seen(MtaCase):

    def test_status_tells_the_mail_server_and_what_it_can(self):
        host = self.lab.status()["hosts"][0]["host"]
        before = None
        while before != self.sessions() or before is None:
            before = self.sessions()
            time.sleep(1.5)         # longer than from heartbeat to heartbeat
        for _ in range(3):
            self.assert_passes(self.inbox())
        wait_until("three sessions more", lambda: self.sessions() == before + 3)
        mtas = self.lab.status()["mtas"]
        self.assertEqual(sorted(mtas), ["postfix", "sendmail"])
        for name, mta in mtas.items():
            if name == MTA.name:
                seen, = mta["seen"]
                self.assertEqual(seen["host"], host)
                self.assertRegex(seen["version"], MTA.version)
            else:
                self.assertEqual(mta["seen"], [])
            self.assertEqual(mta["abilities"]["drop.rst"],
                             {"what": "drop by RST", "can": "yes"})
        self.assertEqual(mtas["sendmail"]["abilities"]["reply.521"],
                         {"what": "521 ends the session", "can": "no",
                          "but": "only 421 does"})

    def sessions(self):
        seen = self.lab.status()["mtas"][MTA.name]["seen"]
        return seen[0]["sessions"] if seen else None


if __name__ == "__main__":
    unittest.main()
