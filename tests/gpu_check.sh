#!/usr/bin/env bash
# What only a machine with a GPU can show, in one go; docs/gpu.md says what each step must print.
# Usage: tests/gpu_check.sh FOLDER-OF-PYTHON (default .venv/bin)
set -uo pipefail
cd "$(dirname "$0")/.."
bin=${1:-.venv/bin}
failed=0

step() {
    echo; echo "== $1"; shift
    "$@" || { failed=1; echo "!! failed: $*"; }
}

sees_gpu='import sys, torch
print("torch", torch.__version__, "CUDA", torch.version.cuda)
seen = torch.cuda.is_available()
print(torch.cuda.get_device_name() if seen else "torch sees no GPU: nothing below can be tried")
sys.exit(not seen)'

step "1. driver" nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
echo; echo "== 2. torch"
"$bin/python" -c "$sees_gpu" || { echo "see docs/gpu.md"; exit 1; }
step "3. tests" "$bin/python" -m pytest -m gpu -p no:cacheprovider -rs
step "4. tests that use the GPU where there is one" "$bin/python" -m pytest -p no:cacheprovider -q -rs \
    tests/contract/test_inference_engine.py tests/contract/test_outputs.py tests/integration/test_triton_server.py \
    tests/integration/test_triton_inner.py tests/integration/test_cuda_volumes.py
step "5. transport" "$bin/python" -m benchmarks.transport.run
echo
if [ "$failed" = 0 ]; then echo "all of it passed"; else echo "something failed: see above"; fi
exit "$failed"
