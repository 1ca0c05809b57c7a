"""Train a small decoder on this machine's own text, and full fine-tunes of it, light and heavy.

    python -m benchmarks.lm_zoo --out zoo_lm --device cuda

Every model is an ordinary Hugging Face directory in bf16, as such models are served; a JSON beside
it holds the recipe, the hash of the corpus, |tau| / |theta|, and the losses of base and fine-tune
on text of held-out files. `data/` has the calibration and test texts of every task. Finished parts
are skipped on a second run.

How far a fine-tune moves decides how well it compresses. So the learning rate is not given but
found: a run that moved too little or too far is done again with another one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks import corpus, lm_text
from benchmarks.lm_settings import FULL, TINY
from benchmarks.lm_training import SERVED, drift, held_out_loss, load, new_model, train
from benchmarks.zoo import progress_bar, quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress
    from transformers import LlamaForCausalLM

    from benchmarks.lm_settings import Setting, Shift
    from nps_store.calibration import Row

RARE = 16
"""The base reads one in so many files of the fine-tunes' domains."""


class Zoo:
    """One folder of models of one setting and one corpus."""

    def __init__(
        self, out: Path, corpus_path: Path, setting: Setting, device: str, progress: Progress
    ) -> None:
        """Read the corpus."""
        self._out = out
        self._setting = setting
        self._device = device
        self._progress = progress
        self._corpus_hash = corpus.file_hash(corpus_path)
        self._documents = _shortened(corpus.read(corpus_path), setting.n_characters)
        self._seen = corpus.lines_of(
            "\n".join(d.text for d in self._documents if d.split == "train")
        )
        self._tokenizer: PreTrainedTokenizerFast

    def base(self) -> dict[str, Any]:
        """Train the base, or find it; returns its card."""
        size = self._setting.size
        common = {"corpus": self._corpus_hash, "size": asdict(size), "device": self._device}
        wanted = common | {"recipe": asdict(self._setting.base)}
        return self._once("base", wanted, self._train_base)

    def fine_tune(self, domain: str, shift: Shift, base: dict[str, Any]) -> dict[str, Any]:
        """Train one fine-tune, or find it; returns its card, with the learning rate it took."""
        name = f"{domain}-{shift.name}"
        wanted = {
            "corpus": self._corpus_hash,
            "base": base["weights"],
            "shift": {"least": shift.least, "most": shift.most},
            "recipe": {k: v for k, v in asdict(shift.recipe).items() if k != "learning_rate"},
        }
        return self._once(name, wanted, lambda: self._train_fine_tune(name, domain, shift))

    def _once(
        self, name: str, wanted: dict[str, Any], make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        card_path = self._out / f"{name}.json"
        if card_path.is_file():
            card: dict[str, Any] = json.loads(card_path.read_text())
            if all(card.get(key) == value for key, value in wanted.items()):
                return card
        start = time.perf_counter()
        made = make()
        weights = corpus.file_hash(self._out / name / "model.safetensors")
        card = {"name": name, **wanted, **made, "weights": weights}
        card["seconds"] = round(time.perf_counter() - start, 1)
        card_path.write_text(json.dumps(card, indent=1) + "\n")
        return card

    def _train_base(self) -> dict[str, Any]:
        size, recipe = self._setting.size, self._setting.base
        texts = lm_text.texts_of(self._documents, corpus.GENERAL, "train")
        for domain in corpus.DOMAINS:
            texts += lm_text.texts_of(self._documents, [domain], "train")[::RARE]
        every = [d.text for d in self._documents if d.split == "train"]
        tokenizer = lm_text.train_tokenizer(every[::2], vocab_size=size.vocab, context=size.context)
        model = new_model(size, seed=recipe.seed).to(self._device)
        tokens = lm_text.stream(tokenizer, texts).to(self._device)
        train(model, tokens, recipe, self._reporter("base", recipe.steps))
        saved = self._save(model, tokenizer, "base")
        held_out = lm_text.texts_of(self._documents, corpus.GENERAL, "test")
        rows = self._passages(tokenizer, held_out, self._seen)
        return {
            "n_parameters": model.num_parameters(),
            "n_tokens": len(tokens),
            "test_loss": held_out_loss(saved, tokenizer([row.text for row in rows])["input_ids"]),
        }

    def _train_fine_tune(self, name: str, domain: str, shift: Shift) -> dict[str, Any]:
        tokenizer = AutoTokenizer.from_pretrained(self._out / "base")
        tokens = lm_text.stream(tokenizer, lm_text.texts_of(self._documents, [domain], "train")).to(
            self._device
        )
        calibration, test = self._write_data(tokenizer, name, domain)
        recipe = shift.recipe
        base = load(self._out / "base", self._device, SERVED)
        tried = []
        for _ in range(self._setting.trials):
            model = load(self._out / "base", self._device, torch.float32)
            train(model, tokens, recipe, self._reporter(name, recipe.steps))
            moved = drift(base.state_dict(), model.to(SERVED).state_dict())
            tried.append({"learning_rate": recipe.learning_rate, "drift": moved})
            if shift.least <= moved <= shift.most:
                break
            aim = (shift.least * shift.most) ** 0.5
            recipe = replace(recipe, learning_rate=recipe.learning_rate * (aim / moved) ** 1.1)
        saved = self._save(model, tokenizer, name)
        ids = tokenizer([row.text for row in test])["input_ids"]
        return {
            "tried": tried,
            "learning_rate": tried[-1]["learning_rate"],
            "drift": tried[-1]["drift"],
            "n_tokens": len(tokens),
            "n_calibration": len(calibration),
            "n_test": len(test),
            "test_loss": held_out_loss(saved, ids),
            "base_test_loss": held_out_loss(base, ids),
        }

    def _write_data(
        self, tokenizer: PreTrainedTokenizerFast, name: str, domain: str
    ) -> tuple[list[Row], list[Row]]:
        """Calibration and test texts that share little with the training text or each other."""
        parts: dict[str, list[Row]] = {}
        seen = self._seen
        for split in ("calibration", "test"):
            texts = lm_text.texts_of(self._documents, [domain], split)
            rows = parts[split] = self._passages(tokenizer, texts, seen)
            seen = seen | corpus.lines_of("\n".join(texts))
            path = self._out / "data" / f"{name}.{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                json.dumps({"text": row.text, "group": row.group}, ensure_ascii=False) + "\n"
                for row in rows
            ]
            path.write_text("".join(lines), encoding="utf-8")
        return parts["calibration"], parts["test"]

    def _passages(
        self, tokenizer: PreTrainedTokenizerFast, texts: list[str], seen: set[bytes]
    ) -> list[Row]:
        return lm_text.passages(
            tokenizer, texts, seen=seen, context=self._setting.size.context,
            n=self._setting.n_rows, seed=self._setting.base.seed,
        )  # fmt: skip

    def _save(
        self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, name: str
    ) -> LlamaForCausalLM:
        """Save in bf16 and load again, to be measured as its users will have it; the directory
        appears only once it is complete."""
        partial, out = self._out / f"{name}.partial", self._out / name
        shutil.rmtree(partial, ignore_errors=True)
        model.to(SERVED).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
        return load(out, self._device, SERVED)

    def _reporter(self, name: str, steps: int) -> Callable[[int, Callable[[], float]], None]:
        bar = self._progress.add_task(name, total=steps)

        def report(step: int, loss: Callable[[], float]) -> None:
            if step % 50 == 49 or step + 1 == steps:  # rarely, as it waits for the GPU
                said = f"{name} loss {loss():.3f}"
                self._progress.update(bar, completed=step + 1, description=said)

        return report


