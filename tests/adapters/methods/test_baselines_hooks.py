"""What methods do between steps: ranks drawn, moved and masked, rates split, in any loop."""

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

import adapters
from adapters.methods.builtin.dylora import DyloraConfig, DyloraUpdate, rank_at, set_rank
from adapters.methods.builtin.elalora import ElaloraConfig, ElaloraUpdate
from adapters.methods.builtin.elalora_rounds import move, moves_at
from adapters.training.hooks import Hooks, register_hooks

TARGETS = {"target_modules": ["query", "value"]}


def attached(family, method: str, **options):
    torch.manual_seed(3)
    return adapters.attach(family("bert").model(), {"method": method, **TARGETS, **options})


def run(model, batch, steps: int, rate: float = 1e-2, watch=lambda model: None) -> list:
    optimizer = torch.optim.AdamW(adapters.parameter_groups(model, rate))
    adapters.on_attach(model, steps)
    model.train()
    seen = []
    for step in range(1, steps + 1):
        model(**batch).loss.backward()
        optimizer.step()
        adapters.after_step(model, step)
        optimizer.zero_grad()
        seen.append(watch(model))
    return seen


# DyLoRA


def test_drawn_ranks_are_uniform_and_follow_the_seed():
    config = DyloraConfig(r=4, r_min=2)
    draws = [rank_at(config, i) for i in range(600)]
    assert draws == [rank_at(config, i) for i in range(600)]
    assert draws != [rank_at(DyloraConfig(r=4, r_min=2, seed=1), i) for i in range(600)]
    counts = [draws.count(r) for r in range(1, 5)]
    assert counts[0] == 0 and all(150 < n < 250 for n in counts[1:]), counts


def test_training_passes_use_the_drawn_rank_and_only_it(family):
    model = attached(family, "dylora", r=4, alpha=4)
    update = next(m for m in model.modules() if isinstance(m, DyloraUpdate))
    batch = family("bert").batch()
    for draw in range(6):
        model.train()
        nn.init.normal_(update.b)
        model.zero_grad()
        model(**batch).loss.backward()
        rank = rank_at(update.config, draw)
        moved = update.a.grad.abs().sum(1) > 0
        assert moved.tolist() == [i < rank for i in range(4)]
        assert (update.b.grad.abs().sum(0) > 0).tolist() == moved.tolist()


def test_last_only_trains_one_row(family):
    model = attached(family, "dylora", r=4, last_only=True)
    update = next(m for m in model.modules() if isinstance(m, DyloraUpdate))
    model.train()
    nn.init.normal_(update.b)
    model(**family("bert").batch()).loss.backward()
    rank = rank_at(update.config, 0)
    assert (update.a.grad.abs().sum(1) > 0).tolist() == [i == rank - 1 for i in range(4)]


def test_evaluation_uses_all_ranks_or_those_asked_for(family):
    model = attached(family, "dylora", r=4, alpha=8.0).eval()
    update = next(m for m in model.modules() if isinstance(m, DyloraUpdate))
    nn.init.normal_(update.b)
    model.train()
    model(**family("bert").batch())
    model.eval()
    torch.testing.assert_close(update.delta_weight(), 8 / 4 * update.b @ update.a)
    set_rank(model, 2)
    torch.testing.assert_close(update.delta_weight(), 8 / 2 * update.b[:, :2] @ update.a[:2])
    with pytest.raises(ValueError, match="`rank` must be between 1 and 4"):
        set_rank(model, 5)


# ElaLoRA


def random_updates(count: int = 4, **options) -> list[ElaloraUpdate]:
    torch.manual_seed(0)
    updates = []
    for _ in range(count):
        update = ElaloraUpdate(nn.Linear(9, 6), ElaloraConfig(r=3, max_r=5, **options))
        for _ in range(3):
            for p in update.parameters():
                p.data.normal_()
                p.grad = torch.randn_like(p)
            update.observe(0.85, 0.85)
        updates.append(update)
    return updates


