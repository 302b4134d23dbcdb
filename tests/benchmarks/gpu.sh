#!/bin/sh
# Measurements on a machine with one NVIDIA GPU and PyTorch, in ten minutes or less and without a network.
#
#   tests/benchmarks/gpu.sh prepare   on a connected machine: downloads what the library imports into wheels/
#   tests/benchmarks/gpu.sh           on the machine with the GPU, from a copy of this checkout with wheels/
#   GENREFLOW_GPU_REHEARSAL=1 tests/benchmarks/gpu.sh      the same on the CPU with a tiny model
#
# PYTHON          the interpreter with PyTorch (python3)
# PYTHON_VERSION  prepare: the Python of the machine with the GPU (3.12)
# OUT             folder for gpu.json and gpu.md (local_outputs/gpu)
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
limit=$((64 * 1024 * 1024))

# What fine-tuning, extraction and serving by PyTorch import, without what PyTorch itself brings along.
packages="accelerate annotated-types anyio cffi click h11 httpcore2 httpx2 huggingface-hub idna numpy packaging
pandas psutil pycparser pydantic pydantic-core python-dateutil pyyaml regex safetensors six soundfile soxr
tokenizers tqdm transformers truststore typing-extensions typing-inspection"

prepare() {
    mkdir -p wheels
    rm -f wheels/*.whl
    for package in $packages; do
        grep "^$package==" components/requirements.lock || { echo "components/requirements.lock has no $package" >&2; exit 1; }
    done >wheels/requirements.txt
    platforms=
    for tag in 2_28 2_27 2_24 2_17 2_12 2_5; do platforms="$platforms --platform manylinux_${tag}_x86_64"; done
    # shellcheck disable=SC2086
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
        --python-version "${PYTHON_VERSION:-3.12}" $platforms \
        --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64 \
        --dest wheels --requirement wheels/requirements.txt
    brought=$(cat wheels/*.whl | wc -c)
    tree=$(git ls-files -z | xargs -0 cat | wc -c)
    total=$((brought + tree))
    echo "$((brought / 1048576)) MiB of wheels and $((tree / 1048576)) MiB of checkout, of $((limit / 1048576)) MiB"
    [ "$total" -le "$limit" ] || { echo "That is more than can be brought along." >&2; exit 1; }
}

if [ "${1:-}" = prepare ]; then
    prepare
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/site"
if [ -f wheels/requirements.txt ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --find-links wheels --no-deps \
        --no-compile --target "$work/site" --requirement wheels/requirements.txt
else
    echo "There is no wheels/: what is installed here is used." >&2
fi
if [ -n "${GENREFLOW_GPU_REHEARSAL:-}" ]; then
    export CUDA_VISIBLE_DEVICES=
else
    export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}"
fi
export PYTHONPATH="$work/site:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export GENREFLOW_HOME="$work/home" HF_HUB_OFFLINE=1
timeout 570 "$python" tests/benchmarks/gpu.py "$work" "${OUT:-local_outputs/gpu}"
