"""A trained language model: what users call to generate, score and evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from elman.data import Vocabulary, read_chunks
from elman.data.tokens import whole_lines
from elman.data.vocabulary import Treatment, count_characters
from elman.errors import InputError
from elman.tasks.lm import generating, measure, scoring
from elman.tasks.lm.network import LanguageModel
from elman.tasks.lm.scoring import Score

Unknown = Literal["auto", "error", "use", "skip"]


class TrainedLM:
    """A language model with its vocabulary, as `elman.load` returns it.

    Tokens that the vocabulary lacks are treated as `unknown` says, in every method: "error" refuses
    them, "use" takes them as `<unk>`, "skip" leaves them out. "auto" is "use" where the model has
    an `<unk>`, as in validation (the tokens were rare or unseen in training), and "error" where it
    has none.

    Attributes:
        network: the torch module, in evaluation mode.
        vocabulary: its tokens.

    Example:
        >>> import tempfile, elman
        >>> from elman.tasks import build
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/a.txt").write_text("an apple and a pear\\n" * 40)
        ...     task = build("lm", [f"{folder}/a.txt"], {"hidden": 8, "embedding": 4})
        >>> model = task.trained()
        >>> model.generate("an", length=5, seed=1) == model.generate("an", length=5, seed=1)
        True
        >>> score = model.score("a pear")[0]
        >>> len(score.tokens), abs(score.log_prob - sum(score.per_token)) < 1e-9
        (7, True)
    """

    def __init__(self, network: LanguageModel, vocabulary: Vocabulary):
        self.network, self.vocabulary = network.eval(), vocabulary

    def vectors(self) -> tuple[Sequence[str], Tensor]:
        """Return the tokens and their learned vectors, (tokens, size).

        Raises:
            InputError: a model of one-hot vectors.
        """
        if self.network.embedding is None:
            raise InputError("this model has no learned token vectors (embedding=0).")
        return self.vocabulary.tokens, self.network.embedding.weight.detach()

    @staticmethod
    def in_words(metrics: Mapping[str, Any]) -> list[str]:
        """Say what `evaluate` found, in lines."""
        doubt = ", not comparable: see the note" if "note" in metrics else ""
        lines = [f"{metrics['tokens']:,} tokens{doubt}"]
        for unit, word in (("char", "character"), ("token", "token")):
            nats, bits = metrics[f"nats_per_{unit}"], metrics[f"bits_per_{unit}"]
            lines.append(f"{nats:.4f} nats a {word} ({bits:.4f} bits)")
        return [*lines, f"perplexity {metrics['perplexity']:.3f} a token"]

    def generate(
        self,
        prompt: str = "",
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        count: int = 1,
        seed: int = 0,
        *,
        sentence: bool = False,
        unknown: Unknown = "auto",
    ) -> list[str]:
        r"""Return texts that the model writes after a prompt; the prompt stands first.

        Each token is drawn from :math:`p_i \propto \exp(z_i / \text{temperature})`. The model has
        read an end of line before the prompt, so the prompt begins a line. `<unk>` is never drawn.

        Args:
            prompt: text to go on from.
            length: tokens to draw, >= 0.
            temperature: >= 0; 0 always takes the likeliest token.
            top_k: draw only from the k likeliest tokens, >= 1; None is all.
            count: number of texts, >= 1. Text i is the same for every count.
            seed: seed of the draws, >= 0.
            sentence: stop before the first end of line that is drawn.
            unknown: what to do with tokens of the prompt unseen in training; see the class.

        Raises:
            InputError: a value out of range, or an unseen token that is refused.
        """
        if not isinstance(count, int) or count < 1:
            raise InputError(f"generate: count is {count!r}; expected a whole number >= 1.")
        texts = []
        for i in range(count):
            pieces = self.generate_stream(
                prompt, length, temperature, top_k, seed, i, sentence=sentence, unknown=unknown
            )
            texts.append("".join(pieces))
        return texts

    def generate_stream(
        self,
        prompt: str = "",
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        index: int = 0,
        *,
        sentence: bool = False,
        unknown: Unknown = "auto",
    ) -> Iterator[str]:
        """Yield a text piece by piece as it is written, first the prompt; see `generate`.

        Args:
            index: which of the texts of `generate`, from 0.
        """
        generating.check(length, temperature, top_k, seed, index)
        ids = self._encode(prompt, unknown, "prompt")
        drawn = generating.draw(
            self.network,
            self.vocabulary,
            ids,
            length=length,
            temperature=temperature,
            top_k=top_k,
            seed=(seed, index),
            sentence=sentence,
        )
        return generating.pieces(prompt, ids, drawn, self.vocabulary)

    def score(
        self,
        sentences: str | Sequence[str],
        *,
        finished: bool = True,
        unknown: Unknown = "auto",
    ) -> list[Score]:
        r"""Return the probability of each sentence, token by token.

        .. math::

            P(s) = \prod_i p(s_i | \backslash n, s_1, \dots, s_{i-1}) \cdot p(\backslash n |
            \backslash n, s_1, \dots, s_n)

        An end of line stands before the sentence and one after it: the probabilities of all
        sentences sum to one. A final end of line in a given sentence is taken as that end mark.

        Args:
            sentences: one sentence or several.
            finished: count the end mark; False gives the probability that a text begins so.
            unknown: what to do with tokens unseen in training; see the class.

        Returns:
            one `Score` for each sentence, in order.

        Raises:
            InputError: a token unseen in training that is refused.

        Source: the comparison of sentences by a language model, "the apple and pear salad" against
        "the apple and pair salad", is that of Jurafsky & Martin, Speech and Language Processing.
        """
        if not isinstance(sentences, str | Sequence):
            raise InputError(f"sentences is {sentences!r}; expected a text, or a list of texts.")
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)
        known = []
        for i, text in enumerate(sentences, start=1):
            where = "sentence" if len(sentences) == 1 else f"sentence {i}"
            if not isinstance(text, str):
                raise InputError(f"{where} is {text!r}; expected a text.")
            text = sentences[i - 1] = text.removesuffix("\n")
            known.append(self._encode(text, unknown, where))
        unseen = [tuple(token for _, token in self.vocabulary.unseen(text)) for text in sentences]
        return scoring.score(self.network, self.vocabulary, sentences, known, unseen, finished)

    def evaluate(
        self, files: str | Path | Sequence[str | Path], *, unknown: Unknown = "auto"
    ) -> dict[str, Any]:
        """Measure the model on text files, joined in order; every token is counted once.

        The text is read in up to 64 parallel streams of equal length. Each first reads the 256
        tokens before it without counting them; the first stream begins after an end of line. So a
        figure differs from that of one unbroken reading only by what context from beyond 256
        tokens would add.

        Args:
            files: a file, or several; "-" is standard input.
            unknown: what to do with tokens unseen in training; see the class.

        Returns:
            "nats_per_token", "bits_per_token", "nats_per_char", "bits_per_char", "perplexity" (of
            a token), "tokens", "unseen": the number of tokens that the vocabulary lacks, and
            "skipped": how many of them were left out. Characters are those of the tokens that
            were measured (words joined by single spaces), so what is skipped counts nowhere. An
            `<unk>` pays once for all characters it stands for: where the text has any, or where
            tokens were skipped, "note" says that the figures are not comparable.

        Raises:
            FileError: a file cannot be read as text.
            InputError: a token unseen in training that is refused.
        """
        names = [files] if isinstance(files, str | Path) else list(files)
        parts, characters, unseen = [], 0, 0
        skip = self._treatment(unknown) == "skip"
        for name in names:
            chunks = read_chunks(name)
            for chunk in chunks if self.vocabulary.level == "char" else whole_lines(chunks):
                parts.append(self._encode(chunk, unknown, str(name)).astype(np.int32))
                lacking = len(self.vocabulary.unseen(chunk))
                known = self.vocabulary.decode(parts[-1]) if skip and lacking else chunk
                characters += count_characters(known, self.vocabulary.level)
                unseen += lacking
        text = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        if not len(text):
            raise InputError(f"{', '.join(map(str, names))}: no token of it was seen in training.")
        before = np.array([self.vocabulary.end])
        total = measure.negative_log_likelihood(self.network, before, text)
        found: dict[str, Any] = dict(measure.metrics(total.nats, total.tokens, characters))
        found |= {"unseen": unseen, "skipped": unseen if skip else 0}
        stand_ins = int(np.count_nonzero(text == self.vocabulary.unknown))
        notes = measure.notes(total.tokens, stand_ins, found["skipped"])
        return found | ({"note": notes} if notes else {})

    def _encode(self, text: str, unknown: Unknown, where: str) -> np.ndarray:
        if not isinstance(text, str):
            raise InputError(f"{where} is {text!r}; expected a text.")
        return self.vocabulary.encode(text, self._treatment(unknown), where)

    def _treatment(self, unknown: Unknown) -> Treatment:
        if unknown not in ("auto", "error", "use", "skip"):
            raise InputError(f"unknown is {unknown!r}; expected auto, error, use or skip.")
        if unknown == "auto":
            return "error" if self.vocabulary.unknown is None else "use"
        return unknown
