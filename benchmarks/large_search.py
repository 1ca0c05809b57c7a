"""Does the search of a large model fit one GPU? Its cost beside the model's own passes.

    python -m benchmarks.large_search --layers 32 --folder DIR --device cuda      # 8.0 B parameters

The pair is synthetic, its text is this package's own source: time and memory are real, quality is
not measured.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks import search_cost
from benchmarks.lm_text import train_tokenizer
from benchmarks.machine import write_result
from benchmarks.pair import LARGE, make_pair

if TYPE_CHECKING:
    from benchmarks.lm_training import Size

RESULT = Path("benchmarks") / "results" / "large_search.json"
CONTEXT = 128
N_TEXTS = 96
N_CHARACTERS = 400


def main(
    folder: Annotated[Path, typer.Option(help="Where to put the pair; removed afterwards.")],
    layers: Annotated[int, typer.Option(help="32 makes 8.0 B parameters.")] = 32,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda",
    out: Annotated[Path, typer.Option(help="Where to write the result.")] = RESULT,
) -> None:
    """Make the pair with its data, and measure the search."""
    run(folder, replace(LARGE, layers=layers), device=device, out=out)


def run(folder: Path, size: Size, *, device: str, out: Path) -> None:
    """As `main`, of any size."""
    place = folder / "large-search"
    try:
        make_pair(place, size, device=device)
        write_texts(place, size)
        # A synthetic fine-tune gains nothing; it can be told apart by its outputs all the same.
        search_cost.main(
            place, "fine-tune", place / "base", device, objective="distill", whole=False, out=out
        )
        result = json.loads(out.read_text(encoding="utf-8"))
        about = {
            "command": f"python -m benchmarks.large_search --layers {size.layers}",
            "size": asdict(size),
        }
        write_result(out, result | about)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_texts(place: Path, size: Size) -> None:
    """A tokenizer for both models, and the calibration texts of the fine-tune."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    source = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    texts = [source[i * N_CHARACTERS : (i + 1) * N_CHARACTERS] for i in range(N_TEXTS)]
    vocabulary = min(size.vocab, 2048)
    tokenizer = train_tokenizer(texts, vocab_size=vocabulary, context=CONTEXT)
    for name in ("base", "fine-tune"):
        tokenizer.save_pretrained(place / name)
    data = place / "data" / "fine-tune.calibration.jsonl"
    data.parent.mkdir()
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    data.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
