#!/bin/sh
# Start a sentinel. Usage: sentinel.sh ADDRESS ADDRESS_OF_THE_FIRST_PRIMARY
# What it has learned it writes into its configuration, which outlives a restart.
set -eu
address=$1 first=$2
umask 077
cd /data
if [ ! -f sentinel.conf ]; then
    cat >sentinel.conf.new <<CONF
port 26379
dir /tmp
sentinel announce-ip $address
sentinel monitor oncedrop $first 6379 2
sentinel auth-pass oncedrop $REDIS_PASSWORD
sentinel down-after-milliseconds oncedrop 3000
sentinel failover-timeout oncedrop 10000
CONF
    mv sentinel.conf.new sentinel.conf
fi
exec valkey-server /data/sentinel.conf --sentinel
