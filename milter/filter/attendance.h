/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_ATTENDANCE_H
#define CM_ATTENDANCE_H

#include "milter/err.h"
#include "milter/filter/tuple.h"
#include "milter/model/event.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct cm_ticket;

/*
 * Who is here: the milter sessions that are open, by the process of the mail
 * server that holds each. The command hook is asked about a command by a
 * process, and finds here whose command it is; and a ticket that it issues
 * waits here until that very session redeems it.
 *
 * One process serves one client at a time. Where it has two sessions for a
 * moment (XCLIENT begins a new one while the end of the old one is still on its
 * way) the newer counts. Thread-safe; nothing waits.
 */
struct cm_attendance;

/* What is known of one session, as a copy: the session itself may end at any
 * time, and belongs to libmilter's threads. */
struct cm_guest {
    pid_t process;
    uint64_t session; /* its number */
    struct cm_client client;
    bool tuple_known;
    struct cm_tuple tuple; /* the client's TCP connection to the MTA */
    bool only_temporary;   /* see cm_mta_commands_only_temporary */
};

enum cm_status cm_attendance_new(struct cm_attendance **attendance_r,
                                 struct cm_err *err) CM_MUST_CHECK;
/* Tickets that are left are freed without a record. */
void cm_attendance_free(struct cm_attendance **attendance);

/* cm_attendance_enter - a session begins, or begins anew for another client.
 * CM_OK, CM_ENOMEM, CM_EINVAL (process 0: nobody could find it). */
enum cm_status cm_attendance_enter(struct cm_attendance *attendance,
                                   const struct cm_guest *guest) CM_MUST_CHECK;

/* cm_attendance_leave - it ended. Returns the ticket that it never redeemed, or
 * NULL; the caller's. */
struct cm_ticket *cm_attendance_leave(struct cm_attendance *attendance,
                                      pid_t process, uint64_t session);

/*
 * cm_attendance_meet - the process asks about a command: its session.
 *
 * guest_r   out
 * ticket_r  out: one that was issued before and never redeemed, or NULL; the
 *           caller's
 *
 * false: no session of that process is open; outputs untouched. Otherwise the
 * session is known from now on as one whose commands the hook sees.
 */
bool cm_attendance_meet(struct cm_attendance *attendance, pid_t process,
                        struct cm_guest *guest_r, struct cm_ticket **ticket_r);

/* cm_attendance_look - the same for who does not see commands: nothing changes.
 * attendance may be NULL. */
bool cm_attendance_look(struct cm_attendance *attendance, pid_t process,
                        struct cm_guest *guest_r);

/* cm_attendance_is_met - does the hook see this session's commands? */
bool cm_attendance_is_met(struct cm_attendance *attendance, pid_t process,
                          uint64_t session);

/* cm_attendance_issue - the ticket waits for that session; taken over on true.
 * false: the session has gone, or has one waiting. */
bool cm_attendance_issue(struct cm_attendance *attendance, pid_t process,
                         uint64_t session, struct cm_ticket *ticket);

/* cm_attendance_redeem - the ticket of that session with that word; the
 * caller's. NULL: there is none, or it is out of date (and stays
 * until the session's next command). */
struct cm_ticket *cm_attendance_redeem(struct cm_attendance *attendance,
                                       pid_t process, uint64_t session,
                                       const char *word);

#endif
