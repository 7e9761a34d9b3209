"""Compiles the fused kernels for GPUs that need not be there: compile_kernels.py CAPABILITY CASES

CASES is a JSON list of [rows, columns, rank, dtype, basis, range]. `merged_weight`,
`merge_gradients` and, where the GPU has 8-bit products, their `cast` are called on the CPU; what
they launch is compiled instead of run. Prints a JSON list, for each case the kernels as [name,
bytes spilled a thread, bytes of shared memory].
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from adapters.ops.dense_gradient.fused import cast
from adapters.ops.merge.fused.gradients import merge_gradients
from adapters.ops.merge.fused.weight import merged_weight
from bench.adapter.cases import case

POINTERS = {
    torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32",
    torch.float64: "*fp64", torch.float8_e4m3fn: "*fp8e4nv",
}  # fmt: skip
Launch = tuple[JITFunction, dict[str, Any]]


def launches(
    rows: int, columns: int, rank: int, dtype: str, basis: str, reach: float, capability: int
) -> list[Launch]:
    """What both passes over one weight launch, with the names of their arguments."""
    found: list[Launch] = []

    def record(kernel: JITFunction, *values: Any, grid: Any, warmup: bool, **named: Any) -> None:
        found.append((kernel, dict(zip(kernel.arg_names, values, strict=False)) | named))

    JITFunction.run = record
    b, a, proxy, _ = case(basis, reach, (rows, columns), rank, "cpu")
    weight = torch.zeros(rows, columns, dtype=getattr(torch, dtype))
    merged_weight(weight, b, a, proxy, 1.0)
    if weight.dtype == torch.bfloat16:
        merged_weight(weight, b, a, proxy, 1.0, seed=1)
    merge_gradients(weight, b, a, proxy, 1.0)
    if capability >= 89:
        cast(weight)
    return found


def compiled(kernel: JITFunction, arguments: dict[str, Any], capability: int) -> list[Any]:
    """Name, spilled bytes and shared memory of a launch, specialized as Triton would."""
    if "ASM" in arguments:
        arguments["ASM"] = True  # as on a GPU; the CPU's interpreter has no PTX
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        special = isinstance(value, int) and not parameter.do_not_specialize
        if parameter.is_constexpr or (special and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = POINTERS[value.dtype]
            attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
            if special and value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    known = ("num_warps", "enable_fp_fusion")
    options = {name: arguments[name] for name in known if name in arguments}
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return [kernel.fn.__name__, spilled(binary.asm["ptx"], capability), binary.metadata.shared]


def spilled(ptx: str, capability: int) -> int:
    """Bytes a thread stores for want of registers."""
    target = re.search(r"\.target (\w+)", ptx)
    assert target is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx, encoding="utf-8")
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={target[1]}", path]
        command += ["-o", path.with_suffix(".cubin")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"(\d+) bytes spill stores", done.stderr)
    return int(found[1]) if found else 0


def main() -> None:
    """Compile each case."""
    capability, cases = int(sys.argv[1]), json.loads(sys.argv[2])
    found = [
        [compiled(*launch, capability) for launch in launches(*case, capability)] for case in cases
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
