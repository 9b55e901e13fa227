"""Words about a call: which backend runs it, and why."""

from __future__ import annotations

from elman.backends.choose import Choice


def explain(
    owner: str,
    choice: Choice,
    learning: str,
    *,
    whole: bool,
    lengths: bool,
    elementwise: bool = False,
) -> str:
    """A few sentences on a choice of backend.

    Args:
        owner: the layer.
        learning: the way of learning, in words.
        whole: whether torch's kernel takes the whole stack at once.
        lengths: whether the rows of the call have lengths.
        elementwise: whether our kernel walks over time with no product of a state.
    """
    why = "; ".join(choice.reasons)
    lines = []
    if choice.backend == "cpu":
        lines.append(f"{owner} runs on Elman's kernel for the CPU (backend 'cpu').")
        lines.append(f"Why: {why}.")
        if elementwise:
            lines.append(
                "Its recurrence goes element by element: no step has a product of the state."
            )
    elif choice.backend == "torch":
        lines.append(f"{owner} runs on torch's own kernel (backend 'torch').")
        lines.append(f"Why: {why}.")
        if lengths:
            lines.append(
                "Rows with lengths run padded, with the memory held past each row's end: exact, "
                "and faster than a PackedSequence in torch.nn."
            )
        elif not whole:
            lines.append("Layers and directions run one after the other, not as one stack.")
    else:
        lines.append(
            f"{owner} runs on the reference (backend 'reference'), a plain loop over time in "
            "Python: the slower path."
        )
        lines.append(f"Why: {why}.")
    lines.append(f"Gradient: {learning}.")
    return "\n".join(lines)
