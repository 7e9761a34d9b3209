"""Ties between modules: what they count, and that nothing in an adapter's life loosens them."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from torch import nn

import adapters
from adapters import BasisConfig, BasisLinear
from adapters.basis.parameter_counts import count_kinds, parameter_table
from adapters.basis.sharing import COARSE_SCOPES, LEVELS, group_of

G = 6
TARGETS = {"r": 2, "num_basis": G, "target_modules": "all"}


def attach(family, **options):
    torch.manual_seed(3)
    config = BasisConfig(**TARGETS, **options)
    return get_peft_model(family.model(), config).eval()


def layers(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, BasisLinear)}


def ties(model, adapter="default"):
    """For each group of names that hold one parameter: the names."""
    held = {}
    for name, layer in layers(model).items():
        for container in (layer.basis_phi, layer.basis_scale):
            if adapter in container:
                for p_name, p in container[adapter].named_parameters():
                    held.setdefault(id(p), []).append(f"{name} {p_name}")
    return sorted(names for names in held.values() if len(names) > 1)


# two blocks of BERT: 6 modules a block, 12 in all
@pytest.mark.parametrize(
    ("level", "scope", "want"),
    [
        ("none", "all", 2 * G * 12),
        ("grid", "all", 2 * G * 12),
        ("bandwidth", "all", G * 12 + G),
        ("amplitude", "all", G * 12 + G),
        ("all", "all", 2 * G),
        ("all", "kind", 2 * G * 6),
        ("all", "layer", 2 * G * 2),
        ("bandwidth", "kind", G * 12 + G * 6),
        ("amplitude", "layer", G * 12 + G * 2),
    ],
)
def test_counts_are_the_closed_form(family, level, scope, want):
    model = attach(family("bert"), sharing=level, sharing_scope=scope)
    assert adapters.count_parameters(model)["phi"] == want
    counts = count_kinds(model)
    assert counts["total"].phi == want and counts["total"].unshared_phi == 2 * G * 12
    assert sum(c.phi for k, c in counts.items() if k != "total") == want
    optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 1e-3))  # refuses duplicates
    trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert trained == counts["total"].phi + counts["total"].factors


def test_a_learned_grid_line_and_scale_count_too(family):
    options = {"grid": "learned", "linear": True, "input_scale": "learned"}
    for level, want in [
        ("none", 12 * (3 * G + 3)),
        ("grid", 12 * (2 * G + 3) + G),  # line: 2, scale: 1
        ("all", 3 * G + 3),
    ]:
        model = attach(family("bert"), sharing=level, **options)
        assert adapters.count_parameters(model)["phi"] == want, level


def test_paper_counts_for_llama_placements(family):
    """Section G.1: G = 50 gives 100 numbers a module and 700 a block of seven modules."""
    llama = family("llama")
    one_block = BasisConfig(target_modules="all", layers=[0])
    assert count_kinds(get_peft_model(llama.model(), one_block))["total"][::2] == (7, 700)


def test_the_table_is_readable(family):
    table = parameter_table(attach(family("bert"), sharing="all"))
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 2 + 6 + 1
    assert lines[-1].split()[0] == "total" and "12" in lines[-1] and str(2 * G) in lines[-1]
    with pytest.raises(ValueError, match=r"no module of BertFor.* carries a basis adapter"):
        parameter_table(family("bert").model())


@pytest.mark.parametrize("scope", COARSE_SCOPES)
@pytest.mark.parametrize("level", LEVELS)
def test_ties_survive_a_whole_life(family, few_steps, tmp_path, level, scope):
    bert = family("bert")
    options = {"grid": "learned", "input_scale": "learned", "init_weights": False}
    model = attach(bert, sharing=level, sharing_scope=scope, **options)
    tied = ties(model)
    assert bool(tied) == (level != "none")
    few_steps(model, bert.batch())
    want = bert.output(model)
    model.save_pretrained(tmp_path)
    for lean in (False, True):
        again = PeftModel.from_pretrained(
            bert.model(), tmp_path, is_trainable=True, low_cpu_mem_usage=lean
        )
        assert ties(again) == tied, f"low_cpu_mem_usage={lean}"
        assert torch.equal(bert.output(again), want)
    few_steps(again, bert.batch())
    assert ties(again) == tied
    assert not torch.equal(bert.output(again), want)
    changed = bert.output(again)
    for other in (copy.deepcopy(again), again.to(torch.float32)):
        assert ties(other) == tied and torch.equal(bert.output(other), changed)
    again.merge_adapter()
    assert torch.equal(bert.output(again), changed)
    again.unmerge_adapter()
    assert ties(again) == tied
    assert torch.equal(bert.output(again.merge_and_unload()), changed)


def test_two_adapters_share_apart_and_one_can_go(family, tmp_path):
    bert = family("bert")
    model = attach(bert, sharing="all", init_weights=False)
    alone = bert.output(model)
    model.add_adapter("two", BasisConfig(**TARGETS, sharing="all", sharing_scope="kind"))
    assert len(ties(model)) == 2 and len(ties(model, "two")) == 12
    assert not {id(p) for m in layers(model).values() for p in m.basis_phi["two"].parameters()} & {
        id(p) for m in layers(model).values() for p in m.basis_phi["default"].parameters()
    }
    model.save_pretrained(tmp_path)
    model.delete_adapter("two")
    assert torch.equal(bert.output(model), alone) and len(ties(model)) == 2
    model.load_adapter(tmp_path / "two", "back")
    assert len(ties(model, "back")) == 12


def test_ties_hold_without_a_peft_model_around(family):
    model = inject_adapter_in_model(BasisConfig(**TARGETS, sharing="all"), family("bert").model())
    assert len(ties(model)) == 2


def test_shared_numbers_get_the_sum_of_the_gradients(family):
    """A tied number's gradient is the sum of those of its untied copies."""
    bert = family("bert")
    tied = attach(bert, sharing="all", init_weights=False)  # no dropout
    free = attach(bert, init_weights=False)
    with torch.no_grad():
        for p, q in zip(layers(free).values(), layers(tied).values(), strict=True):
            for name, value in q.basis_phi["default"].named_parameters():
                getattr(p.basis_phi["default"], name).copy_(value)
    for model in (tied, free):
        model(**bert.batch()).loss.backward()
    first = next(iter(layers(tied).values())).basis_phi["default"]
    for name in ("amplitude", "raw_bandwidth"):
        want = sum(getattr(m.basis_phi["default"], name).grad for m in layers(free).values())
        torch.testing.assert_close(getattr(first, name).grad, want, rtol=1e-4, atol=1e-7)


