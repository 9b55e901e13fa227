"""Words read by their characters: the same alone and in company, and equal to torch's own LSTM."""

from __future__ import annotations

import torch
from torch import nn

from elman.layers.characters import CharacterReader


def test_a_word_is_read_as_by_torchs_lstm():
    torch.manual_seed(0)
    reader = CharacterReader(20, 4, 5)
    theirs = nn.LSTM(4, 5, bidirectional=True, batch_first=True)
    theirs.load_state_dict(reader.recurrent.state_dict())
    characters = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [9, 0, 0, 0]])
    lengths = torch.tensor([4, 2, 1])
    found = reader(characters, lengths)
    for row, n in enumerate(lengths.tolist()):
        out, (last, _) = theirs(reader.embedding(characters[row : row + 1, :n]))
        expected = torch.cat([out[0, -1, :5], out[0, 0, 5:]])
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[row], last[:, 0].flatten(), rtol=1e-5, atol=1e-6)


def test_padding_and_neighbours_change_nothing():
    torch.manual_seed(1)
    reader = CharacterReader(20, 4, 5)
    alone = reader(torch.tensor([[3, 4]]), torch.tensor([2]))
    padded = torch.tensor([[3, 4, 17, 18, 19], [5, 6, 7, 8, 9]])
    both = reader(padded, torch.tensor([2, 5]))
    assert torch.equal(both[0], alone[0])


def test_gradients_reach_every_weight_but_unused_characters():
    reader = CharacterReader(6, 3, 2)
    reader(torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1])).square().sum().backward()
    rows = reader.embedding.weight.grad.abs().sum(1) > 0
    assert rows.tolist() == [False, True, True, True, False, False]
    assert all(bool(w.grad.abs().sum() > 0) for w in reader.recurrent.parameters())
