"""Fine-tune a causal language model on a text file by φ(BA), merge it, and export it as plain LoRA.

    python examples/finetune.py HuggingFaceTB/SmolLM2-135M notes.txt out --steps 100
"""  # fmt: skip

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

from adapters import BasisConfig, parameter_groups, parameter_table
from adapters.export import to_lora

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="a hub id or a local folder")
for name in ("text", "out"):
    parser.add_argument(name)
parser.add_argument("--steps", type=int, default=100)
a = parser.parse_args()
set_seed(0)
tokens = AutoTokenizer.from_pretrained(a.model)(Path(a.text).read_text(), return_tensors="pt")
rows = [{"input_ids": t, "labels": t} for t in tokens.input_ids[0].split(64) if len(t) == 64]
config = BasisConfig(r=8, target_modules="all", task_type="CAUSAL_LM")
model = get_peft_model(AutoModelForCausalLM.from_pretrained(a.model), config)
print(parameter_table(model))
options = TrainingArguments(f"{a.out}/run", max_steps=a.steps, per_device_train_batch_size=4)
optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3))  # no weight decay on phi
Trainer(model, options, train_dataset=rows, optimizers=(optimizer, None)).train()
export = to_lora(model, energy=0.99)  # one threshold over the singular values of all layers
print(export.table(), "\nsaved in", export.save(f"{a.out}/lora"))
model.merge_and_unload().save_pretrained(f"{a.out}/merged")
RELOAD = """import sys, transformers, peft  # nothing of this project
base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(peft.PeftModel.from_pretrained(base, sys.argv[2]).peft_config["default"].peft_type)"""
subprocess.run([sys.executable, "-c", RELOAD, a.model, f"{a.out}/lora"], check=True)