def test_unequal_phis_make_their_own_groups(family):
    model = attach(
        family("bert"), sharing="all", phi_pattern={"mlp": {"basis": "fourier", "num_basis": 4}}
    )
    families = {}
    for layer in layers(model).values():
        phi = layer.basis_phi["default"]
        families.setdefault(phi.phi.basis.name, set()).add(id(phi.amplitude))
    assert {name: len(ids) for name, ids in families.items()} == {"sinc": 1, "fourier": 1}


def test_groups():
    name = "encoder.block.3.layer.0.SelfAttention.q"
    assert group_of(name, "all") == ""
    assert group_of(name, "layer") == "encoder.block.3"
    assert group_of(name, "kind") == "encoder.block.layer.SelfAttention.q"
    assert group_of("head", "layer") == "head"


def test_sharing_over_devices_is_refused():
    from adapters.basis.sharing import tie

    def layer(device):
        held = nn.Module()
        phi = BasisConfig(num_basis=3).phi.build_nonlinearity().to(device)
        held.basis_phi, held.basis_scale = nn.ModuleDict({"default": phi}), nn.ModuleDict()
        return held

    with pytest.raises(ValueError, match=r"needs its modules on one device, got cpu and meta"):
        tie({"0.a": layer("cpu"), "1.a": layer("meta")}, "default", "all", "all")
