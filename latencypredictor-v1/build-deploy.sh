#!/bin/sh
# Builds the two latency images, at the path that pipelines of the older project call.
set -eu
exec "$(dirname "$0")/../scripts/build-images.sh" "$@" latency-training latency-prediction
