"""The model card of a saved adapter: what it is, its settings, and how to load it.

PEFT's `save_pretrained` saves a configuration last; ours writes the card then, into the README.md
that PEFT has begun. `push_to_hub` of transformers 5 puts a text of its own in the card's place, so
`push_to_hub` is here too.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from peft import PeftConfig
from torch import nn

from adapters.placement.module_names import short_kind

BEGIN, END = "<!-- adapter: written by basis-zoo -->", "<!-- adapter: end -->"
"""What lies between them is written anew at each saving; the rest of a card stays."""
_TEMPLATE, _VERSIONS = "# Model Card for Model ID", "### Framework versions"
"""Marks of a card that no user has filled in yet, and of the part that PEFT writes."""
_PLACEMENT = ("target_modules", "exclude_modules", "layers", "layers_to_transform")
_TECHNICAL = ("layers_pattern", "modules_to_save", "init_weights", "schema_version")
_AUTO = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}

_TEXT = """\
# Adapter for {base}

{what}, trained on {base} and saved by [PEFT](https://huggingface.co/docs/peft). The method is
`{method}` of basis-zoo, whose package `adapters` registers it with PEFT; without it, loading fails
with `KeyError: '{peft_type}'`.

## How to load

```python
import adapters  # basis-zoo's; AdapterHub's package of this name is another one
from peft import PeftModel
from transformers import {auto}

base = {auto}.from_pretrained("{source}")
model = PeftModel.from_pretrained(base, "THIS_REPOSITORY")
model = model.merge_and_unload()  # optional: the plain model, for methods that can be merged
```

## Settings

| setting | value | meaning |
|---|---|---|
{rows}
| adapted modules | {modules} | by their names below the block |
"""


class WithCard:
    """A PEFT configuration that writes a model card where it is saved."""

    what = "An adapter"
    """What the method does, as the beginning of a sentence."""

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save as PEFT does, then write or update the card."""
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]  # PeftConfig's
        assert isinstance(self, PeftConfig)
        _write(self, Path(save_directory))


def write_model_card(model: nn.Module, folder: str | Path, adapter: str = "default") -> Path:
    """Write the card of `adapter` of `model` into `folder`, or bring the card there up to date.

    `save_pretrained` does it by itself; this is for cards that something else has overwritten.

    Args:
        model: A model with an adapter of this package on it.
        folder: It is made where it is missing.
        adapter: The adapter's name.

    Returns:
        The README.md.

    Raises:
        ValueError: The adapter belongs to no method of this package, or a README.md that is no
            model card (one without metadata, or not in UTF-8) is in the way.
    """
    config = getattr(model, "peft_config", {}).get(adapter)
    if not isinstance(config, WithCard):
        raise ValueError(
            f"adapter {adapter!r} of {type(model).__name__} is none of a method of this package: "
            "PEFT writes the cards of its own methods"
        )
    assert isinstance(config, PeftConfig)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not _write(config, folder):
        raise ValueError(f"{folder / 'README.md'} is no model card: choose another folder")
    return folder / "README.md"


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload adapter",
) -> str:
    """Upload the adapters of a PEFT model with their card; a card that is there is kept up to date.

    In the place of `model.push_to_hub`, which uploads the same files with an empty card.

    Args:
        model: What `get_peft_model` returned.
        repo_id: `user/name`; it is created where it is missing.
        token: Token of the hub; by default that of the logged-in user.
        private: Whether a new repository is private.
        revision: A branch; by default the main one.
        commit_message: Message of the commit.

    Returns:
        The address of the commit.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        if api.file_exists(repo_id, "README.md", revision=revision):
            api.hf_hub_download(repo_id, "README.md", revision=revision, local_dir=folder)
        model.save_pretrained(folder)  # type: ignore[operator]  # PeftModel's
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            ignore_patterns=[".cache/**"],
        )
    return str(commit.commit_url)


def _write(config: PeftConfig, folder: Path) -> bool:
    """Whether there is a card now; a README.md without metadata, or not in UTF-8, is left alone."""
    file = folder / "README.md"
    try:
        if file.exists() and not file.read_text(encoding="utf-8").startswith("---"):
            return False
    except UnicodeDecodeError:
        return False
    card = ModelCard.load(file) if file.exists() else ModelCard("---\nlibrary_name: peft\n---\n")
    if not card.data.get("base_model"):  # PEFT writes an empty one, which the hub refuses
        card.data["base_model"] = None
    tags = {tag for tag in card.data.get("tags") or () if not tag.endswith(":")}
    card.data["tags"] = sorted(tags | {"basis-zoo"})
    section = f"{BEGIN}\n{_section(config)}{END}"
    before, begun, rest = card.text.partition(BEGIN)
    if begun:
        card.text = before + section + rest.partition(END)[2]
    elif _TEMPLATE in card.text or not card.text.strip():
        _, heading, versions = card.text.partition(_VERSIONS)
        card.text = f"\n{section}\n\n{heading}{versions}".rstrip() + "\n"
    else:
        card.text = f"{card.text.rstrip()}\n\n{section}\n"
    card.save(file)
    return True


def _section(config: PeftConfig) -> str:
    source = config.base_model_name_or_path
    peft_type = str(getattr(config.peft_type, "value", config.peft_type))
    return _TEXT.format(
        base=f"`{source}`" if source else "a base model",
        source=source or "BASE_MODEL",
        what=getattr(config, "what", "An adapter"),
        method=getattr(config, "method", "") or peft_type.lower(),
        peft_type=peft_type,
        auto=_AUTO.get(str(getattr(config.task_type, "value", config.task_type)), "AutoModel"),
        rows="\n".join(_rows(config)),
        modules=_modules(getattr(config, "target_modules", None)),
    )


def _rows(config: PeftConfig) -> list[str]:
    hidden = {f.name for f in dataclasses.fields(PeftConfig)} | {*_PLACEMENT, *_TECHNICAL}
    rows = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in hidden and value is not None and value != {}:
            meaning = str(field.metadata.get("help", "")).replace("|", "\\|")
            rows.append(f"| {field.name} | `{value}` | {meaning} |")
    return rows


def _modules(targets: Any) -> str:
    if not targets or isinstance(targets, str):
        return f"`{targets}`"
    return ", ".join(f"`{kind}`" for kind in sorted({short_kind(name) for name in targets}))
