"""Images: CIFAR-10's reader, a local folder through the hub's loader, CLIP's prompt ensemble."""

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from studies import backbones, tasks
from studies.backbones import Head
from studies.engine.records import Trial
from studies.engine.trials.training.batches import train_loader
from studies.engine.trials.trial import run_trial
from studies.tasks import packaged
from studies.tasks.kinds import images

Image = pytest.importorskip("PIL.Image")
CLASSES = ("blue", "green", "red")


def png(label: str, number: int) -> bytes:
    """A picture of 16 x 16 pixels in its class's colour, with noise."""
    draw = random.Random(f"{label}{number}")
    image = Image.new("RGB", (16, 16))
    channel = {"red": 0, "green": 1, "blue": 2}[label]
    for place in range(256):
        pixel = [draw.randrange(80) for _ in range(3)]
        pixel[channel] += 150
        image.putpixel((place % 16, place // 16), tuple(pixel))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """train/<class>/*.png and test/<class>/*.png; one test image is also a training image."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    for split, count in (("train", 20), ("test", 6)):
        for label in CLASSES:
            place = tmp_path / "set" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                shift = 0 if split == "train" else 1000
                (place / f"{number}.png").write_bytes(png(label, number + shift))
    (tmp_path / "set" / "train" / "red" / "0.png").write_bytes(png("red", 1000))
    return tmp_path / "set"


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("tiny-vit")
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=16,
        patch_size=4,
    )
    Dinov2Model(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    from tokenizers import processors
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("tiny-clip")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", 0)]
    )
    tokenizer.save_pretrained(folder)
    text = {
        "vocab_size": 257,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "eos_token_id": 0,
        "max_position_embeddings": 77,
        "bos_token_id": 0,
        "pad_token_id": 0,
    }
    vision = {k: text[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    vision |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def run(backbone: Path, folder: Path, run_dir: Path, targets: list[str], **task: Any) -> Any:
    config = {
        "backbone": {"name": str(backbone)},
        "task": {"name": "cifar100", "data": str(folder), **task},
        "adapter": {"method": "lora", "r": 4, "alpha": 8, "target_modules": targets},
        "train": {"epochs": 6, "batch_size": 9, "learning_rate": 0.02},
        "split_seed": 0,
    }
    result = run_trial(Trial(study="s", profile="p", arm="a", seed=0, config=config), run_dir)
    assert result.status == "done", result.failure
    return result


def test_a_folder_is_read_as_the_hubs_sets_are(folder: Path) -> None:
    data = tasks.load({"name": "pets", "data": str(folder), "test_rows": 12, "train_rows": 54})
    assert data.labels == CLASSES
    rows = tasks.describe(data)["rows"]
    assert (rows["valid"], rows["test"]) == (6, 12) and 53 <= rows["train"] <= 54
    again = tasks.load({"name": "pets", "data": str(folder), "test_rows": 12, "train_rows": 54})
    assert tasks.describe(again) == tasks.describe(data)


def test_what_is_in_test_is_in_no_other_part_whatever_the_seed(folder: Path) -> None:
    for seed in range(6):  # the image that train shares with test is drawn for valid by some
        data = tasks.load({"name": "pets", "data": str(folder), "valid_rows": 20}, seed)
        assert len(data.splits["train"] + data.splits["valid"]) == 59
        assert data.removed == {"in_test": 1, "in_valid": 0}


def test_images_of_a_valid_of_its_own_are_left_out_too(folder: Path) -> None:
    (folder / "validation" / "red").mkdir(parents=True)
    for number in (2, 1000, 2000):  # of train, of test, of neither
        (folder / "validation" / "red" / f"{number}.png").write_bytes(png("red", number))
    data = tasks.load({"name": "pets", "data": str(folder)})
    assert (len(data.splits["train"]), len(data.splits["valid"])) == (58, 2)
    assert data.removed == {"in_test": 2, "in_valid": 1}


def test_a_part_that_test_has_altogether_is_refused(folder: Path) -> None:
    (folder / "validation" / "red").mkdir(parents=True)
    (folder / "validation" / "red" / "0.png").write_bytes(png("red", 1000))
    with pytest.raises(ValueError, match=r"no row of valid is left of pets: each is also"):
        tasks.load({"name": "pets", "data": str(folder)})


@pytest.mark.parametrize("augment", [False, True])
def test_a_vision_transformer_learns_colours(
    tiny_vit: Path, folder: Path, tmp_path: Path, augment: bool
) -> None:
    result = run(tiny_vit, folder, tmp_path / "run", ["q_proj", "v_proj"], augment=augment)
    assert result.metrics["test/accuracy"] > 0.6
    assert result.cost.trainable_parameters - result.cost.adapter_parameters == 3 * (2 * 16 + 1)


def test_batches_made_ahead_are_the_same_and_every_epoch_is_augmented_anew(
    tiny_vit: Path, folder: Path
) -> None:
    spec = {"name": "pets", "data": str(folder), "augment": True, "train_rows": 40}
    data = tasks.load(spec)
    _, processor = backbones.load(str(tiny_vit), tasks.head(spec, data))
    prepared = tasks.prepare(spec, data, processor)
    loaders = [train_loader(prepared.train, prepared.collate, 8, 3, workers=n) for n in (0, 2)]
    epochs = [[list(loader) for _ in range(2)] for loader in loaders]
    for one, two in zip(*epochs, strict=True):
        for here, ahead in zip(one, two, strict=True):
            assert torch.equal(here["pixel_values"], ahead["pixel_values"])
            assert torch.equal(here["labels"], ahead["labels"])
    means = [sorted(b["pixel_values"].mean().item() for b in epoch) for epoch in epochs[0]]
    assert means[0] != means[1]


def test_image_size_decides_the_number_of_patches(tiny_vit: Path, folder: Path) -> None:
    spec = {"name": "pets", "data": str(folder), "image_size": 8}
    data = tasks.load(spec)
    _, processor = backbones.load(str(tiny_vit), tasks.head(spec, data))
    prepared = tasks.prepare(spec, data, processor)
    assert prepared.collate([prepared.train[0]])["pixel_values"].shape == (1, 3, 8, 8)


def test_pixels_that_find_room_are_made_once_and_are_those_made_batch_by_batch(
    tiny_vit: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"name": "pets", "data": str(folder), "train_rows": 40}
    data = tasks.load(spec)
    _, processor = backbones.load(str(tiny_vit), tasks.head(spec, data))
    calls: list[int] = []

    def counted(**given: Any) -> Any:
        calls.append(len(given["images"]))
        return processor(**given)

    counted.size = processor.size
    monkeypatch.setattr(images, "AT_ONCE", 7)
    kept = tasks.prepare(spec, data, counted)
    some = [kept.train[place] for place in (len(kept.train) - 1, 0, 7)]
    first, again = ([kept.collate(some), *kept._in_order("test", 4)] for _ in range(2))
    monkeypatch.setattr(images, "MOST_KEPT", 0)
    fresh = tasks.prepare(spec, data, processor)
    for *batches, made in zip(
        first, again, [fresh.collate(some), *fresh._in_order("test", 4)], strict=True
    ):
        for batch in batches:
            assert torch.equal(batch["pixel_values"], made["pixel_values"])
            assert torch.equal(batch["labels"], made["labels"])
    assert sum(calls) == len(kept.train) + len(data.splits["test"]), "each image once"
    assert not kept.slow_batches and fresh.slow_batches


def test_clip_starts_as_its_own_zero_shot_classifier(tiny_clip: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    prompts = ("a photo of a {}.", "art of the {}.")
    model, processor = backbones.load(str(tiny_clip), Head("image_classes", CLASSES, prompts))
    pictures = [Image.open(io.BytesIO(png(label, 5))) for label in CLASSES]
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    clip, tokenizer = CLIPModel.from_pretrained(tiny_clip), AutoTokenizer.from_pretrained(tiny_clip)
    tokenizer.pad_token = tokenizer.eos_token
    with torch.no_grad():
        got = model(pixel_values=pixels).logits
        columns = []
        for label in CLASSES:
            units = []
            for prompt in prompts:  # one at a time: no padding
                output = clip(
                    **tokenizer(prompt.format(label), return_tensors="pt"), pixel_values=pixels
                )
                units.append(output.text_embeds[0])
            mean = torch.stack(units).mean(dim=0)
            columns.append(output.image_embeds @ (mean / mean.norm()))
        want = clip.logit_scale.exp() * torch.stack(columns, dim=1)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_clip_is_trained_on_images_alone(tiny_clip: Path, folder: Path, tmp_path: Path) -> None:
    result = run(tiny_clip, folder, tmp_path / "run", ["q_proj", "v_proj"])
    assert result.metrics["train/loss"] < 1.0
    assert result.cost.trainable_parameters == result.cost.adapter_parameters  # its head is made


def test_cifar10_is_read_out_of_base64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [
        {
            "input": base64.b64encode(png("red", n)).decode(),
            "target_scores": {"cat": n % 2, "dog": 1 - n % 2},
        }
        for n in range(12)
    ]
    (tmp_path / "base64.json").write_text(json.dumps({"examples": examples}))
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "fetch", lambda archive: tmp_path)
    data = tasks.load({"name": "cifar10", "train_rows": 6, "valid_rows": 2, "test_rows": 4})
    labels = {row.image: row.label for rows in data.splits.values() for row in rows}
    assert labels[png("red", 3)] == "cat" and labels[png("red", 4)] == "dog" and len(labels) == 12
