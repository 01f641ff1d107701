/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_HOLD_H
#define CM_HOLD_H

#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Delay without sleeping. A callback that wants its reply to reach the MTA
 * later says so last thing before it returns; the reply that libmilter then
 * writes is kept and sent when due, and meanwhile the libmilter worker serves
 * others. Why and how stands on top of hold.c.
 */

/* How one hold ended. Called once for each hold that was accepted: on the timer
 * thread when the reply goes out, on the session's thread when it closes, and
 * on the stopping thread in cm_hold_stop. */
enum cm_hold_end {
    CM_HOLD_SENT,     /* the reply went out */
    CM_HOLD_LEFT,     /* sent early, because the look said that nobody waits */
    CM_HOLD_GONE,     /* the MTA had closed the session */
    CM_HOLD_CUT,      /* sent early, because the daemon stops */
    CM_HOLD_RELEASED, /* sent early, because nothing may be held now */
    CM_HOLD_FAILED    /* sent at once: no memory to keep it in */
};
typedef void cm_hold_done(void *arg, enum cm_hold_end end, int64_t measured_ms);

/* Asked now and then while a reply is held, and once more when it is due: is
 * there anybody to wait for it? On the timer thread, which everybody waits for:
 * microseconds only, and no call of this file. */
typedef bool cm_hold_look(void *arg, int64_t measured_ms);

struct cm_hold_opts {
    size_t max_held; /* sessions held at once; 1.. */
    int64_t tick_ms; /* between progress packets, and looks; Postfix's default
                        timeout for a command is 30 s */
};

struct cm_hold_wish {
    int64_t delay_ms;   /* from now, 1.. */
    bool progress;      /* send progress packets meanwhile */
    cm_hold_look *look; /* or NULL */
    cm_hold_done *done; /* not NULL */
    void *arg;          /* for both */
};

/* cm_hold_start - once per process, before smfi_main; starts the timer thread.
 * The tables are sized from RLIMIT_NOFILE. */
enum cm_status cm_hold_start(const struct cm_hold_opts *opts,
                             struct cm_err *err) CM_MUST_CHECK;

/* cm_hold_stop - send every held reply now, then end the timer thread. Further
 * holds are refused. */
void cm_hold_stop(void);

/* cm_hold_release - true: every held reply goes out now, and none is held until
 * false. The timer thread sends them, so this does not wait. Any thread. */
void cm_hold_release(bool released);

/*
 * cm_hold_enter - first thing in every callback: the descriptor of the session
 * that this thread just read a command from, or -1 when that is not known.
 * Clears a hold that was asked for and not used.
 */
int cm_hold_enter(void);

/* cm_hold_watch - in the callback of the option negotiation: expect its reply
 * on fd through our hook, which is the proof that holding works here. */
void cm_hold_watch(int fd);

enum cm_hold_answer {
    CM_HOLD_OK,    /* the reply of this callback will be held */
    CM_HOLD_FULL,  /* max_held reached, stopping, or this session's reply before
                      is held still: no delay of its own */
    CM_HOLD_UNABLE /* the hook is not in the way of this session's replies */
};

/*
 * cm_hold_until - hold the reply of the callback in hand.
 *
 * fd    from cm_hold_enter, of this session
 * wish  copied; its done is called when the hold ends, if and only if the
 *       answer is CM_HOLD_OK
 *
 * Call it last: anything the callback writes afterwards would be held instead.
 */
enum cm_hold_answer cm_hold_until(int fd, const struct cm_hold_wish *wish);

/* cm_hold_sleep - the way out when holding is not possible: wait on this thread
 * (other sessions of this worker wait too), until done, released or until the
 * daemon stops. Returns the milliseconds waited. */
int64_t cm_hold_sleep(int64_t delay_ms);

size_t cm_hold_count(void);   /* replies held now */
bool cm_hold_has_slept(void); /* was cm_hold_sleep ever needed? */

#endif
