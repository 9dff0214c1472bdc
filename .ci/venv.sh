#!/usr/bin/env bash
# Prints the environment of the ComfyUI in use: .venv for our own, one beside it for each that COMFYUI_PATH names, since
# two versions ask for different packages.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
if [ -n "${COMFYUI_PATH:-}" ] && HOST=$(cd "$COMFYUI_PATH" 2>/dev/null && pwd) && [ "$HOST" != "$PWD/.host/ComfyUI" ]; then
    NUMBER=$(printf '%s' "$HOST" | cksum | cut -d' ' -f1)
    NAME=$(basename "$HOST" | tr -c '[:alnum:]._\n-' '_')
    VENV=$VENV-$NAME-$NUMBER
fi
printf '%s\n' "$VENV"
