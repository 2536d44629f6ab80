#!/bin/sh
# code-completion: 6 replicas, each on 1 x l40s
# fleetplan.io/fleet-digest: 5f0cab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12
# fleetplan.io/image: vllm/vllm-openai:v0.32.0
# fleetplan.io/plan-digest: 526bf6fd1617b2d50638c1785e771e9310561a89c81d18edf471f3ddb45380ad
# fleetplan.io/vllm-version: 0.32.0
exec vllm serve \
  meta-llama/Llama-3.1-8B-Instruct \
  '--custom-histogram-buckets={"time_to_first_token":[0.001,0.005,0.01,0.02,0.04,0.06,0.08,0.1,0.25,0.5,0.75,1.0,2.5,5.0,7.5,10.0,20.0,40.0,80.0,160.0,640.0,2560.0]}' \
  --enable-chunked-prefill \
  --enable-mfu-metrics \
  --enable-prefix-caching \
  --kv-cache-dtype=fp8 \
  --kv-cache-memory-bytes=23622320128 \
  --max-model-len=8192 \
  --max-num-batched-tokens=4096 \
  --max-num-seqs=64 \
  --pipeline-parallel-size=1 \
  --served-model-name \
  meta-llama/Llama-3.1-8B-Instruct \
  --shutdown-timeout=60 \
  --tensor-parallel-size=1 \
  "$@"