def test_importance_is_the_product_of_running_means():
    torch.manual_seed(0)
    update = ElaloraUpdate(nn.Linear(9, 6), ElaloraConfig(r=3, max_r=5))
    means = {n: (0.0, 0.0) for n, _ in update.named_parameters()}
    for _ in range(4):
        for name, p in update.named_parameters():
            p.data.normal_()
            p.grad = torch.randn_like(p)
            now = (p.data * p.grad).abs().double()
            mean = 0.8 * means[name][0] + (1 - 0.8) * now
            means[name] = (mean, 0.7 * means[name][1] + (1 - 0.7) * (now - mean).abs())
        update.observe(0.8, 0.7)
    score = {n: m * s for n, (m, s) in means.items()}
    want = [score["e"][i] + score["a"][i].sum() / 9 + score["b"][:, i].sum() / 6 for i in range(3)]
    got = update.importance()
    torch.testing.assert_close(got[:3].double(), torch.stack(want), rtol=1e-4, atol=0)
    assert got[3:].isinf().all()


def test_a_round_moves_the_least_important_ranks_and_keeps_the_budget():
    updates = random_updates()
    scores = [(float(s), i, j) for i, u in enumerate(updates) for j, s in enumerate(u.importance())]
    lowest = []
    for i in range(4):
        lowest += sorted(s for s in scores if s[1] == i)[:2]
    lowest.sort()
    assert move(updates, 3, 2, torch.Generator().manual_seed(0)) == 3
    assert sum(int(u.active.sum()) for u in updates) == 12
    grown = [0] * 4
    for _, i, _ in lowest[-3:]:
        grown[i] += 1
    pruned = [sum(i == k for _, i, _ in lowest[:3]) for k in range(4)]
    assert [int(u.active.sum()) for u in updates] == [
        3 + g - p for g, p in zip(grown, pruned, strict=True)
    ]


def test_pruning_removes_a_rank_and_growing_barely_changes_the_update():
    (update,) = random_updates(1)
    before = update.delta_weight()
    terms = [
        update.scaling * update.e[i] * torch.outer(update.b[:, i], update.a[i]) for i in range(3)
    ]
    update.prune(1)
    torch.testing.assert_close(update.delta_weight(), before - terms[1])
    update.grow(torch.Generator().manual_seed(0))
    assert int(update.active.sum()) == 3
    torch.testing.assert_close(update.delta_weight(), before - terms[1], atol=1e-6, rtol=1e-4)
    new = update.a[1]
    assert abs(new.norm() - 1) < 1e-4
    assert update.means["a"][0][1].abs().sum() == 0


def test_full_layers_do_not_grow_and_no_layer_loses_its_last_rank():
    updates = random_updates()
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        for u in updates:
            for p in u.parameters():
                p.grad = torch.randn_like(p)
            u.observe(0.85, 0.85)
        move(updates, 4, 2, generator)
    sizes = [int(u.active.sum()) for u in updates]
    assert sum(sizes) == 12 and min(sizes) >= 1 and max(sizes) <= 5


def test_rounds_follow_the_schedule():
    config = ElaloraConfig(
        b=4, interval=10, initial_steps=20, final_steps=30, total_steps=100, anneal=False
    )
    assert [s for s in range(101) if moves_at(config, s)] == [30, 40, 50, 60]
    config.anneal = True
    # b (1 - progress³) with progress 1/5, 2/5, 3/5, 4/5
    assert [moves_at(config, s) for s in (30, 40, 50, 60)] == [4, 4, 3, 2]


def test_ranks_move_in_training_and_the_run_repeats(family):
    def final(seed):
        model = attached(family, "elalora", r=3, b=2, k=1, interval=1, seed=seed)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        run(model, family("bert").batch(), 8)
        found = [m for m in model.modules() if isinstance(m, ElaloraUpdate)]
        return found, torch.cat([u.a.detach().flatten() for u in found])

    updates, numbers = final(0)
    sizes = [int(u.active.sum()) for u in updates]
    assert sum(sizes) == 12 and sizes != [3, 3, 3, 3]
    assert torch.equal(final(0)[1], numbers)
    assert not torch.equal(final(1)[1], numbers)


def test_the_penalty_is_in_the_loss_of_training_only(family):
    model = attached(family, "elalora", r=3, orthogonality=0.5)
    batch = family("bert").batch()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    updates = [m for m in model.modules() if isinstance(m, ElaloraUpdate)]
    want = 0.0
    for u in updates:
        a, b, eye = u.a[:3], u.b[:, :3], torch.eye(3)
        want += (torch.linalg.norm(a @ a.T - eye) + torch.linalg.norm(b.T @ b - eye)) / 2 / 4
    added = model.train()(**batch).loss - model.eval()(**batch).loss
    torch.testing.assert_close(added, 0.5 * want)


