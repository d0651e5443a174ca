#!/usr/bin/env bash
# What only a machine with a GPU can show, in one go; docs/gpu.md says what each step must print.
# Usage: tests/gpu_check.sh [FOLDER-OF-PYTHON] (default .venv/bin)
# DICOMNODE_GPU_CHECK_CONTAINER=yes also builds NVIDIA's container (some 20 GB) and runs all of this inside it.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=${1:-.venv/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
verdict=()

step() { # NAME COMMAND...: what it prints is shown, and how it ended is told again at the end
    local name=$1 log="$work/log"; shift
    echo; echo "== $name"
    if "$@" 2>&1 | tee "$log"; then
        local skipped
        skipped=$(grep -oE '[0-9]+ skipped' "$log" | tail -1)
        verdict+=("passed   $name${skipped:+ ($skipped: above it says why)}")
    else
        failed=1
        verdict+=("FAILED   $name")
    fi
}

left_out() { verdict+=("not tried   $1"); }

finish() {
    echo; echo "== verdict"
    printf '%s\n' "${verdict[@]}"
    if [ "$failed" != 0 ]; then echo "something failed: see above"
    # no pipe into grep -q: it ends at the first line it finds, and the pipe fails when printf then writes on
    elif grep -qE '^not tried| skipped' <<<"$(printf '%s\n' "${verdict[@]}")"; then echo "what was tried passed; the lines above say what was not"
    else echo "all of it passed"; fi
    exit "$failed"
}

sees_gpu='import sys, torch
print("torch", torch.__version__, "CUDA", torch.version.cuda)
seen = torch.cuda.is_available()
print(torch.cuda.get_device_name() if seen else "torch sees no GPU: nothing below can be tried (docs/gpu.md)")
sys.exit(not seen)'
optimise() { # on a node of its own: the table has a row for each engine and precision, times and Dice beside it
    local models=sample_data/models
    "$bin/python3" -m dicomnode --home "$work/node" models add "$models/$1" \
        && "$bin/python3" -m dicomnode --home "$work/node" models optimise "$1"
}
container() {
    docker build -f deploy/triton/Dockerfile -t dicomnode-triton . \
        && docker run --rm --gpus all --shm-size 16g --ulimit memlock=-1 --ulimit stack=67108864 \
            -v "$PWD":/checkout:ro -w /checkout -e PYTHONDONTWRITEBYTECODE=1 -e DICOMNODE_GPU_CHECK_CONTAINER=inside \
            dicomnode-triton bash tests/gpu_check.sh /usr/bin
}

step "1. driver" nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
step "2. torch" "$bin/python3" -c "$sees_gpu"
if [ "$failed" != 0 ]; then finish; fi
step "3. tests that need a GPU" "$bin/python3" -m pytest -m gpu -p no:cacheprovider -q -rs tests/integration/test_gpu.py
step "4. tests that use the GPU where there is one" "$bin/python3" -m pytest -p no:cacheprovider -q -rs \
    tests/contract/test_inference_engine.py tests/contract/test_outputs.py tests/integration/test_triton_server.py \
    tests/integration/test_triton_inner.py tests/integration/test_cuda_volumes.py
step "5. transport: CUDA shared memory against shared memory" "$bin/python3" -m benchmarks.transport.run
step "6. before and after the network: GPU against CPU" "$bin/python3" -m benchmarks.pre_post.on_gpu
step "7. a bundle's own transforms: GPU against CPU" "$bin/python3" -m benchmarks.pre_post.bundle_on_gpu
step "8. engines for a network of volumes, TensorRT among them" optimise torso-ct
step "9. engines for a network of images" optimise slice-ct-region
case ${DICOMNODE_GPU_CHECK_CONTAINER:-} in
    inside) ;;
    yes) step "10. all of this in NVIDIA's container" container ;;
    *) left_out "10. NVIDIA's container: with docker, DICOMNODE_GPU_CHECK_CONTAINER=yes make gpu-check" ;;
esac
finish
