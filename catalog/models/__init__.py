"""`Model`: the shapes of an LLM, read from a Hugging Face config.json, and the rows of models.yaml.

One reader (`parse_config`) serves the catalog's rows and a user's own file, so that what is tested on published models
holds for private ones. Models are rows, not classes: a new one is a YAML entry or a config.json, and no code.
"""

from catalog.models.config import ARCHITECTURES, parse_config, read_config
from catalog.models.known import find_model, load_models, split_quantization
from catalog.models.shapes import MLA, AttentionKind, Layer, Model, MoE
from catalog.models.weights import WeightElements, attention_elements, module_format, weight_elements

__all__ = [
    "ARCHITECTURES",
    "MLA",
    "AttentionKind",
    "Layer",
    "MoE",
    "Model",
    "WeightElements",
    "attention_elements",
    "find_model",
    "load_models",
    "module_format",
    "parse_config",
    "read_config",
    "split_quantization",
    "weight_elements",
]