# AdaLoRA


def test_adalora_masks_ranks_down_to_the_budget(family):
    model = attached(family, "adalora", r=2, tinit=2, tfinal=4)
    sizes = run(
        model,
        family("bert").batch(),
        12,
        watch=lambda m: sum(int((p != 0).sum()) for n, p in m.named_parameters() if "lora_E" in n),
    )
    assert sizes[1] == 4 * 3 and sizes[-1] == 4 * 2, sizes
    config = model.peft_config["default"]
    assert config.total_step == 12 and config.init_r == 3
    assert sum(sum(mask) for mask in config.rank_pattern.values()) == 4 * 2


def test_adalora_takes_shares_of_the_training_unless_told(family):
    model = attached(family, "adalora")
    adapters.on_attach(model, 100)
    config = model.peft_config["default"]
    assert (config.tinit, config.tfinal, config.total_step) == (10, 20, 100)
    with pytest.raises(ValueError, match="leave none of the 20 steps"):
        adapters.on_attach(attached(family, "adalora", tinit=15, tfinal=10), 20)


def test_adalora_does_not_train_its_divisor_on_a_bfloat16_base(family):
    bert = family("bert", torch.bfloat16)
    model = adapters.attach(bert.model(), {"method": "adalora", "r": 2, **TARGETS})
    assert not [n for n, p in model.named_parameters() if "ranknum" in n and p.requires_grad]


@pytest.mark.parametrize("method", ["adalora", "elalora"])
def test_loops_that_forget_a_call_are_told(family, method):
    model = attached(family, method)
    with pytest.raises(ValueError, match=r"call adapters\.on_attach"):
        adapters.after_step(model, 1)
    adapters.on_attach(model, 10)
    with pytest.raises(ValueError, match="before zero_grad"):
        adapters.after_step(model, 1)


# LoRA+ and the hooks themselves


def test_lora_plus_has_its_rates(family):
    model = attached(family, "lora_plus", rate_ratio=8.0)
    rates = {
        id(p): (g["lr"], g["weight_decay"])
        for g in adapters.parameter_groups(model, 1e-3, 0.1)
        for p in g["params"]
    }
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(rates) == {id(p) for p in trained.values()}
    for name, p in trained.items():
        decay = 0.0 if p.ndim < 2 else 0.1
        assert rates[id(p)] == (8e-3 if "lora_B" in name else 1e-3, decay), name


def test_other_methods_have_two_groups_and_no_calls(family):
    model = attached(family, "lora")
    assert len(adapters.parameter_groups(model, 1e-3, 0.1)) == 2
    before = {n: p.clone() for n, p in model.named_parameters()}
    adapters.on_attach(model, 5)
    adapters.after_step(model, 1)
    adapters.after_step(nn.Linear(2, 2), 1)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    with pytest.raises(ValueError, match="`total_steps` must be at least 1"):
        adapters.on_attach(model, 0)
    with pytest.raises(ValueError, match="has hooks already"):
        register_hooks(ElaloraConfig, Hooks())


@pytest.mark.parametrize("method", ["adalora", "elalora", "dylora"])
def test_the_trainer_makes_the_calls(family, tmp_path, method):
    bert = family("bert")
    options = {"elalora": {"interval": 1}, "adalora": {"tfinal": 1}}.get(method, {})
    model = attached(family, method, r=2, **options)
    batch = bert.batch()
    rows = [{k: v[i] for k, v in batch.items()} for i in range(4)]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=6, per_device_train_batch_size=4, use_cpu=True, report_to="none",
        save_strategy="no", learning_rate=1e-2, disable_tqdm=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows, callbacks=[adapters.StepCallback()]).train()
    config = model.peft_config["default"]
    if method == "adalora":
        assert config.total_step == 6
        assert sum(sum(mask) for mask in config.rank_pattern.values()) == 4 * 2
    elif method == "elalora":
        assert config.total_steps == 6
        updates = [m for m in model.modules() if isinstance(m, ElaloraUpdate)]
        assert all(u.means for u in updates)
    else:
        assert model.get_base_model()._dylora_draws == 6
