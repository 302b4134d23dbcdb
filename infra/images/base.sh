#!/usr/bin/env bash
# A base image without a registry: Debian by debootstrap, the Python of this machine at /usr/local, as python:3.11-slim has it.
#   infra/images/base.sh [IMAGE]          (as root, with buildah and debootstrap; the Debian of this machine)
# DEBIAN_MIRROR names another mirror than apt's own, PYTHON another interpreter than python3.
set -euo pipefail
image=${1:-localhost/genreflow-base:3.11}
for tool in buildah debootstrap; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install --no-install-recommends buildah debootstrap" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "debootstrap and buildah's chroot isolation need root." >&2; exit 1; }
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(0 if (3, 11, 4) <= sys.version_info < (3, 12) else "genreflow needs Python 3.11, from 3.11.4 on: name one by PYTHON=…")'
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
[ "$prefix" != /usr ] || { echo "$python is the system's own, whose folder holds all else, too: name one with a prefix of its own by PYTHON=…" >&2; exit 1; }
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $suite" | head -1)}

root=$(mktemp -d) && chmod 755 "$root"
trap 'rm -rf "$root"' EXIT
# what Python's own extension modules link against
libraries=libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g
debootstrap --variant=minbase --include="ca-certificates,netbase,tzdata,$libraries" "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -5 "$root.log" >&2; exit 1; }
rm -f "$root.log"
# security updates, by copies of this machine's configuration of apt, which do not stay in the image
kept=$(mktemp -d)
cp -a "$root/etc/apt" "$root/etc/ssl" "$kept"
cp -rL /etc/apt/sources.list* /etc/apt/auth.conf* /etc/apt/apt.conf.d "$root/etc/apt/" 2>/dev/null || true
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
chroot "$root" apt-get -qq update
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -qq --no-install-recommends -o Dpkg::Use-Pty=0 upgrade -y >/dev/null
rm -rf "$root/etc/apt" && cp -a "$kept/apt" "$root/etc/apt"
chroot "$root" update-ca-certificates --fresh >/dev/null
rm -rf "$kept"
rm -rf "$root"/etc/{resolv.conf,hostname} "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/var/cache/debconf/*-old
find "$root/usr/share/doc" -mindepth 2 ! -name copyright -type f -delete
rm -rf "$root"/usr/share/{man,info,locale,lintian}/* "$root/etc/apt/sources.list"

mkdir -p "$root/usr/local/lib" "$root/usr/local/bin"
tar -C "$prefix" --exclude='__pycache__' --exclude='lib/python3.11/site-packages' --exclude='lib/python3.11/test' \
    --exclude='lib/python3.11/idlelib' --exclude='lib/python3.11/tkinter' --exclude='lib/python3.11/config-3.11-*' \
    --exclude='lib-dynload/_tkinter*' -cf - lib bin/python3.11 | tar --no-same-owner -C "$root/usr/local" -xf -
mkdir -p "$root/usr/local/lib/python3.11/site-packages"
ln -s python3.11 "$root/usr/local/bin/python3"
ln -s python3.11 "$root/usr/local/bin/python"
chroot "$root" ldconfig
chroot "$root" /usr/local/bin/python3 -c 'import bz2, ctypes, lzma, sqlite3, ssl, uuid, zlib'

container=$(buildah from scratch)
buildah add --quiet "$container" "$root" / >/dev/null
buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 --cmd python3 "$container"
buildah commit --quiet --rm "$container" "$image" >/dev/null
echo "$image"
