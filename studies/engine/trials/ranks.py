r"""One trial over several processes, each with a GPU of its own: `budget.gpus_per_trial`.

    python -m studies.engine.trials.ranks COUNT FD    # a worker, see `worker`, for such trials

Process r of n trains on rows r, r + n, r + 2n, ... of every batch. The loss of a step is a sum over
its rows divided by their number, see `Prepared.loss`, so that with shares $S_r$ of the batch

$$\nabla L = \sum_r \nabla \frac{1}{N} \sum_{i \in S_r} l_i$$

is the gradient of the whole batch: the effective batch does not depend on n. Only adapters are
trained, so the sum is one all-reduce of few numbers a step, and the model is not wrapped. Every
process clips and steps alike; that their parameters stay the same is checked at the end. All of
them evaluate; the first alone writes into the run folder.

The processes are of the launcher's process group and die with it; torchrun would start each in a
session of its own, where nobody could end it once torchrun is killed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from studies.engine.records import read_result, write_record
from studies.engine.trials.devices import gpu_names
from studies.engine.trials.leash import leashed
from studies.engine.trials.serving import output_to, run_dirs

if TYPE_CHECKING:
    from torch import Tensor, nn

RANK, COUNT, MEETING = "BASIS_ZOO_RANK", "BASIS_ZOO_RANKS", "BASIS_ZOO_RANKS_FILE"
"""Which process this is, how many there are, and the file through which they find each other."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Ranks:
    """The processes of this trial: this is number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    def share(self, batch: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        """This process's rows of `batch`; there may be none."""
        return {name: values[self.rank :: self.count] for name, values in batch.items()}

    def sum(self, trained: "Sequence[nn.Parameter]", loss: "Tensor") -> "Tensor":
        """Add up the gradients of `trained` over all processes, in place; the sum of `loss`."""
        if self.count == 1:
            return loss
        import torch

        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained]
        flat = torch.cat([*(g.float().flatten() for g in grads), loss.float()[None]])
        torch.distributed.all_reduce(flat)
        sums: Sequence[Tensor] = flat.split([g.numel() for g in grads] + [1])
        for parameter, grad, summed in zip(trained, grads, sums[:-1], strict=True):
            parameter.grad = summed.view_as(grad).to(grad.dtype)
        return sums[-1][0].to(loss.dtype)

    def agreed(self, value: float) -> float:
        """The first process's `value`: others may find another in its last bits."""
        if self.count == 1:
            return value
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        shared = torch.tensor(value, dtype=torch.float64, device=device)
        torch.distributed.broadcast(shared, 0)
        return shared.item()

    def check_equal(self, model: "nn.Module") -> None:
        """Raise `RuntimeError` where the processes have trained different parameters."""
        if self.count == 1:
            return
        import torch

        trained = [p.detach().double().flatten() for p in model.parameters() if p.requires_grad]
        ours = torch.cat(trained)
        first = ours.clone()
        torch.distributed.broadcast(first, 0)
        differs = (ours != first).any().double()
        torch.distributed.all_reduce(differs)
        if differs.item():
            raise RuntimeError(
                "the processes of this trial have trained different parameters: its method draws "
                "random numbers between steps. Set budget.gpus_per_trial: 1"
            )


def ranks() -> Ranks:
    """The processes of this trial, as the launcher has said."""
    return Ranks(int(os.environ.get(RANK, "0")), int(os.environ.get(COUNT, "1")))


@contextlib.contextmanager
def joined(run_dir: Path) -> Iterator[Path]:
    """Meet the other processes; the folder that this one may write into.

    It is `run_dir` for the first. The others get scratch, with a copy of the checkpoints; of what
    they find, only a failure is kept, and only where the first has written nothing.
    """
    ours = ranks()
    if ours.count == 1:
        yield run_dir
        return
    import torch

    torch.distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"file://{os.environ[MEETING]}",
        rank=ours.rank,
        world_size=ours.count,
    )
    if ours.rank == 0:
        yield run_dir
        return
    with tempfile.TemporaryDirectory(prefix="basis-zoo-rank-") as name:
        scratch = Path(name)
        for folder in run_dir.glob("checkpoint-*"):
            shutil.copytree(folder, scratch / folder.name)
        yield scratch
        result = read_result(scratch)
        if result is not None and result.status == "failed":
            own = run_dir / f".result-of-{ours.rank}"
            write_record(own, result)
            with contextlib.suppress(FileExistsError):  # the first process has written its own
                os.link(own, run_dir / "result.json")
            own.unlink()


def leave(code: int) -> NoReturn:
    """End this process with `code`, all it has to write being written, without the teardown.

    While the interpreter shuts down, threads of a gloo group may still run: torch then aborts with
    "terminate called without an active exception", or waits for itself, and a finished trial would
    look like a crash.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def launch(count: int, command: Sequence[str]) -> int:
    """Run `command` in `count` processes; 0 where all succeed, else the first other exit code."""
    with tempfile.TemporaryDirectory(prefix="basis-zoo-ranks-") as folder:
        meeting = str(Path(folder) / "meeting")
        left = [
            subprocess.Popen(leashed(command), env=_environment(rank, count, meeting))
            for rank in range(count)
        ]
        while left:
            for process in list(left):
                code = process.poll()
                if code is None:
                    continue
                left.remove(process)
                if code != 0:  # the others wait for it in vain
                    for other in left:
                        other.send_signal(signal.SIGKILL)
                        other.wait()
                    return code if code > 0 else 128 - code
            time.sleep(POLL_SECONDS)
    return 0


def _environment(rank: int, count: int, meeting: str) -> dict[str, str]:
    """Variables of process `rank`: one of the GPUs, and its share of the threads."""
    own = dict(os.environ) | {RANK: str(rank), COUNT: str(count), MEETING: meeting}
    if names := gpu_names(own):
        own["CUDA_VISIBLE_DEVICES"] = names[rank % len(names)]
    if "OMP_NUM_THREADS" in own:
        own["OMP_NUM_THREADS"] = str(max(1, int(own["OMP_NUM_THREADS"]) // count))
    own.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    return own


def main(arguments: Sequence[str] | None = None) -> int:
    """Train trials one after the other, each in several processes of its own, see `worker`."""
    count, descriptor = map(int, arguments or sys.argv[1:])
    with os.fdopen(descriptor, "w", buffering=1) as answers:
        for run_dir in run_dirs():
            command = [sys.executable, "-m", "studies.engine.trials.trial", str(run_dir)]
            with output_to(run_dir / "log.txt"):
                code = launch(count, command)
            result = read_result(run_dir)
            if result is None:
                return code
            answers.write(f"{result.key}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
