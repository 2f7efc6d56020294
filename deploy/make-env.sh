#!/bin/sh
# Print the example environment file named as argument, with secrets made for those it needs.
set -eu
while IFS= read -r line; do
    case $line in
    ONCEDROP_ADMIN_TOKEN= | REDIS_PASSWORD=)
        printf '%s%s\n' "$line" "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
        ;;
    *) printf '%s\n' "$line" ;;
    esac
done <"$1"
