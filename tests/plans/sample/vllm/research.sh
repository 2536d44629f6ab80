#!/bin/sh
# research: 1 replicas, each on 16 x h100_sxm
# fleetplan.io/fleet-digest: 5f0cab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12
# fleetplan.io/image: vllm/vllm-openai:v0.32.0
# fleetplan.io/plan-digest: 526bf6fd1617b2d50638c1785e771e9310561a89c81d18edf471f3ddb45380ad
# fleetplan.io/vllm-version: 0.32.0
exec vllm serve \
  deepseek-ai/DeepSeek-V3 \
  --enable-chunked-prefill \
  --enable-mfu-metrics \
  --enable-prefix-caching \
  --kv-cache-dtype=fp8 \
  --kv-cache-memory-bytes=21474836480 \
  --max-model-len=65536 \
  --max-num-batched-tokens=8192 \
  --max-num-seqs=96 \
  --pipeline-parallel-size=2 \
  --served-model-name \
  deepseek-ai/DeepSeek-V3 \
  --shutdown-timeout=60 \
  --tensor-parallel-size=8 \
  "$@"
