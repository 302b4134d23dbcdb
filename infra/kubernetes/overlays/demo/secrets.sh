#!/bin/sh
# Write secrets/ from secrets.example/, with a random value for each @NAME@. git ignores secrets/.
set -eu
cd "$(dirname "$0")"
if [ -e secrets ]; then
    echo "secrets/ exists: its values are in use. Delete it only together with the namespace; else docs/runbook.md, New passwords." >&2
    exit 1
fi
umask 077
cp -R secrets.example secrets
for name in $(cat secrets.example/* | grep -oE '@[A-Z0-9_]+@' | sort -u); do
    value=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    for file in secrets/*; do
        sed "s/$name/$value/g" "$file" >"$file.new"
        mv "$file.new" "$file"
    done
done
