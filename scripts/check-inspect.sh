#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0

exec "$(dirname "$0")/check_inspect.py" "$@"
