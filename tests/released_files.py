"""Files in the formats of the released model and of its text encoder, with weights drawn here."""

import json
import string

import torch

START, END = "<|startoftext|>", "<|endoftext|>"


def official(state, prefixes):
    """Our state dict under released names."""
    theirs = {}
    for name, tensor in state.items():
        for old, ours in prefixes.items():
            if name.startswith(ours):
                theirs.setdefault(old + name.removeprefix(ours), tensor)
                break
    return theirs


def write_released(path, state, **extra):
    """A released `.pth` with some weights."""
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "global_pool": False}
    torch.save({"model_config": config, "model_state_dict": state, **extra}, path)
    return path


def write_text_model(folder, width=16):
    """A CLIP text model of two narrow layers, and a tokenizer of single letters."""
    import transformers

    letters = [*string.ascii_lowercase, *string.digits, ":", ";"]
    symbols = [START, END, *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=20,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPTextModel(config).save_pretrained(folder)
    return folder
