"""The example runs as a user would run it, on a tiny model and a text."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as hf
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "finetune.py"


def tokenizer(folder, text):
    words = {"<unk>": 0} | {w: i + 1 for i, w in enumerate(dict.fromkeys(text.split()))}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(folder)


@pytest.mark.slow
def test_finetune_merge_export_and_reload(family, tmp_path):
    assert len(SCRIPT.read_text().splitlines()) < 40
    text = " ".join(f"w{(3 * i) % 50}" for i in range(600))
    (tmp_path / "notes.txt").write_text(text)
    base = family("llama").model()
    base.save_pretrained(tmp_path / "base")
    tokenizer(tmp_path / "base", text)
    command = [sys.executable, SCRIPT, "base", "notes.txt", "out", "--steps", "3"]
    run = subprocess.run(
        list(map(str, command)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "PATH": "",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        },
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "total" in run.stdout and "of the energy" in run.stdout and "LORA" in run.stdout
    inputs = family("llama").batch()
    with torch.no_grad():
        merged = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged").eval()
        want = merged(**inputs).logits
        lora = PeftModel.from_pretrained(base, tmp_path / "out" / "lora").eval()
        got = lora(**inputs).logits
        with lora.disable_adapter():
            plain = lora(**inputs).logits
    assert (got - want).norm() < 0.3 * (want - plain).norm()
