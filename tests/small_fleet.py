"""The smallest fleet worth planning: one intent on two nodes, and a second one that nothing can meet."""

FLEET = """
cluster:
  pools:
    - {name: one, gpu: h100_sxm, gpus_per_node: 8, nodes: 2, price: 2.29 USD/GPU/h}
intents:
  - name: chat
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {rate: 4 /s, prompt: {mean: 500, cv: 0.5, max: 2000}, output: {mean: 100, cv: 0.5, max: 500}}
    slo: {ttft: 1 s, tpot: 60 ms}
    quantizations: [bf16]
    kv_dtypes: [bf16]
    disaggregated: forbidden
"""
UNMEETABLE = """
  - name: dream
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {rate: 4 /s, prompt: {mean: 500}, output: {mean: 100}}
    slo: {tpot: 100 us}
    quantizations: [bf16]
    kv_dtypes: [bf16]
    disaggregated: forbidden
"""
