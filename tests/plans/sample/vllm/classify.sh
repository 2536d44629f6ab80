#!/bin/sh
# classify: 1 replicas, each on 1 x mi300x
# fleetplan.io/fleet-digest: 5f0cab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12
# fleetplan.io/image: vllm/vllm-openai:v0.32.0
# fleetplan.io/plan-digest: 526bf6fd1617b2d50638c1785e771e9310561a89c81d18edf471f3ddb45380ad
# fleetplan.io/vllm-version: 0.32.0
exec vllm serve \
  Qwen/Qwen3-30B-A3B \
  '--custom-histogram-buckets={"request_latency":[0.3,0.5,0.8,1.0,1.5,2.0,2.5,5.0,10.0,15.0,20.0,30.0,40.0,50.0,60.0,120.0,240.0,480.0,960.0,1920.0,7680.0]}' \
  --enable-chunked-prefill \
  --enable-mfu-metrics \
  --enable-prefix-caching \
  --kv-cache-dtype=bfloat16 \
  --kv-cache-memory-bytes=98784247808 \
  --max-model-len=4096 \
  --max-num-batched-tokens=16384 \
  --max-num-seqs=512 \
  --pipeline-parallel-size=1 \
  --served-model-name \
  Qwen/Qwen3-30B-A3B \
  --shutdown-timeout=60 \
  --tensor-parallel-size=1 \
  "$@"
