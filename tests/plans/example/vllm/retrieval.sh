#!/bin/sh
# retrieval: 3 replicas, each on 1 x h100_sxm
# fleetplan.io/fleet-digest: 866f708919d69e524a779ed99c2c2e2fdb0d1b3c0e5944a99b2caf80d4070871
# fleetplan.io/image: vllm/vllm-openai:v0.32.0
# fleetplan.io/plan-digest: 4f4d9f16ee00880f2b4b88458b1f66420876af5c097e341f17d40c686555a6cb
# fleetplan.io/vllm-version: 0.32.0
exec vllm serve \
  Qwen/Qwen3-30B-A3B-Instruct-2507-FP8 \
  '--custom-histogram-buckets={"inter_token_latency":[0.01,0.025,0.05,0.06,0.075,0.1,0.15,0.2,0.3,0.4,0.5,0.75,1.0,2.5,5.0,7.5,10.0,20.0,40.0,80.0],"time_to_first_token":[0.001,0.005,0.01,0.02,0.04,0.06,0.08,0.1,0.25,0.5,0.75,1.0,2.0,2.5,5.0,7.5,10.0,20.0,40.0,80.0,160.0,640.0,2560.0]}' \
  --enable-chunked-prefill \
  --enable-mfu-metrics \
  --enable-prefix-caching \
  --kv-cache-dtype=fp8 \
  --kv-cache-memory-bytes=45290618880 \
  --max-model-len=24576 \
  --max-num-batched-tokens=8192 \
  --max-num-queued-tokens=94499 \
  --max-num-seqs=16 \
  --pipeline-parallel-size=1 \
  --served-model-name \
  Qwen/Qwen3-30B-A3B-Instruct-2507 \
  --shutdown-timeout=60 \
  --tensor-parallel-size=1 \
  "$@"
