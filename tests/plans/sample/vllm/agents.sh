#!/bin/sh
# agents: 2 replicas, each on 2 x h200_sxm
# fleetplan.io/fleet-digest: 5f0cab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12
# fleetplan.io/image: vllm/vllm-openai:v0.32.0
# fleetplan.io/plan-digest: 526bf6fd1617b2d50638c1785e771e9310561a89c81d18edf471f3ddb45380ad
# fleetplan.io/vllm-version: 0.32.0
exec vllm serve \
  openai/gpt-oss-120b \
  '--custom-histogram-buckets={"inter_token_latency":[0.01,0.02,0.025,0.05,0.075,0.1,0.15,0.2,0.3,0.4,0.5,0.75,1.0,2.5,5.0,7.5,10.0,20.0,40.0,80.0],"time_to_first_token":[0.001,0.005,0.01,0.02,0.04,0.06,0.08,0.1,0.25,0.5,0.75,0.8,1.0,2.5,5.0,7.5,10.0,20.0,40.0,80.0,160.0,640.0,2560.0]}' \
  --enable-chunked-prefill \
  --enable-mfu-metrics \
  --enable-prefix-caching \
  --kv-cache-dtype=bfloat16 \
  --kv-cache-memory-bytes=90194313216 \
  --max-model-len=131072 \
  --max-num-batched-tokens=8192 \
  --max-num-seqs=128 \
  --pipeline-parallel-size=1 \
  --served-model-name \
  openai/gpt-oss-120b \
  --shutdown-timeout=60 \
  --tensor-parallel-size=2 \
  "$@"