def _shortened(documents: list[corpus.Document], n_characters: int) -> list[corpus.Document]:
    """The first documents of every domain and split, up to a number of characters (0: all)."""
    if not n_characters:
        return documents
    taken: dict[tuple[str, str], int] = {}
    kept = []
    for document in documents:
        key = (document.domain, document.split)
        if taken.get(key, 0) < n_characters:
            taken[key] = taken.get(key, 0) + len(document.text)
            kept.append(document)
    return kept


def _reproducible() -> None:
    """Same seeds, same weights on one machine, where CUDA has such kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def main(
    out: Annotated[Path, typer.Option(help="Folder for the models.")] = Path("zoo_lm"),
    corpus_path: Annotated[
        Path, typer.Option("--corpus", help="Corpus; built from this machine where missing.")
    ] = corpus.DEFAULT_PATH,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    tiny: Annotated[bool, typer.Option("--tiny", help="Seconds on a CPU; for tests.")] = False,
) -> None:
    """Train the zoo of language models."""
    quiet()
    if device != "cpu":
        _reproducible()
    if not corpus_path.is_file():
        corpus.write(corpus_path, corpus.build(corpus.SOURCES))
    setting = TINY if tiny else FULL
    table = Table("model", "drift", "test loss", "base", "learning rate", "seconds")
    with progress_bar() as progress:
        zoo = Zoo(out, corpus_path, setting, device, progress)
        base = zoo.base()
        table.add_row("base", "", f"{base['test_loss']:.4f}", "", "", str(base["seconds"]))
        for shift in setting.shifts:
            for domain in corpus.DOMAINS:
                card = zoo.fine_tune(domain, shift, base)
                # What the last domain took is the best first guess for the next.
                shift = replace(
                    shift, recipe=replace(shift.recipe, learning_rate=card["learning_rate"])
                )
                table.add_row(
                    card["name"], f"{card['drift']:.4f}", f"{card['test_loss']:.4f}",
                    f"{card['base_test_loss']:.4f}", f"{card['learning_rate']:.2e}",
                    str(card["seconds"]),
                )  # fmt: skip
                print(f"{card['name']}: {card['seconds']} s", file=sys.stderr)
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
