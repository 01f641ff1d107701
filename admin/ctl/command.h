/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_CTL_COMMAND_H
#define CM_CTL_COMMAND_H

#include "admin/ctl/client.h"
#include "milter/err.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * A command is a row: its words, operands and flags, and the function that does
 * it. Help, the check of what was typed, and the shell's completion come from
 * the row alone.
 */
enum cm_ctl_exit {
    CM_CTL_OK = 0,
    CM_CTL_NO = 1,       /* asked and answered: not there, or not well */
    CM_CTL_USAGE = 64,   /* from here on as in sysexits.h */
    CM_CTL_REFUSED = 65, /* the daemon found fault with what was asked */
    CM_CTL_UNAVAILABLE = 69,
    CM_CTL_INTERNAL = 70,
    CM_CTL_FORBIDDEN = 77 /* no key, a wrong one, or not armed */
};

struct cm_ctl {
    struct cm_ctl_client *client;
    bool json; /* print what the daemon said, not a table */
};

struct cm_ctl_flag {
    const char *name;  /* without its dashes; NULL ends a list */
    const char *value; /* what the help calls it; NULL: takes none */
    const char *help;
};

#define CM_CTL_WORDS_MAX 1024
#define CM_CTL_FLAGS_MAX 32
struct cm_ctl_args {
    const char *word[CM_CTL_WORDS_MAX]; /* the operands */
    size_t nwords;
    struct {
        const struct cm_ctl_flag *flag;
        const char *value; /* "" for a flag without one */
    } given[CM_CTL_FLAGS_MAX];
    size_t ngiven;
};

/* cm_ctl_arg - the value of the nth (from 0) flag of that name, or NULL. */
const char *cm_ctl_arg(const struct cm_ctl_args *args, const char *name,
                       size_t nth);

struct cm_ctl_command {
    const char *name; /* "inbox set" */
    const char *operands;
    size_t min_words, max_words;
    const char *summary;
    const char *examples; /* whole lines */
    const struct cm_ctl_flag *flags;
    int (*run)(struct cm_ctl *ctl, const struct cm_ctl_args *args);
};

/* The commands of each file, ended by a row without a name. */
extern const struct cm_ctl_command cm_ctl_inbox_commands[];
extern const struct cm_ctl_command cm_ctl_rule_commands[];
extern const struct cm_ctl_command cm_ctl_event_commands[];
extern const struct cm_ctl_command cm_ctl_face_commands[];
extern const struct cm_ctl_command cm_ctl_fleet_commands[];

/* --- what commands share --- */

/* cm_ctl_do - one call; 0 when the status is 2xx, and answer_r is the caller's.
 * Else what was wrong stands on standard error, nothing is to be freed, and the
 * exit code is returned. */
int cm_ctl_do(struct cm_ctl *ctl, const char *method, const char *path,
              const struct json_t *body, struct cm_ctl_answer *answer_r);

/* cm_ctl_fail - "chaosctl: ..." on standard error; returns code. */
int cm_ctl_fail(int code, const char *fmt, ...) CM_PRINTF(2, 3);

/* cm_ctl_path - a path with its %s filled by escaped texts; the caller's to
 * free(). Ends the program when out of memory. */
char *cm_ctl_path(const char *fmt, const char *first, const char *second);

/* cm_ctl_read_document - a JSON object from a file, "-" for standard input.
 * NULL after a message. */
struct json_t *cm_ctl_read_document(const char *file);

/* cm_ctl_own - memory or the end: p, or exit when it is NULL. A command that
 * lives for milliseconds has nothing better to do. */
void *cm_ctl_own(void *p);

#endif
