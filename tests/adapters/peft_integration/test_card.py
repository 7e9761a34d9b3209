"""The model card: written by every saving, true to the settings, and never over a user's words."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import BertForSequenceClassification

import adapters
from adapters import BasisConfig
from adapters.peft_integration.model_card import BEGIN, END

OPTIONS = {"r": 2, "num_basis": 6, "target_modules": "all", "sharing": "bandwidth"}


@pytest.fixture
def saved(family, tmp_path):
    """A base model in a folder, as from_pretrained gives it, with an adapter on it."""
    family("bert").model().save_pretrained(tmp_path / "base")
    base = BertForSequenceClassification.from_pretrained(tmp_path / "base")
    config = BasisConfig(**OPTIONS, task_type="SEQ_CLS", init_weights=False)
    model = get_peft_model(base, config).eval()
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


def test_a_card_says_what_it_is_and_the_settings(saved):
    _, folder = saved
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "peft" and "basis-zoo" in card.data.tags
    assert card.data.base_model.endswith("base")
    for part in (
        "φ(B A), with a learned scalar function φ",
        "| r | `2` |",
        "| basis | `sinc` |",
        "| num_basis | `6` | G, the number of functions |",
        "| interval | `(-3.0, 3.0)` |",
        "| sharing | `bandwidth` |",
        "`attention.self.query`",
        "### Framework versions",
    ):
        assert part in card.text, part
    assert "[More Information Needed]" not in card.text


def test_the_code_of_a_card_loads_the_adapter(family, saved):
    model, folder = saved
    bert = family("bert")
    want = bert.output(model)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    scope = {}
    exec(code.replace("THIS_REPOSITORY", str(folder)), scope)
    assert torch.equal(bert.output(scope["model"]), want)


def test_saving_again_keeps_a_user_s_words(saved):
    model, folder = saved
    file = folder / "README.md"
    card = ModelCard.load(file)
    card.data["license"] = "mit"
    card.text = f"# Mine\n\nRead me.\n{card.text}\nThe end.\n"
    card.save(file)
    model.peft_config["default"].b_std = 0.5
    model.save_pretrained(folder)
    text = file.read_text()
    assert "# Mine\n\nRead me." in text and "The end." in text and "license: mit" in text
    assert "| b_std | `0.5` |" in text and text.count(BEGIN) == text.count(END) == 1
    file.write_text("---\nlicense: mit\n---\n\n# Mine\n")
    adapters.write_model_card(model, folder)
    assert file.read_text().index("# Mine") < file.read_text().index(BEGIN)


@pytest.mark.parametrize("mine", [b"# My project\n", "---\ntags: [é]\n---\n".encode("latin-1")])
def test_a_file_that_is_no_card_is_left_alone(mine, saved, tmp_path):
    model, _ = saved
    (tmp_path / "README.md").write_bytes(mine)
    model.peft_config["default"].save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == mine
    with pytest.raises(ValueError, match=r"README.md is no model card: choose another folder"):
        adapters.write_model_card(model, tmp_path)


def test_every_adapter_and_every_way_of_saving_has_a_card(family, saved, tmp_path, monkeypatch):
    model, folder = saved
    model.add_adapter("two", BasisConfig(r=3, target_modules=["query"], basis="hat"))
    model.save_pretrained(folder)
    assert "| basis | `hat` |" in (folder / "two" / "README.md").read_text()
    assert "| basis | `sinc` |" in (folder / "README.md").read_text()
    # transformers 5.24 asks for a PEFT that is not out, whatever the method
    monkeypatch.setattr(transformers.integrations.peft, "check_peft_version", lambda **_: None)
    native = family("bert").model()
    native.add_adapter(BasisConfig(**OPTIONS))
    native.save_pretrained(tmp_path / "native")
    card = (tmp_path / "native" / "README.md").read_text()
    assert "| num_basis | `6` |" in card and "base_model" not in card
    method = adapters.attach(family("bert").model(), {"method": "abba", "target_modules": "qkv"})
    method.save_pretrained(tmp_path / "abba")
    card = (tmp_path / "abba" / "README.md").read_text()
    assert "`abba` of basis-zoo" in card and "| r | `16` | rank of each of the two pairs |" in card


def test_methods_of_peft_have_the_cards_of_peft(family, tmp_path):
    model = get_peft_model(family("bert").model(), LoraConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match="'default' of PeftModel is none of a method of this"):
        adapters.write_model_card(model, tmp_path)


class FakeHub:
    """A hub in memory: the files of one repository."""

    files: dict[str, str]

    def __init__(self, token=None):
        assert token == "secret"

    def create_repo(self, repo_id, private, exist_ok):
        assert private and exist_ok
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def file_exists(self, repo_id, name, revision):
        return name in self.files

    def hf_hub_download(self, repo_id, name, revision, local_dir):
        (Path(local_dir) / name).write_text(self.files[name])

    def upload_folder(self, repo_id, folder_path, revision, commit_message, ignore_patterns):
        assert repo_id == "me/phi"
        found = (f for f in Path(folder_path).rglob("*") if f.is_file())
        type(self).files = {f.name: f.read_bytes().decode(errors="replace") for f in found}
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


def test_the_hub_gets_the_card_and_keeps_a_user_s_words(saved, monkeypatch):
    model, _ = saved
    FakeHub.files = {}
    monkeypatch.setattr("adapters.peft_integration.model_card.HfApi", FakeHub)
    url = adapters.push_to_hub(model, "phi", token="secret", private=True)
    assert url == "https://hub/me/phi/commit/1"
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= set(FakeHub.files)
    assert "| num_basis | `6` |" in FakeHub.files["README.md"]
    FakeHub.files["README.md"] += "\nMine.\n"
    adapters.push_to_hub(model, "phi", token="secret", private=True)
    assert "Mine." in FakeHub.files["README.md"] and FakeHub.files["README.md"].count(BEGIN) == 1
