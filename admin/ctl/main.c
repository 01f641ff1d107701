/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chaosctl, the command for people and scripts: finds the command's row, reads
 * its flags, and calls it. Flags may stand anywhere behind the command's words;
 * getopt_long was passed over because one table here gives the parser, the help
 * and the shell's completion.
 */
#include "admin/ctl/command.h"
#include "admin/ctl/show.h"

#include "config.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CM_CTL_URL       "http://127.0.0.1:8025"
#define CM_CTL_KEY_BYTES 256

static const struct cm_ctl_flag global_flags[] = {
    {"url", "URL", "the admin daemon (CHAOSCTL_URL, else " CM_CTL_URL ")"},
    {"key-file", "FILE",
     "where the API key is (CHAOSCTL_KEY_FILE; or the key in CHAOSCTL_KEY)"},
    {"ca-file", "FILE",
     "trust the certificates in it, for https (CHAOSCTL_CA_FILE)"},
    {"json", NULL, "print the daemon's answer as it is"},
    {"help", NULL, "this text, or that of a command"},
    {"version", NULL, "print the version"},
    {NULL, NULL, NULL},
};

static const struct cm_ctl_command *const tables[] = {
    cm_ctl_fleet_commands, cm_ctl_inbox_commands, cm_ctl_rule_commands,
    cm_ctl_face_commands,  cm_ctl_event_commands,
};
#define CM_CTL_TABLES (sizeof tables / sizeof *tables)

static const struct cm_ctl_command *
find_command(const char *name)
{
    for (size_t i = 0; i < CM_CTL_TABLES; i++)
        for (const struct cm_ctl_command *c = tables[i]; c->name; c++)
            if (strcmp(c->name, name) == 0)
                return c;
    return NULL;
}

/* Is it the first word of commands with two? */
static bool
begins_command(const char *word)
{
    size_t len = strlen(word);
    for (size_t i = 0; i < CM_CTL_TABLES; i++)
        for (const struct cm_ctl_command *c = tables[i]; c->name; c++)
            if (strncmp(c->name, word, len) == 0 && c->name[len] == ' ')
                return true;
    return false;
}

/* --- help --- */

static void
print_flags(const struct cm_ctl_flag *flags)
{
    for (; flags && flags->name; flags++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", flags->name,
                 flags->value ? " " : "", flags->value ? flags->value : "");
        printf("  %-28s %s\n", left, flags->help);
    }
}

static void
print_overview(const char *group)
{
    size_t len = strlen(group);
    printf("usage: chaosctl [FLAGS] COMMAND ...\n\n");
    for (size_t i = 0; i < CM_CTL_TABLES; i++)
        for (const struct cm_ctl_command *c = tables[i]; c->name; c++) {
            char left[80];
            if (strncmp(c->name, group, len) != 0)
                continue;
            snprintf(left, sizeof left, "%s %s", c->name, c->operands);
            printf("  %-34s %s\n", left, c->summary);
        }
    printf("\nFlags of every command:\n");
    print_flags(global_flags);
    printf("\n`chaosctl COMMAND --help' shows a command's own flags, with "
           "examples.\n"
           "Exit status: 0 done; 1 not there, or not well; 64 wrong usage; 65 "
           "refused by\nthe daemon; 69 daemon or Redis away; 77 no right to "
           "it.\n");
}

static void
print_help(const struct cm_ctl_command *command)
{
    printf("usage: chaosctl %s%s%s\n\n%s.\n", command->name,
           *command->operands ? " " : "", command->operands, command->summary);
    if (command->flags && command->flags->name) {
        printf("\n");
        print_flags(command->flags);
    }
    if (command->examples)
        printf("\n%s", command->examples);
}

/* For the shell's completion: one name a line. */
static int
print_names(const struct cm_ctl_command *command)
{
    for (size_t i = 0; !command && i < CM_CTL_TABLES; i++)
        for (const struct cm_ctl_command *c = tables[i]; c->name; c++)
            puts(c->name);
    for (const struct cm_ctl_flag *f = command ? command->flags : NULL;
         f && f->name; f++)
        printf("--%s\n", f->name);
    for (const struct cm_ctl_flag *f = global_flags; f->name; f++)
        printf("--%s\n", f->name);
    return CM_CTL_OK;
}

/* --- the command line --- */

struct line {
    const struct cm_ctl_command *command;
    char name[64]; /* the words so far, until they are a command */
    struct cm_ctl_args args;
    struct cm_ctl_args global;
};

static const struct cm_ctl_flag *
find_flag(const struct cm_ctl_flag *flags, const char *name, size_t len)
{
    for (; flags && flags->name; flags++)
        if (strlen(flags->name) == len && strncmp(flags->name, name, len) == 0)
            return flags;
    return NULL;
}

