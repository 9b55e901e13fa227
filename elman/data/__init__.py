"""Data: reading text, vocabularies, the split into training and validation, parallel streams."""

from elman.data.corpus import Corpus, read_corpus
from elman.data.reading import read_chunks, read_text
from elman.data.streams import Streams
from elman.data.vocabulary import END, UNKNOWN, Vocabulary

__all__ = [
    "END",
    "UNKNOWN",
    "Corpus",
    "Streams",
    "Vocabulary",
    "read_chunks",
    "read_corpus",
    "read_text",
]
