#!/bin/sh
# Builds, tags and pushes the container images; see --help.
set -eu
cd "$(dirname "$0")/.."
IMAGES="epp latency-training latency-prediction"

usage() {
    cat <<'TEXT'
usage: scripts/build-images.sh build|tag|push|all... [epp] [latency-training] [latency-prediction]

  build   build the images under their local names
  tag     tag them as $IMAGE_REGISTRY/<image>:<tag>
  push    push them to the registry
  all     build, tag and push

If no image is named, the command applies to all of them.

  image                local name
  epp                  epp:latest
  latency-training     latencypredictor-v2-training-server:latest
  latency-prediction   latencypredictor-v2-prediction-server:latest

  IMAGE_REGISTRY    registry and path, such as quay.io/your-org; required for tag and push
  EPP_TAG           tag of the images (default: latest)
  LATENCY_TAG       tag of the two latency images (default: EPP_TAG)
  CONTAINER_ENGINE  docker, podman or buildah (default: the first one installed)
  BUILD_FLAGS       additional flags for build, such as "--platform linux/arm64 --sbom=true"
  SOURCE_DATE_EPOCH timestamp of the images and their files, in seconds (default: the last commit's)
  DRY_RUN           1: print the commands without running them
TEXT
}

fail() {
    echo "build-images.sh: $*" >&2
    exit 1
}

run() {
    echo "+ $*"
    [ -n "${DRY_RUN:-}" ] || "$@"
}

find_engine() {
    engine=${CONTAINER_ENGINE:-}
    case $engine in
        docker | podman | buildah)
            [ -n "${DRY_RUN:-}" ] || command -v "$engine" >/dev/null || fail "CONTAINER_ENGINE: there is no $engine in PATH"
            return ;;
        ?*) fail "CONTAINER_ENGINE: '$engine' is unknown; use docker, podman or buildah" ;;
    esac
    for engine in docker podman buildah; do
        if command -v "$engine" >/dev/null; then return; fi
    done
    engine=docker
    [ -n "${DRY_RUN:-}" ] || fail "there is no container engine: install docker, podman or buildah, or set DRY_RUN=1"
}

check_names() {
    [ -n "${IMAGE_REGISTRY:-}" ] || fail "IMAGE_REGISTRY is not set: export IMAGE_REGISTRY=quay.io/your-org"
    echo "$IMAGE_REGISTRY" | grep -Eqx '[a-z0-9]([a-z0-9._/-]*[a-z0-9])?(:[0-9]+(/[a-z0-9._/-]*[a-z0-9])?)?' ||
        fail "IMAGE_REGISTRY: '$IMAGE_REGISTRY' is not a registry name such as quay.io/your-org"
    for tag in "${EPP_TAG:-latest}" "${LATENCY_TAG:-latest}"; do
        echo "$tag" | grep -Eqx '[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}' ||
            fail "EPP_TAG, LATENCY_TAG: '$tag' is not a tag; use at most 128 letters, digits, _, . and -"
    done
}

local_name() {
    case $1 in
        epp) echo epp:latest ;;
        latency-training) echo latencypredictor-v2-training-server:latest ;;
        latency-prediction) echo latencypredictor-v2-prediction-server:latest ;;
    esac
}

remote_name() {
    tag=${EPP_TAG:-latest}
    [ "$1" = epp ] || tag=${LATENCY_TAG:-$tag}
    echo "$IMAGE_REGISTRY/$1:$tag"
}

build() {
    version=$(sed -n '/^\[project]/,/^\[/s/^version = "\(.*\)"$/\1/p' pyproject.toml)
    revision=$(git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null || echo unknown)
    created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -r "$epoch" +%Y-%m-%dT%H:%M:%SZ) ||
        fail "SOURCE_DATE_EPOCH: '$epoch' is not a number of seconds"
    # BuildKit reads the files' time from the build argument; podman and buildah read it from a flag.
    timestamp=
    [ "$engine" = docker ] || timestamp="--timestamp $epoch"
    # shellcheck disable=SC2086
    run "$engine" build -f "images/$1/Dockerfile" -t "$(local_name "$1")" \
        --build-arg "SOURCE_DATE_EPOCH=$epoch" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        --build-arg "CREATED=$created" $timestamp ${BUILD_FLAGS:-} .
}

epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
# Engines that read this variable themselves refuse it together with the flag.
unset SOURCE_DATE_EPOCH
commands=
chosen=
for word; do
    case $word in
        build | tag | push) commands="$commands $word " ;;
        all) commands=" build  tag  push " ;;
        epp | latency-training | latency-prediction) chosen="$chosen $word" ;;
        -h | --help | help) usage; exit ;;
        *) usage >&2; fail "'$word' is neither a command nor an image" ;;
    esac
done
if [ -z "$commands" ]; then
    usage >&2
    fail "name a command: build, tag, push or all"
fi
find_engine
case $commands in *" tag "* | *" push "*) check_names ;; esac
for command in build tag push; do
    case $commands in *" $command "*) ;; *) continue ;; esac
    for image in ${chosen:-$IMAGES}; do
        case $command in
            build) build "$image" ;;
            tag) run "$engine" tag "$(local_name "$image")" "$(remote_name "$image")" ;;
            push) run "$engine" push "$(remote_name "$image")" ;;
        esac
    done
done
