/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CM_SETTINGS_CHECK_H
#define CM_SETTINGS_CHECK_H

/*
 * Checks of single values of settings. Each takes the text and returns NULL
 * when it is allowed, else a sentence that says what is ("must be ..."). The
 * sentence never repeats the value: a secret put on the wrong line must not
 * reach a log. Pure, thread-safe, no locale, nothing is looked up.
 */
typedef const char *cm_settings_check_fn(const char *value);

cm_settings_check_fn cm_settings_check_milter_socket;
cm_settings_check_fn cm_settings_check_own_socket;  /* "unix:/path", or "" */
cm_settings_check_fn cm_settings_check_socket_path; /* "/path" */
cm_settings_check_fn cm_settings_check_redis_address;
cm_settings_check_fn cm_settings_check_redis_prefix;
cm_settings_check_fn cm_settings_check_redis_username;
cm_settings_check_fn cm_settings_check_redis_password;
cm_settings_check_fn cm_settings_check_listen;
cm_settings_check_fn cm_settings_check_metrics_listen; /* or "" */
cm_settings_check_fn cm_settings_check_account; /* of a user or group, or "" */
cm_settings_check_fn cm_settings_check_path;    /* absolute, or "" */
cm_settings_check_fn cm_settings_check_delimiter;
cm_settings_check_fn cm_settings_check_protected;
cm_settings_check_fn cm_settings_check_domain; /* or "*" */
cm_settings_check_fn cm_settings_check_host;
cm_settings_check_fn cm_settings_check_api_key;
cm_settings_check_fn cm_settings_check_port;

#endif
