#!/bin/sh
# `docker compose up`, and when that fails, what to do about it.
# Usage: sh deploy/up.sh [SERVICE or option of `docker compose up`]...
set -u
cd "$(dirname "$0")/.." || exit 1
if [ ! -f .env ]; then
    echo ".env is missing: \`make up\` makes it, or: sh deploy/make-env.sh .env.example >.env" >&2
    exit 1
fi
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
log=$folder/log
# POSIX sh knows no pipefail.
{
    docker compose up --detach --build --wait --wait-timeout 120 "$@" 2>&1
    echo $? >"$folder/code"
} | tee "$log" >&2
[ "$(cat "$folder/code")" = 0 ] && exit 0
echo >&2
if grep -qiE 'port is already allocated|address already in use' "$log"; then
    echo "The gateway's port is taken: set another GATEWAY_PORT (or GATEWAY_ADDRESS) in .env." >&2
elif grep -qiE 'pull access denied|manifest unknown|manifest for .* not found|no such image|no such host|dial tcp|timeout exceeded|failed to resolve|connection refused|server misbehaving' "$log"; then
    echo "An image, or a package for one, could not be fetched (see above): check the network and" \
        "the image's name in compose.yaml, or load it with \`docker load\` or \`docker tag\`." >&2
elif grep -qi 'unhealthy' "$log"; then
    docker compose ps --all --quiet | while read -r id; do
        docker inspect --format \
            '{{if .State.Health}}{{if ne .State.Health.Status "healthy"}}{{.Name}}: {{range .State.Health.Log}}{{if .ExitCode}}{{.Output}}{{end}}{{end}}{{end}}{{end}}' \
            "$id" | tail -n 1
    done | grep . >&2
    echo "A service is not ready: it says why above, \`docker compose logs\` and /janitor/status say" \
        "more; docs/operations.md says what to do. Nothing was deleted." >&2
fi
exit 1
