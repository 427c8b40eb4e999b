# Other scripts source this file. It makes .venv and installs this project with the named extras, unless that is done and
# setup.cfg has not changed since. Afterwards the programs of .venv come first on PATH.
# usage: . scripts/install.sh EXTRAS
extras=$1
installed=".venv/installed-$extras"
if ! [ -x .venv/bin/synth ] || ! cmp -s setup.cfg "$installed"; then
  for python in python3.13 python3.12 python3.11 python3.10 python3; do
    "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && break
    python=
  done
  if [ -z "$python" ]; then
    echo "error: Python 3.10 to 3.13 is needed: install one and run this again" >&2
    exit 1
  fi
  if ! [ -x .venv/bin/pip ] && ! "$python" -m venv .venv; then
    echo "error: $python can't make a virtual environment: install its venv package (Debian: python3-venv)" >&2
    exit 1
  fi
  echo "installing into .venv (torch is large; this takes some minutes the first time)" >&2
  .venv/bin/pip install --quiet --disable-pip-version-check --editable ".[$extras]" || {
    echo "error: the installation failed: see the lines above, and run this again" >&2
    exit 1
  }
  cp setup.cfg "$installed"
fi
export PATH="$PWD/.venv/bin:$PATH"
