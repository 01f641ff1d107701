# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Sourced by contrib/lab: Redis, the Maildir server, the filter and the API;
# for each what it reads, how it is started and how one sees that it is ready.

configure_redis()
{
    replace "$dir/redis/redis.conf" <<CONF
port 0
unixsocket $dir/redis/redis.sock
unixsocketperm 777
dir $dir/redis
appendonly yes
save ""
maxmemory-policy noeviction
CONF
}

start_redis()
{
    spawn redis-server "$1" \
        setpriv --reuid=redis --regid=redis --clear-groups \
        redis-server "$dir/redis/redis.conf"
}

ready_redis()
{
    [[ $(timeout 2 redis-cli -s "$dir/redis/redis.sock" ping 2>&1) == PONG ]]
}

start_maildir()
{
    rm -f "$dir/lmtp/socket"
    spawn lab-maildir "$1" \
        setpriv --reuid=mail --regid=mail --clear-groups \
        perl "$dir/bin/lab-maildir" "$dir/lmtp/socket" "$dir/mail"
}

ready_maildir() { [[ -S $dir/lmtp/socket ]]; }

configure_chaos()
{
    local hash metrics=''
    [[ $metrics_port == none ]] || metrics=127.0.0.1:$metrics_port
    if [[ ! -s $dir/run/key ]]; then
        say "cm_$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')" |
            replace "$dir/run/key" 0600
    fi
    api_key=$(<"$dir/run/key")
    hash=$(printf '%s' "$api_key" | sha256sum | cut -d' ' -f1)
    replace "$dir/chaosmilter.conf" <<CONF
# Written by contrib/lab up; what every setting means: conf/chaosmilter.conf
armed = $armed;
log_level = "info";
milter: {
    socket = "unix:$milter_socket";
    socket_group = "$milter_group";
    user = "nobody";
    snapshot = "$dir/state/rules";
    # As in the lab's sendmail.mc; of no concern to Postfix.
    sendmail_reply_timeout_s = 30;
    sendmail_message_timeout_s = 300;
    metrics_listen = "$metrics";
};
$("settings_$mta")
drop: {
    ports = [ "$smtp_port", "$submission_port" ];
    fin = true;
};
redis: {
    address = "unix:$dir/redis/redis.sock";
};
admin: {
    listen = "127.0.0.1:$http_port";
    user = "nobody";
    api_keys = [ "sha256:$hash" ];
};
CONF
}

start_milter()
{
    spawn chaosmilter "$1" "$build/chaosmilter" -c "$dir/chaosmilter.conf"
}

# A killed filter leaves its socket behind, so a look at the file is not enough.
ready_milter()
{
    perl -MIO::Socket::UNIX -e 'exit !IO::Socket::UNIX->new(Peer => shift)' \
        "$milter_socket"
}

start_admin()
{
    spawn chaosadmin "$1" "$build/chaosadmin" -c "$dir/chaosmilter.conf"
}

api()
{
    local path=$1
    shift
    # The key by way of a file: arguments are for everybody to see.
    curl -sS --max-time 5 --noproxy '*' "$@" \
        -H @<(printf 'X-API-Key: %s\n' "$api_key") \
        "http://127.0.0.1:$http_port$path"
}

ready_admin() { api /livez -f >/dev/null 2>&1; }
