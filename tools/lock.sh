#!/usr/bin/env bash
# Writes requirements.lock and its additions, requirements-gpu.lock,
# requirements-notebook.lock and requirements-ray.lock; called by `make lock`.
#
#   tools/lock.sh UV        UV: the uv to resolve with

set -euo pipefail
cd "$(dirname "$0")/.."

uv=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Releases after that day break this TensorFlow silently: pyarrow 19 wants
# numpy 2, tensorflow-metadata 1.18 wants protobuf 5.
newest=2024-11-15

# Of one platform whatever machine resolves; TFF has wheels from glibc 2.31 on.
platform=x86_64-manylinux_2_31

resolve() {
  "$uv" pip compile --quiet --no-header --no-annotate \
    --python-version 3.11 --python-platform "$platform" \
    --exclude-newer "$newest" --override overrides.txt "$@"
}

{
  cat <<HEADER
# Everything tff_fedsa needs, pinned: Linux x86_64, Python 3.11, packages as of
# $newest. Made by \`make lock\` from requirements.in and overrides.txt.
#
# Install with --no-deps: tensorflow-federated 0.87.0 demands jaxlib 0.4.14,
# which no longer exists, so that pip finds no solution of its own. The list is
# complete without one.
HEADER
  resolve requirements.in
} > "$work/requirements.lock"

# The extra's own wheels are what it adds to the main lock.
echo 'tensorflow[and-cuda]' > "$work/gpu.in"
{
  cat <<HEADER
# CUDA 11.8 for the tensorflow of requirements.lock, in addition to that file.
# Made by \`make lock\`: what tensorflow[and-cuda] names, without tensorrt.
# Install with --no-deps, for requirements.lock's reason.
HEADER
  resolve --constraint "$work/requirements.lock" "$work/gpu.in" | grep '^nvidia-'
} > "$work/requirements-gpu.lock"

# IPython 8.23 needs a newer typing-extensions than it says, and than TFF takes.
printf '%s\n' ipykernel nbclient nbformat 'ipython<8.23' > "$work/notebook.in"
{
  cat <<HEADER
# Jupyter's kernel, to execute launch/fedsa_colab.ipynb, in addition to
# requirements.lock. Made by \`make lock\`. Not part of that file: the notebook
# installs it into kernels that have such packages already, and must keep them.
# Install with --no-deps, for requirements.lock's reason.
HEADER
  resolve --constraint "$work/requirements.lock" "$work/notebook.in" \
    | grep -vxFf "$work/requirements.lock"
} > "$work/requirements-notebook.lock"

# Ray 2.40 is younger than the rest. It takes the protobuf and grpcio of the main
# lock. cryptography makes the certificates for its connections.
printf '%s\n' 'ray==2.40.*' cryptography > "$work/ray.in"
{
  cat <<HEADER
# Ray for the runtime ray, and what it adds to requirements.lock; packages as of
# 2024-12-15. Made by \`make lock\`.
# Install with --no-deps, for requirements.lock's reason.
HEADER
  newest=2024-12-15
  resolve --constraint "$work/requirements.lock" "$work/ray.in" \
    | grep -vxFf "$work/requirements.lock"
} > "$work/requirements-ray.lock"

# Only when all are there.
cp "$work"/requirements*.lock .