/* One flag at argv[*i], and its value. 0, or an exit code after a message. */
static int
take_flag(struct line *line, char **argv, int *i)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    struct cm_ctl_args *to = &line->global;
    const struct cm_ctl_flag *flag = find_flag(global_flags, name, len);
    if (!flag && line->command) {
        to = &line->args;
        flag = find_flag(line->command->flags, name, len);
    }
    if (!flag)
        return cm_ctl_fail(CM_CTL_USAGE, "%s%s has no flag --%.*s",
                           line->command ? line->command->name : "",
                           line->command ? ""
                                         : "a flag of the command stands "
                                           "behind it; chaosctl itself",
                           (int)len, name);
    const char *value = equals ? equals + 1 : "";
    if (flag->value && !equals) {
        if (!argv[*i + 1])
            return cm_ctl_fail(CM_CTL_USAGE, "--%s needs a value: %s",
                               flag->name, flag->value);
        value = argv[++*i];
    } else if (!flag->value && equals) {
        return cm_ctl_fail(CM_CTL_USAGE, "--%s takes no value", flag->name);
    }
    if (to->ngiven == CM_CTL_FLAGS_MAX)
        return cm_ctl_fail(CM_CTL_USAGE, "too many flags");
    to->given[to->ngiven].flag = flag;
    to->given[to->ngiven++].value = value;
    return 0;
}

static int
take_word(struct line *line, const char *word)
{
    if (line->command) {
        if (line->args.nwords == CM_CTL_WORDS_MAX)
            return cm_ctl_fail(CM_CTL_USAGE, "at most %d operands",
                               CM_CTL_WORDS_MAX);
        line->args.word[line->args.nwords++] = word;
        return 0;
    }
    size_t len = strlen(line->name);
    snprintf(line->name + len, sizeof line->name - len, "%s%s", len ? " " : "",
             word);
    line->command = find_command(line->name);
    if (!line->command && (len > 0 || !begins_command(word)))
        return cm_ctl_fail(CM_CTL_USAGE,
                           "there is no command '%s' (chaosctl --help)",
                           line->name);
    return 0;
}

static int
read_line(struct line *line, char **argv)
{
    bool flags_end = false;
    int code = 0;
    for (int i = 1; argv[i] && code == 0; i++) {
        if (!flags_end && strcmp(argv[i], "--") == 0)
            flags_end = true;
        else if (!flags_end && strncmp(argv[i], "--", 2) == 0)
            code = take_flag(line, argv, &i);
        else if (!flags_end && strcmp(argv[i], "-h") == 0)
            code =
                take_flag(line, (char *[]){(char *)"--help", NULL}, &(int){0});
        else
            code = take_word(line, argv[i]);
    }
    return code;
}

static int
check_words(const struct line *line)
{
    const struct cm_ctl_command *c = line->command;
    if (line->args.nwords >= c->min_words && line->args.nwords <= c->max_words)
        return 0;
    return cm_ctl_fail(CM_CTL_USAGE,
                       "usage: chaosctl %s %s (--help shows its flags)",
                       c->name, c->operands);
}

/* --- the key --- */

/* The first line of the file; false after a message. */
static bool
read_key(const char *file, char key[CM_CTL_KEY_BYTES])
{
    FILE *in = fopen(file, "re");
    bool ok = in && fgets(key, CM_CTL_KEY_BYTES, in);
    if (!ok)
        cm_ctl_fail(CM_CTL_USAGE, "%s: %s", file,
                    in ? "there is no key in it" : "cannot be read");
    else
        key[strcspn(key, "\r\n")] = '\0';
    if (in)
        fclose(in);
    return ok;
}

static const char *
variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static int
run(const struct line *line)
{
    char from_file[CM_CTL_KEY_BYTES];
    struct cm_ctl ctl = {.json = cm_ctl_arg(&line->global, "json", 0) != NULL};
    struct cm_err err;
    const char *url = cm_ctl_arg(&line->global, "url", 0);
    const char *file = cm_ctl_arg(&line->global, "key-file", 0);
    const char *key = file ? NULL : variable("CHAOSCTL_KEY");
    const char *ca_file = cm_ctl_arg(&line->global, "ca-file", 0);
    if (!url)
        url = variable("CHAOSCTL_URL");
    if (!ca_file)
        ca_file = variable("CHAOSCTL_CA_FILE");
    if (!file && !key)
        file = variable("CHAOSCTL_KEY_FILE");
    if (file && !read_key(file, from_file))
        return CM_CTL_USAGE;
    if (cm_ctl_client_new(&ctl.client, url ? url : CM_CTL_URL,
                          file ? from_file : key, ca_file, &err) != CM_OK)
        return cm_ctl_fail(CM_CTL_USAGE, "%s", err.msg);
    int code = line->command->run(&ctl, &line->args);
    cm_ctl_client_free(&ctl.client);
    if (fflush(stdout) != 0 || ferror(stdout))
        return cm_ctl_fail(CM_CTL_INTERNAL, "cannot write the output");
    return code;
}

int
main(int argc, char **argv)
{
    static struct line line;
    bool names = argc > 1 && strcmp(argv[1], "__complete") == 0;
    int code = read_line(&line, argv + names);
    if (names)
        return print_names(line.command);
    if (code != 0)
        return code;
    if (cm_ctl_arg(&line.global, "version", 0)) {
        puts("chaosctl " PACKAGE_VERSION);
        return CM_CTL_OK;
    }
    bool help = cm_ctl_arg(&line.global, "help", 0) != NULL;
    if (!line.command) {
        if (help)
            print_overview(line.name);
        else
            code = cm_ctl_fail(CM_CTL_USAGE,
                               "%s: which command? (chaosctl --help)",
                               *line.name ? line.name : "nothing to do");
        return code;
    }
    if (help) {
        print_help(line.command);
        return CM_CTL_OK;
    }
    code = check_words(&line);
    if (code != 0)
        return code;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    code = run(&line);
    curl_global_cleanup();
    return code;
}
