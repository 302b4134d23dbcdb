#!/usr/bin/env bash
# Builds the images that `python -m components.image` names, and fails where one is larger than stated. Variables:
#   ENGINE     docker (default), podman or buildah; buildah builds without a daemon, as root also in a sandbox
#   BASE       the base image, best by digest; with buildah, where it is not set, one made by base.sh
#   TORCH_BACKEND  whose build of torch, as uv names them: cpu (default), cu130, …; empty: what the index has, or the
#              folder that PIP_FIND_LINKS names
#   REGISTRY   put before the names, as registry.example.org/team
#   STAGES     some of: training build service
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=${ENGINE:-docker} backend=${TORCH_BACKEND-cpu} python=${PYTHON:-python3}
command -v "$engine" >/dev/null || { echo "There is no $engine here: name an engine by ENGINE=docker|podman|buildah." >&2; exit 1; }
declare -A most=([training]=2500 [build]=2500 [service]=1000) # MB, with torch for CPUs

options=(--file infra/images/Dockerfile --build-arg "TORCH_BACKEND=$backend"
    --build-arg "VERSION=$("$python" -c 'from genreflow.core.version import VERSION; print(VERSION)')"
    --build-arg "REVISION=$(git describe --always --dirty --abbrev=40 2>/dev/null || true)")
if [ "$engine" = buildah ]; then
    options+=(--isolation chroot --layers)
    : "${BASE:=$(PYTHON=$python infra/images/base.sh)}"
    # what pip is configured with here: a folder of wheels, certificates; mounted on paths that every base has
    if [ -d "${PIP_FIND_LINKS:-}" ]; then
        options+=(--volume "$PIP_FIND_LINKS:/mnt:ro" --build-arg UV_FIND_LINKS=/mnt)
    fi
    if [ -f "${PIP_CERT:-}" ]; then
        inside=/etc/ssl/certs/ca-certificates.crt
        options+=(--volume "$PIP_CERT:$inside:ro" --build-arg "PIP_CERT=$inside" --build-arg "SSL_CERT_FILE=$inside")
    fi
fi
[ -z "${BASE:-}" ] || options+=(--build-arg "BASE=$BASE")

"$python" -m components.image | while read -r stage name; do
    case " ${STAGES:-training build service} " in *" $stage "*) ;; *) continue ;; esac
    name=${REGISTRY:+$REGISTRY/}$name
    began=$SECONDS
    "$engine" build "${options[@]}" --target "$stage" --tag "$name" . </dev/null
    if [ "$engine" = buildah ]; then
        container=$(buildah from "$name")
        size=$(du -s --apparent-size --block-size=1000000 "$(buildah mount "$container")" | cut -f1)
        buildah rm "$container" >/dev/null
    else
        size=$(("$("$engine" image inspect --format '{{.Size}}' "$name")" / 1000000))
    fi
    echo "$name: $size MB, built in $((SECONDS - began)) s"
    if [[ $backend != cu* ]] && [ "$size" -gt "${most[$stage]}" ]; then
        echo "$name has $size MB; at most ${most[$stage]} MB are stated in docs/kubeflow.md." >&2
        exit 1
    fi
done
