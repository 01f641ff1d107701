# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Sourced by contrib/lab: a Postfix of the lab's own, apart from the system's in
# configuration, queue, data and log. All mail is accepted from loopback and
# goes to the Maildir server.

fetch_postfix() { :; }

folders_postfix()
{
    install -d "$dir"/postfix{,/etc,/etc/sasl,/spool} &&
        install -d -o postfix -m 0700 "$dir/postfix/data" &&
        install -d -o mail -g postfix -m 0750 "$dir/lmtp" &&
        install -d -o nobody -g postfix -m 0750 "$milter_folder"
}

# Kept as Postfix has it: timeouts, size and recipient limits. Changed, because
# an experiment would measure them instead of the fault: the delay and the
# disconnection after errors, DNS look-ups, rewriting of % and ! in addresses,
# the pause at high input, the limit on processes.
configure_main_cf()
{
    local protocols=ipv4
    has_ipv6_loopback && protocols=all
    replace "$dir/postfix/etc/main.cf" <<CONF
compatibility_level = 3.6
queue_directory = $dir/postfix/spool
data_directory = $dir/postfix/data
maillog_file = $dir/log/postfix.log
maillog_file_prefixes = $dir/log
syslog_name = postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = lab.example
myorigin = \$myhostname
mydestination =
mynetworks = 127.0.0.0/8 [::1]/128
inet_protocols = $protocols
alias_maps =
alias_database =
local_recipient_maps =
notify_classes =
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
allow_percent_hack = no
swap_bangpath = no
resolve_numeric_domain = yes
in_flow_delay = 0
queue_run_delay = 5s
minimal_backoff_time = 5s
maximal_backoff_time = 20s
default_process_limit = 1000
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 10000
smtpd_hard_error_limit = 20000
smtpd_junk_command_limit = 10000
smtpd_reject_unlisted_recipient = no
smtpd_relay_restrictions = permit_mynetworks, reject
local_transport = lmtp:unix:$dir/lmtp/socket
relay_transport = \$local_transport
default_transport = \$local_transport
lmtp_line_length_limit = 0
smtpd_tls_security_level = may
smtpd_tls_chain_files = $dir/tls.pem
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = $dir/postfix/etc/sasl
smtpd_sasl_local_domain = lab.example
smtpd_milters = { unix:chaosmilter/milter.sock, connect_timeout=2s,
    command_timeout=30s, content_timeout=300s, default_action=accept }
milter_default_action = accept
CONF
}

# LISTEN OPTION..: one smtpd in master.cf
smtpd_line()
{
    printf '%s inet n - n - - smtpd' "$1"
    shift
    (($#)) && printf ' -o %s' "$@"
    printf '\n'
}

configure_master_cf()
{
    local host hosts=127.0.0.1
    local auth=smtpd_sasl_auth_enable=yes
    auth+=' smtpd_client_restrictions=permit_sasl_authenticated,reject'
    # AUTH and other commands can be hurt on this port, and only here.
    local hook=socketmap:unix:chaosmilter/hook.sock
    auth+=" smtpd_command_filter=$hook:command"
    auth+=" smtpd_discard_ehlo_keyword_address_maps=$hook:ehlo"
    has_ipv6_loopback && hosts+=' [::1]'
    {
        for host in $hosts; do
            smtpd_line "$host:$smtp_port"
            smtpd_line "$host:$submission_port" syslog_name=postfix/submission $auth
        done
        cat <<'CONF'
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
lmtp unix - - n - - lmtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
CONF
    } | replace "$dir/postfix/etc/master.cf"
}

configure_sasl()
{
    replace "$dir/postfix/etc/sasl/smtpd.conf" <<CONF
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: $dir/postfix/etc/sasl/users.db
mech_list: PLAIN LOGIN
CONF
    make_users "$dir/postfix/etc/sasl/users.db" postfix
}

settings_postfix()
{
    cat <<CONF
hook: {
    socket = "unix:$milter_folder/hook.sock";
};
CONF
}

configure_postfix() { configure_main_cf && configure_master_cf && configure_sasl; }

sources_postfix()
{
    say "$dir"/postfix/etc/{main,master}.cf "$dir/postfix/etc/sasl/smtpd.conf" \
        "$dir/tls.pem"
}

# Postfix goes into the background by itself, so its pid comes from its own pid
# file. Orphans of a killed master would still hold its ports.
start_postfix()
{
    local master
    (cd / && postfix -c "$dir/postfix/etc" start) \
        </dev/null >>"$dir/log/postfix.log" 2>&1 8<&- 9<&- || return 0
    { read -r master <"$dir/postfix/spool/pid/master.pid"; } 2>/dev/null &&
        remember postfix "$master" "$1"
}

ready_postfix() { greets_everywhere; }

# All of its session (the master is the leader), orphans included.
pids_postfix()
{
    local leader stat p
    { read -r leader _ <"$dir/run/postfix.pid"; } 2>/dev/null || return 0
    for p in /proc/[0-9]*; do
        { read -r stat <"$p/stat"; } 2>/dev/null || continue
        set -- ${stat##*) }
        [[ $4 == "$leader" && $1 != [ZX] ]] || continue
        tr '\0' '\n' <"$p/environ" 2>/dev/null |
            grep -qxF "MAIL_CONFIG=$dir/postfix/etc" && say "${p#/proc/}"
    done
}
