"""Tied embeddings, trained tokens, replicated blocks: weights that more than one module has."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from adapters import BasisConfig


def config(**options) -> BasisConfig:
    return BasisConfig(
        **{"r": 2, "num_basis": 6, "interval": (-1.0, 1.0), "init_weights": False, **options}
    )


def tied_llama(family):
    f = family("llama")
    torch.manual_seed(0)
    base = f.model()
    base.config.tie_word_embeddings = True
    base.tie_weights()
    assert base.lm_head.weight is base.model.embed_tokens.weight
    return f, base


@pytest.mark.parametrize("names", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_tied_embeddings_are_adapted_as_one(family, names, tmp_path):
    f, base = tied_llama(family)
    model = get_peft_model(base, config(target_modules=names, ensure_weight_tying=True))
    one, other = model.base_model.model.model.embed_tokens, model.base_model.model.lm_head
    assert other.owner("default") is one
    assert torch.equal(one.update("default"), other.update("default"))
    want = f.output(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tied_llama(family)[1], tmp_path)
    assert torch.equal(f.output(again), want)
    plain = again.merge_and_unload()
    assert plain.lm_head.weight is plain.model.embed_tokens.weight
    assert torch.equal(f.output(plain), want)
    assert plain.config.tie_word_embeddings


@pytest.mark.parametrize("scope", ["module", "row", "column"])
def test_phi_is_asked_at_the_same_points_by_both_tied_embeddings(family, scope):
    _, base = tied_llama(family)
    names = ["embed_tokens", "lm_head"]
    options = {"sharing": "all", "sharing_scope": scope, "input_scale": 5.0}
    model = get_peft_model(
        base, config(target_modules=names, ensure_weight_tying=True, b_std=0.1, **options)
    )
    one, other = model.base_model.model.model.embed_tokens, model.base_model.model.lm_head
    member = one.member("default")  # with the input scale on B
    product = member.b @ member.a
    x = product.T if scope == "column" else product
    for layer in (one, other):
        torch.testing.assert_close(layer.points("default").flatten(), x.flatten())


def test_tied_embeddings_are_trained_whole_as_one(family):
    _, base = tied_llama(family)
    options = {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}
    model = get_peft_model(base, config(**options, ensure_weight_tying=True))
    inner = model.base_model.model
    one = inner.model.embed_tokens.modules_to_save["default"].weight
    assert inner.lm_head.modules_to_save["default"].weight is one


def test_chosen_tokens_are_trained(family, tmp_path):
    f = family("llama")
    options = config(target_modules=["q_proj"], trainable_token_indices=[3, 5])
    model = get_peft_model(f.model(), options)
    names = [n for n, p in model.named_parameters() if p.requires_grad and "token" in n]
    assert len(names) == 1
    with torch.no_grad():
        dict(model.named_parameters())[names[0]].add_(1.0)
    want = f.output(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(f.model(), tmp_path)
    assert torch.equal(f.output(again), want)
    torch.testing.assert_close(f.output(again.merge_and_unload()), want)


def test_replicated_blocks_have_adapters_of_their_own(family, tmp_path):
    f = family("llama")
    options = config(target_modules=["q_proj"], layer_replication=[(0, 2), (1, 2)])
    model = get_peft_model(f.model(), options)
    blocks = model.base_model.model.model.layers
    assert len(blocks) == 3
    first, second = blocks[1].self_attn.q_proj, blocks[2].self_attn.q_proj
    assert first.get_base_layer().weight is second.get_base_layer().weight
    assert first.basis_A["default"] is not second.basis_A["default"]
    want = f.output(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(f.output(PeftModel.from_pretrained(f.model(), tmp_path)), want)
    assert torch.equal(f.output(model.merge_and_unload()), want)
