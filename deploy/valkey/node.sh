#!/bin/sh
# Start one of several valkeys. Usage: node.sh ADDRESS [ADDRESS_OF_THE_FIRST_PRIMARY]
# Who is primary is decided by the sentinels, who write it into the configuration here: it outlives
# a restart, and only the first start needs to be told.
set -eu
address=$1 first=${2:-}
umask 077
cd /data
if [ ! -f valkey.conf ]; then
    if [ -n "$first" ]; then echo "replicaof $first 6379"; fi >valkey.conf.new
    mv valkey.conf.new valkey.conf
fi
# A primary that nobody follows any more takes no writes: another one may have been made.
exec valkey-server /data/valkey.conf \
    --dir /data --appendonly yes --appendfsync everysec --save "" \
    --maxmemory 512mb --maxmemory-policy noeviction \
    --requirepass "$REDISCLI_AUTH" --masterauth "$REDISCLI_AUTH" \
    --replica-announce-ip "$address" \
    --min-replicas-to-write 1 --min-replicas-max-lag 10
