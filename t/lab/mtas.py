# SPDX-License-Identifier: BSD-2-Clause
"""
The mail servers that the lab tests run on, and in what they differ to a test:
how they word what the filter does not, where their queue and their processes
are. What a test cannot hold on one of them is said with @postfix_only or
@sendmail_only, and why.
"""
import math
import os
import re
import unittest


class Postfix:
    name = "postfix"
    daemons = ("postfix",)
    has_smtputf8 = True
    keeps_needless_quotes = False
    refuses_control_bytes = False
    version = r"^Postfix \d+\.\d+"
    closes_after_521 = True
    keeps_error_at_connect = True
    delivers_twice = True   # to a recipient that the filter adds once more
    accepted_end = r"^250 2\.0\.0 Ok: queued as (\w+)$"   # the queue id

    def accepted(self, recipient):
        """The reply to an accepted RCPT."""
        return "250 2.1.5 Ok"

    def patience_s(self, stage):
        """How long it waits for the filter's reply at this stage."""
        return math.inf

    def shown(self, text):
        """What a client reads of a reply when the filter said text."""
        return text

    def refused(self, text, address):
        """The same at MAIL and RCPT, where the command named an address."""
        return self.shown(text)

    def has_mail(self, folder):
        """Is anything in the queue of the lab in this folder?"""
        spool = os.path.join(folder, "postfix", "spool")
        return any(files for queue in ("maildrop", "incoming", "active", "deferred")
                   for _, _, files in os.walk(os.path.join(spool, queue)))

    def held(self, folder):
        """How many messages are in quarantine."""
        hold = os.path.join(folder, "postfix", "spool", "hold")
        return sum(len(files) for _, _, files in os.walk(hold))

    def is_session(self, folder, pid):
        """Is this process one that serves a client of the lab?"""
        with open(f"/proc/{pid}/comm", encoding="ascii") as comm:
            return comm.read() == "smtpd\n"


class Sendmail:
    name = "sendmail"
    daemons = ("saslauthd", "sendmail")
    has_smtputf8 = False    # as Debian builds it
    keeps_needless_quotes = True
    refuses_control_bytes = True    # NUL, and CR without LF
    version = r"^8\.\d+\.\d+"
    closes_after_521 = False
    keeps_error_at_connect = False
    delivers_twice = False
    accepted_end = r"^250 2\.0\.0 (\w+) Message accepted for delivery$"

    def accepted(self, recipient):
        return f"250 2.1.5 <{recipient}>... Recipient ok"

    def patience_s(self, stage):
        """T=R and T=E of the lab's sendmail.mc."""
        return 300 if stage == "message" else 30

    def shown(self, text):
        if re.match(r"\d{3}[ -][245]\.\d+\.\d+ ", text):
            return text
        return f"{text[:4]}{text[0]}.0.0 {text[4:]}"

    def refused(self, text, address):
        text = self.shown(text)
        if text[:3] not in ("450", "550", "553"):
            return text
        enhanced, rest = text[4:].split(" ", 1)
        return f"{text[:4]}{enhanced} <{address}>... {rest}"

    def queue(self, folder, *kinds):
        """The files of these kinds in its queue."""
        return [name for name in os.listdir(os.path.join(folder, "sendmail",
                                                         "queue"))
                if name[:2] in kinds]

    def has_mail(self, folder):
        # Ready, being written, with a transcript. Those in quarantine (hf) are
        # not on their way.
        return bool(self.queue(folder, "qf", "tf", "xf"))

    def held(self, folder):
        return len(self.queue(folder, "hf"))

    def is_session(self, folder, pid):
        with open(os.path.join(folder, "run", "sendmail.pid"),
                  encoding="ascii") as line:
            daemon = int(line.read().split()[0])
        program = os.path.join(os.path.realpath(folder), "bin", "sendmail")
        return pid != daemon and os.readlink(f"/proc/{pid}/exe") == program


MTAS = {mta.name: mta for mta in (Postfix(), Sendmail())}
MTA = MTAS[os.environ.get("LAB_MTA") or "postfix"]


def postfix_only(reason):
    """A test or a class that cannot hold on another mail server. The runner
    lists the reasons."""
    return unittest.skipUnless(MTA.name == "postfix", reason)


def sendmail_only(reason):
    return unittest.skipUnless(MTA.name == "sendmail", reason)
