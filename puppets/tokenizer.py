"""A byte-level CLIP tokenizer in which every word of the puppet theatre is one token.

Shapes: b batch, n tokens.
"""

import json
import tempfile
from collections import Counter
from pathlib import Path

import torch
from transformers import CLIPTokenizer

MAX_TOKENS = 32   # of a caption, its start and end mark included


def build_tokenizer(words: list[str]) -> CLIPTokenizer:
    """Return a byte-level CLIP tokenizer. Every string has tokens, and each of `words` is one token."""
    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary(words, Path(folder))
        return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)


def save_tokenizer(tokenizer: CLIPTokenizer, words: list[str], folder: Path) -> None:
    """Write a tokenizer of `words` as diffusers folders have it, vocab.json and merges.txt included."""
    tokenizer.save_pretrained(folder)
    write_vocabulary(words, folder)


def write_vocabulary(words: list[str], folder: Path) -> None:
    """Write vocab.json and merges.txt in CLIP's order.

    The order is: bytes, bytes that end a word, merges, the marks of start and end.
    """
    merges = learn_merges(sorted(word for word in set(words) if len(word) > 1))
    letters = sorted(byte_letters())
    pieces = letters + [letter + "</w>" for letter in letters] + [a + b for a, b in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Return the byte pair merges after which each word is one token.

    Frequent pairs come first, equally frequent ones by the alphabet.
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges = []
    while any(len(pieces) > 1 for pieces in spelled):
        counts = Counter(pair for pieces in spelled for pair in zip(pieces, pieces[1:]))
        merge = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(merge)
        for pieces in spelled:
            i = 0
            while i < len(pieces) - 1:
                if (pieces[i], pieces[i + 1]) == merge:
                    pieces[i:i + 2] = ["".join(merge)]
                i += 1
    return merges


def byte_letters() -> list[str]:
    """Return a printable character for each of the 256 bytes, as byte-level tokenizers use since GPT-2."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    num_rest = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(num_rest)]


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Return token ids (b n), padded to the full length as in the pipeline."""
    return tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True,
                     return_tensors="pt").input_ids
