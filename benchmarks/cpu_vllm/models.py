"""The small models of the CPU benchmark, and the engine that serves them."""

from __future__ import annotations

from typing import Any

from flows.engine_probe import EngineSettings

MAX_MODEL_LEN, MAX_NUM_SEQS, MAX_BATCHED = 2048, 16, 2048
_COMMON = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": 8192,
           "tie_word_embeddings": False, "torch_dtype": "bfloat16", "hidden_act": "silu", "bos_token_id": 1,
           "eos_token_id": 2}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "small-llama": _COMMON | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "intermediate_size": 1536,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64,
    },
    "small-qwen3-moe": _COMMON | {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 512,
        "intermediate_size": 1024, "moe_intermediate_size": 256, "num_experts": 8, "num_experts_per_tok": 2,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "num_hidden_layers": 6,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "attention_bias": False,
        "use_sliding_window": False, "sliding_window": None, "max_window_layers": 6,
    },
    "small-gqa": _COMMON | {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 768, "intermediate_size": 2048,
        "num_hidden_layers": 6, "num_attention_heads": 12, "num_key_value_heads": 2, "head_dim": 64,
        "attention_bias": False, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 6,
    },
}  # fmt: skip
#: The model runs inside the engine process. By default an engine on a CPU has a worker process beside it, for whose
#: answers it waits in a busy loop, and a machine of two cores has none left for the front end and the client.
SETTINGS = EngineSettings(
    arguments={"dtype": "bfloat16", "max_model_len": MAX_MODEL_LEN, "max_num_seqs": MAX_NUM_SEQS,
               "max_num_batched_tokens": MAX_BATCHED, "enforce_eager": True, "enable_prefix_caching": False},
    environment={"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0", "OMP_NUM_THREADS": "1",
                 "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
)  # fmt: skip
