#!/bin/sh
# The genres over a song, requested with curl: sh with_curl.sh song.mp3 [address]
# A line a stretch where jq is installed: ... | jq -r '.segments[] | "\(.start) \(.end) \(.genre)"'
set -eu
song="$1"
address="${2:-http://127.0.0.1:3000}"
curl --silent --show-error --fail-with-body -F "file=@$song" -F hop_seconds=2 "$address/timeline"
