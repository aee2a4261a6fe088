"""Trained weights to the two forms that the engines read: safetensors (bf16) and GGUF (Q8_0).

    python -m testbed.export deep --weights OUT --models testbed/models

Needs numpy, gguf, safetensors and tokenizers; no torch. Writes into `models/TIER`: config.json,
generation_config.json, tokenizer files, model.safetensors and TIER.gguf.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from testbed import tokenizer as shared

_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def read_bf16(file: Path) -> dict[str, NDArray[np.uint16]]:
    """The tensors of a safetensors file of bf16 values, as their raw 16 bits."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    found: dict[str, NDArray[np.uint16]] = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise ValueError(f"{file}: {name} is {entry['dtype']}, not BF16")
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        found[name] = np.frombuffer(data[begin:end], np.uint16).reshape(entry["shape"])
    return found


def write_bf16(tensors: dict[str, NDArray[np.uint16]], file: Path) -> None:
    """Write raw bf16 tensors as one safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, bits in tensors.items():
        header[name] = {
            "dtype": "BF16",
            "shape": list(bits.shape),
            "data_offsets": [offset, offset + bits.nbytes],
        }
        offset += bits.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for bits in tensors.values():
            out.write(bits.tobytes())


def _floats(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _interleaved(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows from halves to pairs: GGUF's llama rotates neighbours where Hugging Face rotates halves."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def _gguf_name(name: str) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    plan = json.loads(tokenizer.to_str())
    special = {entry["id"]: entry["special"] for entry in plan["added_tokens"]}
    vocabulary = sorted(plan["model"]["vocab"].items(), key=lambda pair: pair[1])
    kinds = [
        gguf.TokenType.NORMAL
        if i not in special
        else gguf.TokenType.CONTROL
        if special[i]
        else gguf.TokenType.USER_DEFINED
        for _, i in vocabulary
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(shared.PRE_TOKENIZER)
    writer.add_token_list([text for text, _ in vocabulary])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in plan["model"]["merges"]])
    writer.add_eos_token_id(shared.token_id(tokenizer, shared.END))
    writer.add_eot_token_id(shared.token_id(tokenizer, shared.END))
    writer.add_pad_token_id(shared.token_id(tokenizer, shared.PAD))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(shared.CHAT_TEMPLATE)


def write_gguf(
    tier: str,
    config: dict[str, Any],
    tensors: dict[str, NDArray[np.uint16]],
    tokenizer: Tokenizer,
    file: Path,
) -> None:
    """Write a Q8_0 GGUF file (norms in F32) with tokenizer, chat template and a greedy default."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(f"subcortex-testbed-{tier}")
    writer.add_description("A testbed and an offline demo, not an assistant.")
    writer.add_license("apache-2.0")
    writer.add_string("general.basename", "subcortex-testbed")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_int32("general.sampling.top_k", 1)
    _add_tokenizer(writer, tokenizer)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, bits in tensors.items():
        weight = _floats(bits)
        for part, count in heads.items():
            if part in name:
                weight = _interleaved(weight, count)
        if weight.ndim == 1:
            writer.add_tensor(_gguf_name(name), weight)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(_gguf_name(name), gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _config(tensors: dict[str, NDArray[np.uint16]], tokenizer: Tokenizer, head_size: int) -> dict[str, Any]:
    """config.json, read off the weights themselves so that it cannot disagree with them."""
    layer = "model.layers.0."
    vocabulary, width = tensors["model.embed_tokens.weight"].shape
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": sum(name.endswith("q_proj.weight") for name in tensors),
        "num_attention_heads": tensors[layer + "self_attn.q_proj.weight"].shape[0] // head_size,
        "num_key_value_heads": tensors[layer + "self_attn.k_proj.weight"].shape[0] // head_size,
        "head_dim": head_size,
        "intermediate_size": tensors[layer + "mlp.gate_proj.weight"].shape[0],
        "max_position_embeddings": shared.CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "eos_token_id": shared.token_id(tokenizer, shared.END),
        "pad_token_id": shared.token_id(tokenizer, shared.PAD),
    }


def export(tier: str, weights: Path, models: Path, head_size: int = 32) -> None:
    """Write `models/tier` from the weights-N.safetensors in `weights`, with the tokenizer already in it."""
    folder = models / tier
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tensors: dict[str, NDArray[np.uint16]] = {}
    for file in sorted(weights.glob("weights-*.safetensors")):
        tensors |= read_bf16(file)
    config = _config(tensors, tokenizer, head_size)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"eos_token_id": config["eos_token_id"], "pad_token_id": config["pad_token_id"], "top_k": 1}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    shared.save(tokenizer, folder)
    write_bf16(tensors, folder / "model.safetensors")
    write_gguf(tier, config, tensors, tokenizer, folder / f"{tier}.gguf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tier")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("testbed/models"))
    options = parser.parse_args()
    export(options.tier, options.weights, options.models)
